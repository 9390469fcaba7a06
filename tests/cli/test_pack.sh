#!/usr/bin/env bash
# Packs in every command that takes a manifest: the same draws, the same bits, and what is refused.
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh
tiny=$PWD/tests/data/tiny.yaml
cd "$work" || exit 1
"$xkd" data synth --out toys --classes 3 --clips 5 --seconds 2 --size 64 --seed 1 -q >/dev/null || exit 1
"$xkd" data index toys -q >/dev/null || exit 1
weights() { cat "$1"/backbones/*.safetensors | sha256sum; }

try data pack toys --out raw --codec raw --short-side 32 --dry-run
stdout_has "a forecast" 0 "15 samples, 0.01 hours: about "
stdout_has "with the room there is" 0 "GB are free there"
check "nothing is written by it" [ ! -e raw ]
try data pack toys --out raw --codec raw --short-side 32 --dry-run --json
stdout_has "a forecast as JSON" 0 '"samples": 15, "hours": 0.00'
forecast=$(sed 's/.*"bytes": \([0-9]*\).*/\1/' <<<"$out")
try data pack toys --out raw --codec raw --short-side 32 --jobs 2
stdout_has "packing" 0 "15 samples packed, 0 unreadable: 1 shards, "
size=$(stat -c %s raw/*.xkdpack)
check "the forecast of a raw pack is right within a tenth" [ $((size * 10)) -gt $((forecast * 9)) -a $((size * 9)) -lt $((forecast * 10)) ]
try data pack toys --out raw --codec raw --short-side 32 --json
stdout_has "again: all is done" 0 '"packed": 15, "unreadable": 0, "damaged": 0, "done_before": 15'
try data pack toys --out weighed --dry-run --json
forecast=$(sed 's/.*"bytes": \([0-9]*\).*/\1/' <<<"$out")
"$xkd" data pack toys --out weighed -q >/dev/null
size=$(stat -c %s weighed/*.xkdpack)
check "and that of JPEG within a third" [ $((size * 3)) -gt $((forecast * 2)) -a $((size * 2)) -lt $((forecast * 3)) ]
try data pack toys --out raw --codec raw --short-side 48
stderr_has "other settings need another folder" 2 "raw: holds a pack of other data or with other settings"

# Training.
"$xkd" pretrain -c "$tiny" --data toys --out from-cache data.cache=kept -q >/dev/null 2>&1
try pretrain -c "$tiny" --data raw --out from-pack
stdout_has "training from a pack" 0 "step "
check "a raw pack trains to the bits of a cache" [ "$(weights from-cache)" = "$(weights from-pack)" ]
try pretrain -c "$tiny" --data raw --out from-three data.workers=3 -q
check "whatever the number of workers" [ "$(weights from-cache)" = "$(weights from-three)" ]
rm -rf from-three
try pretrain -c "$tiny" --data raw --out none dataset.crop_size=48
check "views larger than the pack are refused" code 2
try svm from-pack raw --out features --subsample 4
stderr_has "and so are those of an evaluation, with the remedy" 2 "raw: its frames have a short side of 32, and the views are made of 36 (pack with --short-side 36"

# Evaluation sees the short side of 36 (32 / 0.875).
try data pack toys --out raw36 --codec raw --short-side 36 -q
try svm from-pack toys --out files-svm --subsample 4
first=$out
try svm from-pack raw36 --out pack-svm --subsample 4
check "an SVM of whole films" [ "$out" = "$first" ]
try embed from-pack toys --out files.safetensors --protocol test
try embed from-pack raw36 --out pack.safetensors --protocol test
stdout_has "embedding a pack" 0 "15 files"
try diff files.safetensors pack.safetensors
# "about" tells the contents that they were made of, which are others.
check "gives the features of the files" [ "$(grep -v '^about ' <<<"$out")" = "1 tensors differ" ]
for kind in linear finetune; do
  try $kind from-pack raw36 --out $kind-run --max-steps 2 dataset.crop_size=32 dataset.batch_size=4 num_node=1
  check "$kind takes a pack" code 0
done
check "fine-tuning says whose frames it has" grep -q "frames have the pack's short side of 36, not that of the files" <<<"$err"
try finetune from-pack raw36 --out larger --max-steps 2 dataset.crop_size=64 dataset.batch_size=4 num_node=1
check "and refuses one that is too small" code 2

# Looking at it.
try data stats toys
first=$(grep -v length <<<"$out")
try data stats raw36
check "stats of a pack are those of the files" [ "$(grep -v length <<<"$out")" = "$first" ]
try data check raw36
stdout_has "a pack is checked" 0 "15 files: 15 short"
try data check raw36 dataset.clip_duration=1 --out clean.jsonl
stdout_has "and a manifest of it made" 0 "15 files: 15 ok"
check "which names the pack" grep -q '"pack"' clean.jsonl
try pretrain -c "$tiny" --data clean.jsonl --out from-clean -q
check "and is trained with" code 0
try data show raw36 --sample 3 --out look dataset.clip_duration=1 dataset.crop_size=32
stdout_has "a clip of a pack is shown" 0 "look/video-0-global.png"
check "by its number" grep -q "sample 3: " <<<"$err"
try data show raw36 --sample 15 --out look
stderr_has "of those it has" 2 "raw36 has samples 0 to 14"
try data unpack raw36 --out plain --most 2
stdout_has "unpacking" 0 "2 samples in plain, 0 unreadable"
check "pictures and sound" [ "$(find plain -name '*.png' | wc -l)" = 32 -a "$(find plain -name sound.wav | wc -l)" = 2 ]

# JPEG, small shards, parts.
try data pack toys --out jpeg --shard-mb 1 --short-side 256 --shard 1/2
check "the first of two parts" code 0
try data stats jpeg
stderr_has "half a pack is none" 3 "data pack"
OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 try data pack toys --out jpeg --shard-mb 1 --short-side 256
stderr_has "the second by rank" 0 "part 2 of 2, by rank"
check "several shards" [ "$(ls jpeg/*.xkdpack | wc -l)" -gt 1 ]
try pretrain -c "$tiny" --data jpeg --out from-jpeg -q
check "training from JPEG" code 0
try data unpack jpeg --out plain-jpeg --like bounce --most 1
check "JPEG comes out as it is" [ "$(find plain-jpeg -name '*.jpg' | wc -l)" = 16 ]

# Files at fault.
cp -r toys worse
head -c 3000 toys/train/bounce/00000.mp4 >worse/train/bounce/00000.mp4 2>/dev/null || echo x >"$(find worse -name '*.mp4' | head -n 1)"
rm worse/manifest.jsonl
try data pack worse --out bad --short-side 32
stderr_has "a file that cannot be read is named" 0 "00000.mp4: "
check "and counted" grep -q "14 samples packed, 1 unreadable" <<<"$out"
try data check bad dataset.clip_duration=1
stdout_has "a check of the pack names it again" 3 "(when it was packed: mend the file and pack it anew)"
for f in $(find worse -name '*.mp4' | head -n 12); do echo x >"$f"; done
try data pack worse --out worst --short-side 32
stderr_has "too many end it" 3 "more than data.max_bad_fraction allows"

# Words.
try data pack toys
stderr_has "a folder is needed" 2 "--out DIR is missing"
for wrong in "--codec png" "--quality 0" "--short-side 4" "--fps 0.0" "--chroma some" "--shard 3/2" "--jobs 0" "--shard-mb 0"; do
  try data pack toys --out x $wrong
  stderr_has "$wrong is refused" 2 "${wrong%% *}"
done
try data unpack toys --out x
stderr_has "only packs are unpacked" 2 "toys: is no pack"
printf 'garbage' >raw36/pack.json
try data stats raw36
stderr_has "a pack's file of another kind" 3 "raw36/pack.json: says nothing of a pack"
finish
