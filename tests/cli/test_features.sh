#!/usr/bin/env bash
# What features are of: other files of the same names, other heads and numbers that are none are told apart.
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh
tiny=$PWD/tests/data/tiny.yaml
cd "$work" || exit 1
for seed in 1 2; do
  "$xkd" data synth --out toys$seed --classes 3 --clips 5 --seconds 2 --size 64 --seed $seed -q >/dev/null || exit 1
  "$xkd" data index toys$seed --hash -q >/dev/null || exit 1
  "$xkd" data index toys$seed --out toys$seed/bare.jsonl -q >/dev/null || exit 1
done
"$xkd" pretrain -c "$tiny" --data toys1/manifest.jsonl --out run --max-steps 2 -q >/dev/null 2>&1 || exit 1

# Contents: by hash, or by size and time of change.
for list in manifest bare; do
  try svm run toys1/$list.jsonl --out svm-$list --subsample 2
  check "$list: features of one set" code 0
  try svm run toys2/$list.jsonl --out svm-$list --subsample 2
  stderr_has "$list: are not taken for those of another with the same names" 2 "other files"
  cp -r toys1 moved-$list && touch -r toys1 moved-$list
  (cd toys1 && find . -name '*.mp4' -exec touch -r {} ../moved-$list/{} \;)
  try svm run moved-$list/$list.jsonl --out svm-$list --subsample 2
  check "$list: the same set under another root is the same" code 0
done
touch moved-bare/train/bounce/00000.mp4
try svm run moved-bare/bare.jsonl --out svm-bare --subsample 2
stderr_has "a file that was written since is another" 2 "other files"
try svm run moved-manifest/manifest.jsonl --out svm-manifest --subsample 2
check "a hash knows better" code 0

# An unfinished run: what is the same is kept, what has changed is done again, another set is refused.
unfinished() { # of set $1 in x.safetensors; a run that ended too soon is begun again
  local n
  for n in 1 2 3 4 5 6 7 8 9 10; do caught "$1" && return; done
  not_ok "no run of ten could be ended in its middle"
  return 1
}
caught() {
  rm -f x.safetensors*
  "$xkd" embed run "toys$1/bare.jsonl" --out x.safetensors -q >/dev/null 2>&1 &
  local pid=$!
  for _ in $(seq 800); do [ "$(stat -c %s x.safetensors.partial 2>/dev/null || echo 0)" -gt 900 ] && break; sleep 0.005; done
  kill -9 $pid 2>/dev/null
  wait $pid 2>/dev/null
  [ -s x.safetensors.partial ]
}
"$xkd" embed run toys2/bare.jsonl --out two.safetensors -q >/dev/null
if unfinished 1; then
  try embed run toys2/bare.jsonl --out x.safetensors
  stderr_has "another set does not go on with it" 2 "begun with other files of the same names"
  try embed run toys2/bare.jsonl --out x.safetensors --force
  check "with --force it begins anew" cmp -s x.safetensors two.safetensors
fi
if unfinished 1; then
  cp toys2/test/bounce/00004.mp4 toys1/test/bounce/00004.mp4
  try embed run toys1/bare.jsonl --out x.safetensors
  stderr_has "a file that changed is done again" 0 "have changed since they were embedded"
  "$xkd" embed run toys1/bare.jsonl --out y.safetensors -q >/dev/null
  check "with the features of a fresh run" cmp -s x.safetensors y.safetensors
fi

# Heads are in no tensor.
try embed run toys1 --out heads.safetensors --heads 4 --modality video
try embed run toys1 --out more.safetensors --heads 8 --modality video
try svm heads.safetensors more.safetensors
stderr_has "features of another number of heads" 3 "of different models"
try svm run toys1 --out svm-heads --subsample 2 --heads 4 --modality video
try svm run toys1 --out svm-heads --subsample 2 --heads 8 --modality video
stderr_has "are not taken from a table" 2 "another model"

# Names on stdin, as Windows writes them.
printf '\357\273\277toys1/test/bounce/00004.mp4\r\ntoys1/test/orbit/00004.mp4\r\n' | "$xkd" embed run - --out crlf.npz -q >/dev/null 2>&1
printf 'toys1/test/bounce/00004.mp4\ntoys1/test/orbit/00004.mp4' | "$xkd" embed run - --out lf.npz -q >/dev/null 2>&1
check "names on stdin with CR LF and a mark" cmp -s crlf.npz lf.npz

# JSON Lines are read as the other forms are, in whatever order.
for split in train test; do
  "$xkd" embed run toys1/manifest.jsonl --split $split --out lines-$split.safetensors -q >/dev/null
  "$xkd" embed run toys1/manifest.jsonl --split $split --out ordered.jsonl --force -q >/dev/null
  sort -R ordered.jsonl >lines-$split.jsonl
done
for command in "svm --classes" "knn -k 3" "knn --modality audio"; do
  try $command lines-train.safetensors lines-test.safetensors
  first=$out
  try $command lines-train.jsonl lines-test.jsonl
  check "$command of JSON Lines" [ "$rc" -eq 0 -a "$out" = "$first" ]
done
try retrieve lines-train.safetensors
first=$out
try retrieve lines-train.jsonl
check "retrieve of JSON Lines" [ "$rc" -eq 0 -a "$out" = "$first" ]
try embed --join lines-train.jsonl lines-test.jsonl --out joined.safetensors
stdout_has "they can be joined" 0 "15 files"
try svm joined.safetensors
check "and hold their splits" code 0
try svm lines-train.jsonl heads.safetensors
stderr_has "and say which model they are of" 3 "of different models"
sed '3s/"model":"./"model":"x/' ordered.jsonl >two.jsonl
try knn two.jsonl
stderr_has "lines of two models" 3 "two.jsonl:3: is of another model, pool or layer"
cat lines-test.jsonl lines-test.jsonl >twice.jsonl
try knn twice.jsonl
stderr_has "a clip that comes twice" 3 "stands there twice"
# A byte order mark in front, and where marked files were joined.
(printf '\357\273\277' && sed '2s/^/\xef\xbb\xbf/' lines-test.jsonl) >marked.jsonl
try knn lines-train.jsonl lines-test.jsonl -k 3
first=$out
try knn lines-train.jsonl marked.jsonl -k 3
check "JSON Lines with marks" [ "$rc" -eq 0 -a "$out" = "$first" ]
try svm lines-train.jsonl marked.jsonl
check "svm of them" code 0
# What a file is called is one thing in all its lines.
for change in 's/"label":[0-9]*/"label":7/' 's/"split":"test"/"split":"train"/' 's/"label":[0-9]*,"class":"[a-z]*",//' \
  's/"split":"test",//'; do
  sort lines-test.jsonl | sed "2$change" >other.jsonl
  try knn lines-train.jsonl other.jsonl
  stderr_has "another word about a file: $change" 3 "other.jsonl:2: gives its file another label or split"
done
sort lines-test.jsonl | sed '2s/"class":"[a-z]*"/"class":"another"/' >other.jsonl
try knn lines-train.jsonl other.jsonl
stderr_has "another name of a class" 3 "other.jsonl:2: its class has another name"
sed 's/"feature":\[/"feature":["x",/' lines-test.jsonl >text.jsonl
try knn text.jsonl
stderr_has "what is no number" 3 "text.jsonl:1: \"feature\" holds what is no number"

# Not a number.
cp -r run nan && poison nan/backbones/vid_teacher.safetensors
try embed nan toys1 --out nan.safetensors
stderr_has "embed with a NaN among the weights" 6 "is not finite"
check "writes no features" [ ! -e nan.safetensors ]
try svm nan toys1 --out svm-nan --subsample 2
stderr_has "svm from videos likewise" 6 "is not finite"
try embed nan toys1 --out sound.safetensors --modality audio
check "the other encoder is not concerned" code 0
try embed run toys1 --split train --out train.safetensors
try embed run toys1 --split test --out test.safetensors
features() { # FROM TO: the features of FROM with one NaN in the first clip of video
  cp "$1" "$2"
  local start
  start=$(($(od -An -tu8 -N8 "$2") + 8 + $(grep -aoE '"video":\{[^}]*\[[0-9]+,[0-9]+\]\}' "$2" | grep -oE '[0-9]+,[0-9]+\]\}$' | cut -d, -f1)))
  LC_ALL=C sed -i 's/xkd\.xxh3_128/xkd.xxh3_129/' "$2"
  printf '\0\0\300\177' | dd of="$2" bs=1 seek=$start conv=notrunc status=none
}
features train.safetensors spoiled.safetensors
try knn spoiled.safetensors test.safetensors
stderr_has "knn" 6 "spoiled.safetensors: the video features of"
try knn train.safetensors spoiled.safetensors --modality audio
check "knn of the other modality" code 0
try retrieve spoiled.safetensors
stderr_has "retrieve" 6 "spoiled.safetensors: the video features of"
try retrieve train.safetensors --like train/bounce/00000.mp4 --from spoiled.safetensors
stderr_has "retrieve --from" 6 "spoiled.safetensors: the video features of"
try svm spoiled.safetensors test.safetensors
stderr_has "svm" 6 "is not finite"
"$xkd" finetune run toys1/manifest.jsonl --out tuned --modality video -q hyperparams.num_epochs=1 dataset.batch_size=4 >/dev/null 2>&1
try predict tuned toys1/test/bounce/00004.mp4 --json
check "predict" code 0
poison tuned/classifier.safetensors
try predict tuned toys1/test/bounce/00004.mp4 --json
stderr_has "predict with a NaN" 6 "is not finite"
check "prints no bare nan" [ -z "$(grep -i nan <<<"$out")" ]
finish
