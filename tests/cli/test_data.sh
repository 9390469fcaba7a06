#!/usr/bin/env bash
# xkd data ...: exit codes and what each command leaves behind.
set -u
xkd=$(cd "${XKD_BUILD:-build}" && pwd)/xkd
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

n=0
check() { # check NAME EXPECTED_EXIT COMMAND...: runs it, output in out and err
  n=$((n + 1)); name=$1 expected=$2; shift 2
  "$@" >out 2>err
  rc=$?
  if [ "$rc" -eq "$expected" ]; then echo "ok $n - $name"; else echo "not ok $n - $name: exit $rc, not $expected: $(head -c 300 err)"; fi
}
says() { # says NAME FILE TEXT: the file holds the text
  n=$((n + 1))
  if grep -qF -- "$3" "$2"; then echo "ok $n - $1"; else echo "not ok $n - $1: \"$3\" is not in $2: $(head -c 300 "$2")"; fi
}

check "synth makes a data set" 0 "$xkd" data synth --out toys --classes 2 --clips 3 --seconds 2 --size 64 --seed 1
says "synth has train" <(ls toys/train/bounce) 00000.mp4
says "synth has test" <(ls toys/test/bounce) 00002.mp4
check "synth keeps what exists" 2 "$xkd" data synth --out toys --classes 2 --clips 3
check "synth needs --out" 2 "$xkd" data synth
check "index writes a manifest" 0 "$xkd" data index toys
says "manifest has classes" toys/manifest.jsonl '"classes":["bounce","orbit"]'
says "manifest has splits" toys/manifest.jsonl '"split":"test"'
says "index counts" out "6 files, 2 classes"
check "index as JSON" 0 "$xkd" data index toys --json
says "JSON counts" out '"files": 6'
check "check finds them short for 4 s clips, not broken" 0 "$xkd" data check toys
says "check names short files" out short
check "check with 2 s clips" 0 "$xkd" data check toys dataset.clip_duration=2 model.kwargs.num_frames=16
says "all are well" out "6 files: 6 ok"
echo junk >toys/train/bounce/broken.mp4
rm toys/manifest.jsonl
check "check exits 3 with a broken file" 3 "$xkd" data check toys dataset.clip_duration=2 model.kwargs.num_frames=16
says "check names the broken file" out "train/bounce/broken.mp4"
n=$((n + 1))
if grep -q broken toys/clean.jsonl; then echo "not ok $n - clean manifest has the broken file"; else echo "ok $n - clean manifest is clean"; fi
printf '{"path":"%s","labels":[0,1]}\n' toys/train/bounce/broken.mp4 toys/train/bounce/00000.mp4 >several.jsonl
check "and of files with several labels" 3 "$xkd" data check several.jsonl dataset.clip_duration=2 model.kwargs.num_frames=16
says "the good one is left" out "2 files: 1 ok 1"
check "stats measure" 0 "$xkd" data stats toys/clean.jsonl --json
says "stats have the mel mean" out '"mel_mean": '
check "show writes views" 0 "$xkd" data show toys/train/orbit/00000.mp4 --out shown
says "show writes PNG" <(ls shown) video-0-global.png
says "show writes WAV" <(ls shown) audio-1-local.wav
check "show refuses junk" 3 "$xkd" data show toys/train/bounce/broken.mp4
mkdir empty
check "an empty folder is exit 3" 3 "$xkd" data index empty
check "a missing folder is exit 3" 3 "$xkd" data index nowhere
printf '{"path":"a.mp4"\n' >bad.jsonl
check "bad JSON is exit 3" 3 "$xkd" data stats bad.jsonl
says "bad JSON names the line" err "bad.jsonl:1:"
check "no workers is exit 2" 2 "$xkd" data check toys --workers 0
check "bench data as JSON" 0 "$xkd" bench data --clip toys/train/orbit/00000.mp4 --count 2 --json
says "bench prints the ratio" out '"ratio": '
list() { # list ABSENT: and two that are there
  for i in $(seq "$1"); do echo "gone/$i.mp4 $((i % 2))"; done >list.txt
  printf 'toys/train/orbit/00000.mp4 0\ntoys/train/orbit/00001.mp4 1\n' >>list.txt
}
list 10
check "ten of a short list may be bad" 0 "$xkd" data index list.txt --out listed.jsonl
says "they are left out" out "2 files, 0 classes, 0.00 hours, 0 without sound, 10 left out"
rm listed.jsonl
list 11
check "but no more" 3 "$xkd" data index list.txt --out listed.jsonl
says "the eleven are counted" err "11 of 13 listed files"
list 100
check "a list of absent files is exit 3" 3 "$xkd" data index list.txt --out listed.jsonl
says "they are counted" err "100 of 102 listed files are absent or cannot be read, more than data.max_bad_fraction=0.01 allows"
says "and named" err "left out: gone/99.mp4: missing:"
check "and no manifest" 1 test -e listed.jsonl
check "unless they are allowed" 0 "$xkd" data index list.txt --out listed.jsonl data.max_bad_fraction=1
says "the others are there" out "2 files, 0 classes"

# Sound alone, through every command of this file.
mkdir -p sounds/a sounds/b
for i in 0 1; do
  "$xkd" data show toys/train/bounce/0000$i.mp4 --out shown$i dataset.clip_duration=2 >/dev/null 2>&1
  cp shown$i/audio-0-global.wav sounds/a/$i.wav
  cp shown$i/audio-0-global.wav sounds/b/$i.wav
done
only=model.fwd_kwargs.modality=audio
check "index of sounds" 0 "$xkd" data index sounds --json $only
says "their hours count" out '"hours": 0.0022'
check "check of sounds" 0 "$xkd" data check sounds $only dataset.clip_duration=2
says "they are in order" out "4 files: 4 ok"
check "with both they are not" 3 "$xkd" data check sounds dataset.clip_duration=2
check "stats of sounds" 0 "$xkd" data stats sounds $only dataset.clip_duration=2
says "with their length" out "2.00 to 2.00 s a file"
check "show of a sound" 0 "$xkd" data show sounds/a/0.wav --out heard $only dataset.clip_duration=2
check "without pictures" 1 test -e heard/video-0-global.png
check "frames do not matter to sound" 0 "$xkd" pretrain --dry-run --data sounds --out never --max-steps 1 $only \
  num_node=1 dataset.batch_size=4 dataset.clip_duration=2 model.kwargs.spec_size='[80,224]' dataset.train.aud_aug_kwargs.num_local_views=0
