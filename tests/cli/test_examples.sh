#!/usr/bin/env bash
# The programs of examples/, which see the public headers and the exported names only: what they compute is what the commands
# compute, to the bit.
set -u
. tests/cli/tap.sh
bin=$(realpath "${XKD_BUILD:-build}") tiny=$PWD/tests/data/tiny.yaml
cd "$work" || exit 1
"$xkd" data synth --out toys --classes 3 --clips 5 --seconds 3 --size 64 --seed 1 -q >/dev/null || exit 1
"$xkd" data index toys --out toys.jsonl -q >/dev/null || exit 1
"$xkd" pretrain -c "$tiny" --data toys.jsonl --out run --max-steps 2 -q >/dev/null 2>&1 || exit 1
video=toys/test/bounce/00004.mp4

# run NAME ARG...: an example, like `try`
run() {
  local name=$1; shift
  out=$("$bin/example_$name" "$@" 2>"$work/.stderr" </dev/null); rc=$?
  err=$(cat "$work/.stderr")
}
# number FILE NAME: bytes of a tensor of a safetensors file
tensor() {
  local header size at
  size=$(od -An -t u8 -N 8 "$1" | tr -d ' ')
  header=$(dd if="$1" bs=1 skip=8 count="$size" 2>/dev/null)
  at=$(grep -oE "\"$2\": *\{[^}]*\}" <<<"$header" | grep -oE '\[[0-9]+, *[0-9]+\]\}$' | tr -cd '0-9,')
  tail -c "+$((8 + size + ${at%,*} + 1))" "$1" | head -c "$((${at#*,} - ${at%,*}))"
}

run embed run "$video" out.f32
check "embed: three windows of a second" [ "$rc:$(wc -l <<<"$out")" = 0:3 ]
try embed run "$video" --out features.safetensors -q
tensor features.safetensors video >wanted.f32
check "embed: the features of 'xkd embed', to the bit" cmp -s out.f32 wanted.f32
check "embed: which are some" [ "$(wc -c <wanted.f32)" -eq $((3 * 32 * 4)) ]
run embed run /no/such.mp4
stderr_has "embed: a file that is not there" 3 "/no/such.mp4: no such file"
run embed /no/such "$video"
stderr_has "embed: a model that is not there" 4 "/no/such: no such model"

"$xkd" linear run toys.jsonl --out classes -c "$tiny" --modality video dataset.batch_size=5 hyperparams.num_epochs=2 -q >/dev/null 2>"$work/linear.err" ||
  { cat "$work/linear.err"; not_ok "a classifier"; }
files=(toys/test/*/*.mp4)
head -c 3000 "$video" >broken.mp4
run classify classes "${files[@]}" broken.mp4
check "classify: a line a file" [ "$rc:$(wc -l <<<"$out")" = "0:${#files[@]}" ]
check "classify: names the file that cannot be read" [ "${err#*broken.mp4: }" != "$err" ]
mine=$out
try predict classes "${files[@]}" --top 1
check "classify: the scores of 'xkd predict'" [ "$mine" = "$out" ]

run clip "$video" 0.5 frame.ppm
width=$(head -n 1 frame.ppm | cut -d' ' -f2)
check "clip: frames and samples" grep -qE "^20 frames of ${width}x112, 40[0-9]{3} samples$" <<<"$out"
check "clip: the picture is whole" [ "$(wc -c <frame.ppm)" -gt $((3 * width * 112)) ]

"$xkd" embed run toys/test --out all.safetensors -q >/dev/null
run retrieve all.safetensors bounce/00004.mp4
mine=$out
check "retrieve: clips of other files" [ "$rc:$(grep -c bounce/00004 <<<"$out"):$(wc -l <<<"$out")" = 0:0:6 ]
try retrieve all.safetensors --like bounce/00004.mp4
check "retrieve: what 'xkd retrieve' finds" [ "$mine" = "$out" ]
run retrieve all.safetensors nothing.mp4
stderr_has "retrieve: a file that is not in it" 3 "nothing.mp4: has no video features in the collection"
run retrieve "$video" nothing.mp4
stderr_has "retrieve: a file that holds no features" 4 "not a tensor file"

run pretrain "$tiny" toys/train mine
check "pretrain: a run" [ -s mine/config.yaml ]
finish
