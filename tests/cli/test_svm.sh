#!/usr/bin/env bash
# xkd svm from videos, and files with several labels: from a manifest to mean average precision.
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh
tiny=$PWD/tests/data/tiny.yaml
cd "$work" || exit 1
"$xkd" data synth --out toys --classes 3 --clips 5 --seconds 2 --size 64 --seed 1 -q >/dev/null || exit 1
"$xkd" data index toys -q >/dev/null || exit 1
"$xkd" pretrain -c "$tiny" --data toys/manifest.jsonl --out run --max-steps 2 -q >/dev/null 2>&1 || exit 1
model=run

try svm $model toys --out kept --subsample 4
stdout_has "svm from videos" 0 "honest: top-1"
check "it says first what it will take" grep -q "48 clips of 12 training files and 9 of 3 test files: about .* in the encoder" <<<"$err"
check "and keeps the features" [ -s kept/train-4.safetensors -a -s kept/test-3.safetensors ]
first=$out
try svm $model toys --out kept --subsample 4
check "again: nothing is embedded" [ "$out" = "$first" -a -z "$(grep 'in the encoder' <<<"$err")" ]
try embed $model toys --split train --protocol train --clips 4 --out train.safetensors
try embed $model toys --split test --protocol test --out test.safetensors
try svm train.safetensors test.safetensors
check "embed and svm give the same" [ "$out" = "$first" ]
try embed $model toys --split test --protocol test --student --out student.safetensors
try svm train.safetensors student.safetensors
stderr_has "features of two models" 3 "student.safetensors: their video features are of different models"
try svm $model toys --out kept --subsample 4 --student
stderr_has "features of another model are refused" 2 "holds features of another model"
try svm $model toys
stderr_has "where to keep them must be said" 2 "--out DIR"
try svm $model toys --out kept --test nowhere
stderr_has "a split that is not there" 3 "no file of split 'nowhere'"
try svm run/backbones toys --out kept
check "no model" [ "$rc" -eq 2 -o "$rc" -eq 4 ]
grep -v '"label":1.*"train"' toys/manifest.jsonl >toys/two.jsonl
try svm $model toys/two.jsonl --out two --subsample 2
stderr_has "a class that is tested but not trained" 3 "class 1 (orbit) has videos to test on but none to train on"
grep -v '"label":[12]' toys/manifest.jsonl >toys/one.jsonl
try svm $model toys/one.jsonl --out one --subsample 2
stderr_has "one class alone is told before anything is embedded" 3 "all videos to train on are of one class, bounce"
check "nothing is" [ ! -e one ]
try embed $model toys/one.jsonl --split train --protocol train --clips 2 --out one.safetensors
try svm one.safetensors one.safetensors --train train --test train
stderr_has "and by features" 3 "all 4 videos of the training set are of class 0 (bounce)"
{ grep -v '"label":[12]' toys/manifest.jsonl; grep -m 1 '"label":1.*"train"' toys/manifest.jsonl; } >toys/single.jsonl
try embed $model toys/single.jsonl --split train --protocol train --clips 2 --out single.safetensors
try svm single.safetensors single.safetensors --train train --test train
stderr_has "a class of one video has no fold" 3 "the other has a single video (add videos of it, or --folds 0)"
try svm single.safetensors single.safetensors --train train --test train --folds 0
check "without folds it is trained" [ "$rc" -eq 0 ]
sed 's/"label":[0-9],//' toys/manifest.jsonl >toys/bare.jsonl
try svm $model toys/bare.jsonl --out bare
stderr_has "labels missing" 3 "has no label"
cat >svm.yaml <<'YAML'
name: kinetics_sound-svm
dataset:
  clip_duration: 1.0
  crop_size: 32
  return_video: true
  return_audio: true
  train: {split: train, clips_per_video: 2, vid_aug_kwargs: {min_area: [0.08, 1], color: [0.4, 0.4, 0.4, 0.2], p_flip: 0.5, p_gray: 0.2, p_blur: 0.0}}
  test: {split: test, clips_per_video: 2}
  aud_transform: strong
  vid_transform: strong3crop
model:
  apply_l2: true
  svm: {cost: [0.01, 1], iter: 500}
YAML
try svm $model toys -c svm.yaml --out both --json
stdout_has "both modalities by a released file" 0 '"train_clips": 24'
check "one matrix of both" [ "$(grep -o '"C": 0.01\|"C": 1,' <<<"$out" | sort -u | wc -l)" = 2 ]
check "sound and video are embedded" [ "$("$xkd" inspect both/train-2.safetensors | grep -c 'audio\|video')" -ge 2 ]

# A file that is gone is in every answer, also of a second call.
cp -r toys fewer && rm fewer/train/bounce/00000.mp4
try svm $model fewer --out fewer-kept --subsample 2
stderr_has "a file that is gone is over the budget" 3 "1 of 12 files could not be read"
for call in first second; do
  try svm $model fewer --out fewer-kept --subsample 2 data.max_bad_fraction=0.2
  stdout_has "and counted in the $call result" 0 "without 1 of 12 training videos and 0 of 3 test videos"
  check "and named" grep -q "train/bounce/00000.mp4: has no features in the training set" <<<"$err"
done
try svm $model fewer --out fewer-kept --subsample 2 data.max_bad_fraction=0.2 --json
stdout_has "in JSON too" 0 '"train_without_features": 1, "test_without_features": 0'

# So is one that lacks the modality, though nothing is wrong with it: a WAV header and silence among the videos.
cp -r toys heard
{
  printf 'RIFF\044\372\000\000WAVEfmt \020\000\000\000\001\000\001\000\200\076\000\000\000\175\000\000\002\000\020\000data\000\372\000\000'
  head -c 64000 /dev/zero
} >heard/train/bounce/00000.mp4
try embed $model heard --out heard.safetensors
stdout_has "a file of sound alone can be read" 0 "15 files, 0 unreadable; 28 video and 30 audio clips"
try svm heard.safetensors --modality video
stdout_has "but has no features of video" 0 "without 1 of 12 training videos and 0 of 3 test videos, which have no features of this modality or could not be read"

# Settings come behind the recipe of features, with a file and without.
modalities() { "$xkd" inspect "$1" | grep -cE '^(video|audio) '; }
try svm $model toys --out keys dataset.train.clips_per_video=2 dataset.test.clips_per_video=5 dataset.return_video=false
check "clips as set" [ "$rc" -eq 0 -a -s keys/train-2.safetensors -a -s keys/test-5.safetensors ]
check "and the modality" [ "$(modalities keys/train-2.safetensors)" -eq 1 ]
try svm $model toys --out strong dataset.aud_transform=strong
check "a transform leaves the clips alone" [ -s strong/train-25.safetensors ]
sound=(--modality audio --subsample 2)
try svm $model toys --out sound "${sound[@]}"
for set in fmask=true timewarp=true "global.freq_scale=[0.5, 0.6]" wrap_window=5 voljitter=false; do
  try svm $model toys --out sound "${sound[@]}" "dataset.train.aud_aug_kwargs.$set"
  stderr_has "features without $set are not taken for those with it" 2 "other options"
done
clips() { try embed $model toys --split train --protocol train --clips 2 --force "$@"; }
clips --modality audio --out plain.npy
for set in fmask tmask; do
  clips --modality audio --out set.npy dataset.train.aud_aug_kwargs.$set=true
  check "$set=true has an effect" [ "$rc" -eq 0 -a -n "$(cmp set.npy plain.npy)" ]
done
clips --modality video --out plain.npy
clips --modality video --out set.npy dataset.train.vid_aug_kwargs.p_flip=0 dataset.train.vid_aug_kwargs.p_gray=1
check "so have the views of video" [ "$rc" -eq 0 -a -n "$(cmp set.npy plain.npy)" ]
try svm $model toys --out keys dataset.return_video=false dataset.return_audio=false
stderr_has "no modality left" 2 "neither video nor sound"
windows() { try embed $model toys --split test --out windows.safetensors --force "$@"; }
windows dataset.audio_clip_duration=0.5
stderr_has "clips of two lengths" 2 "one duration holds for both modalities"
windows --modality audio dataset.audio_clip_duration=0.5
stdout_has "sound alone has clips of its own length" 0 "0 video and 12 audio clips"
windows --modality video dataset.audio_clip_duration=0.5
stdout_has "which are none of video's" 0 "6 video and 0 audio clips"
"$xkd" pretrain -c "$tiny" --data toys/manifest.jsonl --out twice --max-steps 1 -q dataset.audio_clip_duration=1 >/dev/null 2>&1
try embed twice toys --split test --modality video --out twice.npz dataset.clip_duration=0.5 dataset.video_fps=8
stdout_has "a model whose own file has both keys does not hold to them" 0 "12 video and 0 audio clips"
try svm $model toys --out keys model.apply_bn=true
stderr_has "batch norm is refused" 2 "model.apply_bn"
try svm train.safetensors test.safetensors --student
stderr_has "options of videos with features" 2 "are made already"
try svm train.safetensors test.safetensors --modality video --l2-norm
normed=$out
echo 'model: {apply_l2: true}' >l2.yaml
try svm train.safetensors test.safetensors --modality video -c l2.yaml
check "apply_l2 holds for features too" [ "$out" = "$normed" ]
printf 'dataset: {vid_transform: randaug3crop}\nmodel: {apply_l2: true}\n' >tuning.yaml
try svm train.safetensors test.safetensors --modality video -c tuning.yaml
check "transforms say nothing about features that are there" [ "$out" = "$normed" ]
echo 'model: {apply_bn: true}' >bn.yaml
try svm train.safetensors test.safetensors -c bn.yaml
stderr_has "batch norm does" 2 "model.apply_bn"
cp -r kept unsaid
try embed --join kept/test-3.safetensors --out unsaid/test-3.safetensors --force
cp unsaid/test-3.safetensors joined.safetensors
try svm $model toys --out unsaid --subsample 4
stderr_has "features that do not say how they were made" 2 "unsaid/test-3.safetensors: does not say with which options it was made"
check "are left as they are" cmp -s joined.safetensors unsaid/test-3.safetensors

# Killed in between: the features that are done are kept.
"$xkd" svm $model toys --out killed --subsample 4 >/dev/null 2>&1 &
pid=$!
for _ in $(seq 400); do [ "$(stat -c %s killed/train-4.safetensors.partial 2>/dev/null || echo 0)" -gt 3000 ] && break; sleep 0.01; done
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
try svm $model toys --out killed --subsample 4
check "a killed command goes on to the same figures" [ "$out" = "$first" ]

# Several labels: class 0 also has label 3, class 2 labels 1 and 2.
sed -e 's/"classes":\[/"classes":["round",/;s/"label":0/"labels":[1,0]/;s/"label":1/"labels":[2]/;s/"label":2/"labels":[2,3]/' toys/manifest.jsonl >toys/multi.jsonl
try embed $model toys/multi.jsonl --split train --protocol train --clips 3 --out m-train.safetensors
try embed $model toys/multi.jsonl --split test --protocol test --out m-test.npz
try svm m-train.safetensors m-test.npz --classes
stdout_has "several labels are judged by average precision" 0 "honest: mAP"
check "class by class" grep -q "^   0 round  *1 " <<<"$out"
try svm m-train.safetensors m-test.npz --json
check "as JSON" grep -q '"honest": {"C": [0-9.e-]*, "map": [0-9.]*}, "interval95"' <<<"$out"
try svm m-train.safetensors m-test.npz --confusion x.png
stderr_has "they have no confusion matrix" 2 "several labels"
try knn m-train.safetensors m-test.npz -k 3
stdout_has "knn likewise" 0 "mAP"
try embed $model toys/multi.jsonl --modality video --split test --out lines.jsonl
check "JSONL carries them" grep -q '"labels":\[1,0\]' lines.jsonl
try svm $model toys/multi.jsonl --out multi --subsample 3 --json
check "from videos" grep -q '"map"' <<<"$out"

# The heads' outputs are what the modalities are compared by.
try embed run/checkpoints/step-00000002.safetensors toys --pool head --out heads.safetensors
try embed run toys --pool head --out of-run.safetensors
check "a run folder has the heads in its newest checkpoint" cmp -s heads.safetensors of-run.safetensors
try retrieve heads.safetensors --json
check "retrieve across modalities" grep -qE '"query": "video", "against": "audio", "files": 15, "recall": \[[0-9.]+, ' <<<"$out"
try embed run/checkpoints/step-00000002.safetensors toys --split test --pool head --out few.safetensors
try retrieve few.safetensors
stdout_has "chance of the first ten of three" 0 "(chance 33.33 100.00 100.00)"
try retrieve heads.safetensors --query audio --like train/bounce/00000.mp4
check "clips across modalities" [ "$rc" -eq 0 -a "$(wc -l <<<"$out")" -eq 10 ]
try embed $model toys --out own.npz
try embed $model toys --audio-model twice --out other.npz
try retrieve own.npz --like train/bounce/00000.mp4 --from other.npz -n 1
stdout_has "another model of a modality that is not used" 0 "train/bounce/00000.mp4"
try retrieve own.npz --query audio --like train/bounce/00000.mp4 --from other.npz -n 1
stderr_has "and of one that is" 3 "their audio features are of different models"
try embed $model toys/multi.jsonl --out multi.npz
try retrieve multi.npz --query video --json
check "a label in common is enough" [ "$rc" -eq 0 -a -n "$(grep '"labelled": 15' <<<"$out")" ]
finish
