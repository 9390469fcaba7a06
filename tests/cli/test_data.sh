#!/usr/bin/env bash
# xkd data ...: exit codes and what each command leaves behind.
set -u
xkd=$(cd "${XKD_BUILD:-build}" && pwd)/xkd
tiny=$PWD/tests/data/tiny.yaml
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
# Films whose index knows one key frame for 36 s. Names are a stranger's: nothing in them reaches the terminal as a command.
"$xkd" data synth --out long --classes 2 --clips 1 --seconds 36 --size 48 --seed 1 -q >/dev/null
mkdir rare
cp long/train/bounce/00000.mp4 rare/usual.mp4
cp long/train/bounce/00000.mp4 rare/a.mp4
at=$(grep -abo stss rare/a.mp4 | head -n 1 | cut -d: -f1)
printf '\0\0\0\1' | dd of=rare/a.mp4 bs=1 seek=$((at + 8)) conv=notrunc status=none
cp rare/a.mp4 rare/$'b\e[2J.mp4'
check "rare key frames are no finding" 0 "$xkd" data check rare --out rare.jsonl
says "but told" out "slow         a.mp4: key frames up to 36 s apart"
says "and counted" out "3 files: 3 ok (2 of them slow)"
check "without letting their names through" 1 grep -q $'\e' out
check "the same as JSON" 0 "$xkd" data check rare --out rare.jsonl --json
says "has no finding" out '{"findings": [], "files": 3, "ok": 3, '
says "names each slow file with the remedy" out '"slow": 2, "slow_files": [{"path": "a.mp4", "message": "key frames up to 36 s apart: each clip is decoded from the one before it (ffmpeg -i FILE -c:a copy -g 100 NEW.mp4 makes it fast)"}, {"path": "b\u001b[2J.mp4", '
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

# Lists: what was understood is said, whoever wrote them.
printf '\357\273\277video;label\r\n"toys/train/orbit/00000.mp4";"female speech, woman speaking"\r\ntoys/train/orbit/00001.mp4;dog\r\n' >excel.csv
check "a list out of Excel" 0 "$xkd" data index excel.csv --out listed.jsonl
says "its columns are said" err "columns: path=1 label=2; 2 rows"
says "no row is lost" out "2 files, 2 classes"
says "labels may hold commas" listed.jsonl '"classes":["dog","female speech, woman speaking"]'
printf 'clip_uri,kind\ntoys/train/orbit/00000.mp4,cat\n' >unknown.csv
check "columns that are not known" 3 "$xkd" data index unknown.csv --out unknown.jsonl
says "are refused" err "unknown.csv:1: neither a file nor names of columns that are known"
printf '%s/toys/train/orbit/00000.mp4 0\n' "$PWD" >absolute.txt
mkdir elsewhere && cp absolute.txt elsewhere
check "absolute paths outside the list's folder" 3 "$xkd" data index elsewhere/absolute.txt --out absolute.jsonl
says "say what to do" err "--root /"
check "absolute paths with --root /" 0 "$xkd" data index elsewhere/absolute.txt --root / --out absolute.jsonl
says "are below it" absolute.jsonl "\"path\":\"${PWD#/}/toys/train/orbit/00000.mp4\""

check "no folder for --out is found before the files are read" 5 "$xkd" data index toys --out nowhere/m.jsonl
says "and named" err "nowhere: no such folder (for nowhere/m.jsonl)"
check "in check as well" 5 "$xkd" data check toys --out nowhere/m.jsonl

# Folders: a class called train, endings of sound, names that are no UTF-8, links.
# A list is refused for its budget, and what was found is not lost.
{ for i in $(seq 20); do echo "absent$i.mp4 0"; done; for f in toys/train/*/*.mp4; do echo "$f 1"; done; } >most.txt
check "a list of which most is absent" 3 "$xkd" data index most.txt --out most.jsonl
says "names the way on" err "(data.max_bad_fraction=1 takes what is left; most.jsonl.partial keeps what was found"
check "writes no manifest" 1 test -e most.jsonl
check "another budget" 0 "$xkd" data index most.txt --out most.jsonl data.max_bad_fraction=1
says "reads no file again" err "going on: $(wc -l <most.txt) of $(wc -l <most.txt) files are done"
check "and leaves no log" 1 test -e most.jsonl.partial

# Lengths that would cost reading a file through.
mkdir far && cp "$OLDPWD/tests/fuzz/corpus/media/tracks.mkv" far/
check "index --no-probe" 0 "$xkd" data index far --no-probe
says "leaves a length unknown" err "the length of 1 files is unknown and not among the hours"
says "and opens no file" far/manifest.jsonl '{"path":"tracks.mkv","bytes":'
check "index" 0 "$xkd" data index far
says "finds it" far/manifest.jsonl '"video_seconds":3.0,'
check "a silent first track" 0 "$xkd" data check far dataset.clip_duration=2
says "is told" out "silent       tracks.mkv: nothing to hear in its sound (track 1 of 2: data.audio_track=N takes another)"
check "the second is heard" 0 "$xkd" data check far dataset.clip_duration=2 data.audio_track=2
check "nothing in order" 0 "$xkd" data check far/manifest.jsonl --out far/manifest.jsonl dataset.clip_duration=9
says "leaves what was checked" far/manifest.jsonl '"video_seconds":3.0,'
check "index --hash head" 0 "$xkd" data index far --hash head
check "check" 0 "$xkd" data check far dataset.clip_duration=2 data.audio_track=2
says "hashes as the manifest does" far/clean.jsonl '"hash_of":"head"'
check "check --hash none" 0 "$xkd" data check far --hash none dataset.clip_duration=2 data.audio_track=2
check "takes them away" 1 grep -q '"hash' far/clean.jsonl
for class in airplane dog train; do mkdir -p "esc/$class" && cp toys/train/orbit/00000.mp4 "esc/$class/1.mp4"; done
check "a class called train" 0 "$xkd" data index esc
says "is told" err "esc: train/ is taken for a class"
says "and is one" esc/manifest.jsonl '"classes":["airplane","dog","train"]'
for folder in training testing validation; do
  mkdir -p "other/$folder/dog" "esc/$folder" && cp toys/train/orbit/00000.mp4 "other/$folder/dog/1.mp4" && cp toys/train/orbit/00000.mp4 "esc/$folder/1.mp4"
done
check "other words for splits" 0 "$xkd" data index other
says "are no classes" other/manifest.jsonl '"classes":["dog"]'
for split in train test val; do says "but $split" other/manifest.jsonl "\"split\":\"$split\""; done
rm -r esc/train esc/test* esc/val* esc/manifest.jsonl
check "a class called training" 0 "$xkd" data index esc
says "stays one" esc/manifest.jsonl '"classes":["airplane","dog","training"]'
mkdir -p mixed/train/a mixed/test/a mixed/more
for folder in train/a test/a more; do cp toys/train/orbit/00000.mp4 "mixed/$folder/1.mp4"; done
check "two splits beside something else" 3 "$xkd" data index mixed
says "are left to the user" err "called like splits, and beside them lies more/"
mkdir endings && for ending in opus oga wma mka weba 3gpp m4r f4a tp trp ogx bwf; do cp toys/train/orbit/00000.mp4 "endings/1.$ending"; done
check "endings that are seldom seen" 0 "$xkd" data index endings
says "are known" out "12 files"
for ending in $(sed -n '/^static const char \*const EXTENSIONS/,/};/p' "$OLDPWD/src/data/index.c" 2>/dev/null | grep -oE '"[a-z0-9]+"' | tr -d '"'); do
  grep -qF "\`.$ending\`" "$OLDPWD/docs/media-formats.md" || { n=$((n + 1)); echo "not ok $n - docs/media-formats.md lists .$ending"; }
done
mkdir -p "$(printf 'utf/\351a')" "$(printf 'utf/\350b')" utf/ok
for folder in utf/*; do cp toys/train/orbit/00000.mp4 "$folder/c.mp4"; done
check "class names that are no UTF-8" 0 "$xkd" data index utf
check "the program reads its own manifest" 0 "$xkd" data stats utf --max-files 0
mkdir several && cp toys/train/orbit/00000.mp4 several/1.mp4 && cp toys/train/orbit/00000.mp4 several/2.mp4
printf 'path,labels\n1.mp4,"dog,cat,dog"\n2.mp4,dog\n' >several.csv
check "several labels a file" 0 "$xkd" data index several.csv --root several --out several.jsonl
says "are each there once" several.jsonl '"labels":[1,0]'
check "are counted" 0 "$xkd" data stats several.jsonl --max-files 0
says "with the files" out "(2 labelled, 2 classes)"
says "for each class" out "class 1             2  dog"
cp -r utf "$(printf 'root\351')" && rm "$(printf 'root\351')"/*.jsonl
check "a root that is no UTF-8" 0 "$xkd" data index "$(printf 'root\351')" --out root.jsonl
says "stands coded" root.jsonl '"root":{"base64":"'
check "and is read" 0 "$xkd" data check root.jsonl --out checked.jsonl dataset.clip_duration=2
says "by every command" out "3 files: 3 ok"
check "a pack in such a folder" 0 "$xkd" data pack root.jsonl --out "$(printf 'pack\351')"
check "is checked into another" 0 "$xkd" data check "$(printf 'pack\351')" --out packed.jsonl dataset.clip_duration=2
check "and read from there" 0 "$xkd" data stats packed.jsonl --max-files 0
says "with all classes" out "3 classes"
mkdir linked && cp -r toys/train/bounce linked && ln -s "$PWD/toys/train/orbit" linked/orbit && ln -s "$PWD/toys/train/orbit/00000.mp4" linked/bounce/link.mp4
check "links out of the folder" 0 "$xkd" data index linked
says "to folders are told" err "1 links to folders passed over (--follow-links"
says "to files are left out by name" err "bounce/link.mp4: refused: "
check "and followed on request" 0 "$xkd" data index linked --follow-links
says "the manifest notes it" linked/manifest.jsonl '"follow_links":true'
check "which allows nothing" 3 "$xkd" data stats linked --max-files 0
says "but says what to do" err "allow it with --follow-links"
check "as the option does" 0 "$xkd" data stats linked --max-files 0 --follow-links
check "or the key, in index too" 0 "$xkd" data index linked data.follow_links=true
check "check takes the option" 0 "$xkd" data check linked --follow-links dataset.clip_duration=2 model.kwargs.num_frames=16
check "a clip that is named may be a link" 0 "$xkd" data show linked/bounce/link.mp4 --out shown-link
cp -r esc grown && cp -p grown/dog/1.mp4 grown/dog/2.mp4
check "a folder with a manifest" 0 "$xkd" data stats grown --max-files 0
says "says what was added since" err "grown/manifest.jsonl: does not have 1 files that were added to the folder since, such as dog/2.mp4"
check "until it is indexed again" 0 "$xkd" data index grown
check "then" 0 "$xkd" data stats grown --max-files 0
n=$((n + 1))
if [ -s err ]; then echo "not ok $n - it says something still: $(cat err)"; else echo "ok $n - it says nothing"; fi
cp -rp grown/dog grown/cat && touch -d 2020-01-01 grown/cat
check "a folder that keeps its time" 0 "$xkd" data stats grown --max-files 0
says "is looked into as well" err "does not have 2 files that were added to the folder since, such as cat/1.mp4"
mkdir grown/closed && chmod 0 grown/closed
check "one that may not be read does not matter" 0 "$xkd" data stats grown --max-files 0
chmod 755 grown/closed
ln -s .. linked/bounce/loop
check "a loop is refused with it" 3 "$xkd" data index linked --follow-links
says "and named" err "linked/bounce/loop: is a link to a folder that it lies in"
rm linked/bounce/loop && mkfifo linked/bounce/fifo.mp4 && ln -s /dev/zero linked/bounce/zero.mp4
check "a device or a FIFO is no video with it either" 0 "$xkd" data index linked --follow-links
n=$((n + 1))
if grep -qE 'fifo|zero' linked/manifest.jsonl; then echo "not ok $n - a device is in the manifest"; else echo "ok $n - neither is in the manifest"; fi
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
check "frames do not matter to sound" 0 "$xkd" pretrain --dry-run --data sounds --out never --max-steps 1 -c "$tiny" $only \
  dataset.batch_size=4 dataset.clip_duration=2 model.kwargs.spec_size='[80,224]' dataset.train.aud_aug_kwargs.num_local_views=0
