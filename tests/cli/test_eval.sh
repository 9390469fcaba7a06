#!/usr/bin/env bash
# xkd embed, svm, knn, retrieve: from files to figures, resuming, shards, and what is refused.
set -u
source "$(dirname "$0")/tap.sh"
golden=$PWD/tests/golden/backbone config=$PWD/tests/data/backbone.yaml
model=("$golden/vid_teacher.pth.tar" --audio-model "$golden/aud_teacher.safetensors" -c "$config")
cd "$work" || exit 1
"$xkd" data synth --out toys --classes 3 --clips 5 --seconds 2 --size 64 --seed 1 >/dev/null
"$xkd" data index toys >/dev/null

embed() { # embed INPUT... : with the golden model
  local inputs=() ; while [ $# -gt 0 ] && [[ $1 != --* ]]; do inputs+=("$1"); shift; done
  try embed "${model[0]}" "${inputs[@]}" "${model[@]:1}" "$@"
}
embed toys --out all.safetensors
stdout_has "embed a folder, both modalities" 0 "15 files, 0 unreadable; 30 video and 30 audio clips"
check "the work file is gone" [ ! -e all.safetensors.partial ]
embed toys/train/bounce/00000.mp4 --out 'a"b.npz' --json
stdout_has "JSON of any file name" 0 '{"out": "a\"b.npz", "files": 1, "bad": 0'
embed toys --out all.safetensors
stderr_has "an existing file stays" 2 "exists already"
embed toys --split train --protocol train --clips 4 --out train.safetensors
stdout_has "training clips" 0 "12 files, 0 unreadable; 48 video and 48 audio clips"
embed toys --split test --protocol test --out test.npz
stdout_has "test clips" 0 "3 files, 0 unreadable; 9 video and 9 audio clips"
"$xkd" data synth --out long --classes 2 --clips 1 --test-share 0 --seconds 12 --size 64 --seed 1 -q >/dev/null
embed toys/train/bounce/00000.mp4 long/train/bounce/00000.mp4 --protocol test --out held.npz data.file_memory=0.0002 data.max_bad_fraction=0.5
stdout_has "a file that is too long to be held is a bad file" 0 "2 files, 1 unreadable; 3 video and 3 audio clips"
check "which is named" grep -q "long/train/bounce/00000.mp4: refused: too long to be held whole" <<<"$err"
embed long/train/bounce/00000.mp4 --out windows.npz data.file_memory=0.0002
stdout_has "windows need not hold it" 0 "1 files, 0 unreadable"
embed toys --stride -1 --out x.npz
stderr_has "a stride that leads nowhere" 2 "--stride: a positive"
embed toys --clips 3 --out x.npz
stderr_has "windows have no number" 2 "--clips: is for"
embed toys --protocol test --stride 1 --out x.npz
stderr_has "nor test clips a stride" 2 "--stride: is for windows"
embed toys --protocol test --clips 0 --out x.npz
stderr_has "no clips at all" 2 "--clips: at least 1"
for command in "embed nosuch toys --out x.npz" "svm nosuch toys --out x" "linear nosuch toys --out x" "predict nosuch toys/train/bounce/00000.mp4"; do
  try $command
  stderr_has "${command%% *}: a model that is not there" 4 "nosuch: no such model"
done
try svm nosuch.npz
stderr_has "features that are not there" 3 "nosuch.npz: no such file"
embed toys/train/bounce/00000.mp4 --modality video --out one.jsonl
check "JSONL has a line a clip" [ "$(wc -l <one.jsonl)" -eq 2 ]
embed toys/train/bounce/00000.mp4 --out both.npy
stderr_has "npy holds one modality" 2 "npy holds one array"
embed toys/train/bounce/00000.mp4 --modality audio --pool none --out tokens.npy
stdout_has "all tokens as npy" 0 "2 audio clips"
try embed "${model[0]}" toys --layer 9 -c "$config" --out x.npz
stderr_has "a layer that is not there" 2 "2 blocks"
try embed "${model[0]}" toys --modality audio -c "$config" --out x.npz
stderr_has "a modality that is not there" 4 "has no audio encoder"
try embed "${model[0]}" toys --out x.npz
stderr_has "geometry that does not fit" 2 "model.kwargs.frame_size"
try embed toys/train/bounce/00000.mp4 toys --out x.npz
stderr_has "a video is no model" 4 "00000.mp4"
try embed "${model[0]}" toys --pool head -c "$config" --out x.npz
stderr_has "an encoder has no projection head" 4 "projection head"
try embed "${model[0]}" nowhere -c "$config" --out x.npz
stderr_has "a missing input" 3 "nowhere"

# Several inputs share one list of classes, so names and order must agree; a file by itself has none.
mkdir -p pets/cat pets/dog ships/boat ships/car && for d in pets/cat pets/dog ships/boat ships/car; do cp toys/train/bounce/00000.mp4 $d; done
embed pets ships --out x.npz
stderr_has "inputs of other classes" 3 "class 0 is cat in pets and boat in ships: make manifests of both from one class list, or embed them one by one"
"$xkd" data index pets -q >/dev/null
sed 's/\["cat","dog"\]/["dog","cat"]/' pets/manifest.jsonl >pets/turned.jsonl
embed pets/manifest.jsonl pets/turned.jsonl --out x.npz
stderr_has "the same classes in another order" 3 "class 0 is cat in pets/manifest.jsonl and dog in"
embed toys/train/bounce/00000.mp4 pets --out beside.npz
stdout_has "a single file beside a folder" 0 "3 files"

# Shards put together are the whole.
embed toys --shard 1/2 --modality video --out a.jsonl
embed toys --shard 2/2 --modality video --out b.jsonl
embed toys --modality video --out whole.jsonl
check "shards are the whole" cmp -s <(sort a.jsonl b.jsonl) <(sort whole.jsonl)
embed toys --shard 3/2 --out x.npz
stderr_has "a shard that is not there" 2 "--shard 3/2"

for i in 1 2 3; do embed toys --shard $i/3 --out s$i.safetensors; done
embed pets --shard 1/3 --out other.safetensors
try embed --join s3.safetensors s1.safetensors s2.safetensors --out joined.safetensors
stdout_has "shards are joined in any order" 0 "15 files, 0 unreadable; 30 video and 30 audio clips"
check "to the bytes of one run" cmp -s joined.safetensors all.safetensors
try embed --join s1.safetensors s3.safetensors --out x.npz
stderr_has "a missing shard" 3 "shard 2 of 3 is missing"
try embed --join s1.safetensors s2.safetensors s1.safetensors --out x.npz
stderr_has "a shard twice" 3 "s1.safetensors and s1.safetensors are both shard 1 of 3"
try embed --join s1.safetensors all.safetensors --out x.npz
stderr_has "a shard and a whole" 3 "no shards of one work"
try embed --join train.safetensors test.npz --out parts.npz --json
stdout_has "features of different files" 0 '"files": 15, "bad": 0, "video": 57, "audio": 57'
try svm parts.npz
stdout_has "are one file of both splits" 0 "honest: top-1"
try embed --join train.safetensors all.safetensors --out x.npz
stderr_has "a file twice" 3 "train/bounce/00000.mp4: stands in the features twice"
try embed --join s1.safetensors other.safetensors --out x.npz
stderr_has "features of other classes" 3 "make both from one class list"
try embed --join s1.safetensors s2.safetensors --pool cls --out x.npz
stderr_has "joining changes no features" 2 "embedded already"
try embed --join one.jsonl s1.safetensors --out x.npz
check "JSON Lines are no shard" [ "$rc" -ne 0 -a ! -e x.npz ]
try svm s1.safetensors
stderr_has "a shard gives no figures" 3 "s1.safetensors: is shard 1 of 3"

# A run that was cut off goes on behind its last whole record, and gives the same bytes.
mkdir mixed && cp toys/train/bounce/0000[01].mp4 mixed/ && echo junk >mixed/zz.mp4
embed mixed --out m.safetensors
stderr_has "too many unreadable files: exit 3, no result" 3 "1 of 3 files could not be read"
check "no partial result" [ ! -e m.safetensors ]
truncate -s -5 m.safetensors.partial
embed mixed --out m.safetensors data.max_bad_fraction=1
stdout_has "a torn work file goes on" 0 "3 files, 1 unreadable; 4 video"
check "and says what was done" grep -q "going on: 2 of 3" <<<"$err"
embed mixed --out n.safetensors data.max_bad_fraction=1
check "resumed and whole runs agree" cmp -s m.safetensors n.safetensors
mkdir mended && cp mixed/* mended && rm mended/00001.mp4
printf '{"path":"%s"}\n' 00000.mp4 00001.mp4 zz.mp4 >mended/list.jsonl
embed mended/list.jsonl --out mended.safetensors --modality video
stderr_has "files that are missing or broken" 3 "the same command tries these files again"
cp mixed/00001.mp4 mended/ && cp mixed/00000.mp4 mended/zz.mp4
embed mended/list.jsonl --out mended.safetensors --modality video
stdout_has "are tried again" 0 "3 files, 0 unreadable; 6 video"
check "and only they" grep -q "going on: 1 of 3" <<<"$err"
embed mixed --out o.safetensors # leaves o.safetensors.partial
embed mixed --out o.safetensors --pool cls
stderr_has "other options do not mix" 2 "begun with another model"

try svm train.safetensors test.npz --json
stdout_has "svm reports the honest C" 0 '"honest": {"C": '
stdout_has "svm reports the best C" 0 '"best": {"C": '
try svm train.safetensors test.npz --classes --confusion confusion.png --scale --folds 0 --cost 0.1
stdout_has "svm prints classes" 0 "   0 bounce"
check "svm draws the confusion matrix" [ -s confusion.png ]
try svm all.safetensors --modality video
stdout_has "svm on the splits of one file" 0 "honest: top-1"
embed toys --split test --pool cls --modality video --out cls.npz
try svm train.safetensors cls.npz --modality video
stderr_has "features of another pool" 3 "train.safetensors has features of --pool mean, cls.npz of --pool cls"
embed toys --split test --layer 1 --modality video --out layer.npz
try knn train.safetensors layer.npz -k 3 --modality video
stderr_has "features of another layer" 3 "train.safetensors has features of --layer -1, layer.npz of --layer 1"
embed toys --split test --modality video --out video.npz
try svm train.safetensors video.npz --modality video
stdout_has "a modality that is left out need not be there" 0 "honest: top-1"
try svm train.safetensors video.npz
stderr_has "one that is used must" 3 "hold no audio"
try svm all.safetensors --test other
stderr_has "a split that is not there" 3 "no clips of split 'other'"
try svm all.safetensors --cost 1,x
stderr_has "a C that is no number" 2 "--cost"
try svm m.safetensors
stderr_has "labels missing" 3 "split 'train'"
try svm "$golden/expected.safetensors"
stderr_has "features of no kind" 3 "says nothing about itself"
try knn all.safetensors -k 3
stdout_has "knn votes" 0 "3 neighbours: top-1"
try retrieve all.safetensors
stdout_has "retrieve within a modality" 0 "15 files        video in video:"
try retrieve all.safetensors --against audio
stderr_has "means of two encoders are not compared" 3 "embed with --pool head"
try retrieve all.safetensors --split nosuch
stderr_has "a split that is not there" 3 "no file of split 'nosuch'"
try retrieve n.safetensors --json
stdout_has "without labels there is no class recall" 0 '"labelled": 0, "class_recall": null'
try retrieve n.safetensors
check "nor in the text" grep -qE "^same class +- +- +-  " <<<"$out"
try retrieve all.safetensors --query audio --like train/bounce/00000.mp4 -n 2
check "the clips that are nearest" [ "$(grep -cE '^ *-?[0-9.]+ +[0-9.]+ s  (train|test)/' <<<"$out")" -eq 2 ]
check "but none of its own" [ -z "$(grep train/bounce/00000.mp4 <<<"$out")" ]
try retrieve all.safetensors --like train/bounce/00000.mp4 --split test -n 1 --json
check "as JSON" grep -qE '"clips": \[\{"path": "test/[^"]*", "seconds": [0-9.]+, "cosine": [0-9.-]+\}\]' <<<"$out"
embed toys/train/bounce/00000.mp4 --out new.npz
try retrieve all.safetensors --like 00000.mp4 --from new.npz -n 2
check "a file of other features finds itself" [ "$(grep -c '^ 0\.99.*train/bounce/00000.mp4' <<<"$out")" -ge 1 ]
try retrieve all.safetensors --like 00000.mp4
stderr_has "a file that is not among them" 3 "00000.mp4: has no video features"
try retrieve all.safetensors --like ./toys/train/bounce/00000.mp4
stderr_has "one that is named from outside of its folder" 3 "the features name files below the folder that was embedded: --like train/bounce/00000.mp4"
embed pets --out pets.npz --modality video
try retrieve all.safetensors --like cat/00000.mp4 --from pets.npz -n 1
stdout_has "other classes do not matter" 0 "train/bounce/00000.mp4"
try retrieve all.safetensors --like x --from cls.npz
stderr_has "nor of another pool" 3 "--pool cls"
finish
