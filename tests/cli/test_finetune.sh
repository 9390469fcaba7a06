#!/usr/bin/env bash
# xkd finetune, linear and predict: learning, the same bits again, stopping and going on, and what is refused.
set -u
source "$(dirname "$0")/tap.sh"
golden=$PWD/tests/golden/backbone config=$PWD/tests/data/backbone.yaml
video=$golden/vid_teacher.safetensors audio=$golden/aud_teacher.pth.tar
cd "$work" || exit 1
"$xkd" data synth --out toys --classes 3 --clips 12 --seconds 2 --size 64 --seed 1 -q >/dev/null
"$xkd" data index toys --out toys.jsonl -q >/dev/null
quick=(-c "$config" dataset.batch_size=10 hyperparams.lr.base_lr=0.003 hyperparams.lr.final_lr=0 progress.log2tb=false)
recipe=(eval.vid_transform=randaug3crop eval.auto_augment=rand-m7-n4-mstd0.5-inc1 eval.erase=0.25 eval.mixup=0.6
        eval.cutmix=0.5 eval.label_smoothing=0.1 eval.layer_decay=0.6 eval.drop_path=0.2 eval.use_dropout=true dataset.crop_size=48)
finetune() { local run=$1; shift; try finetune "$video" toys.jsonl --out "$run" "${quick[@]}" "${recipe[@]}" "$@"; }

# Sound of the three classes differs: a tiny encoder tells them apart.
try finetune "$audio" toys.jsonl --out heard "${quick[@]}" hyperparams.num_epochs=30 eval.frequency=10 eval.fmask=true \
  eval.tmask=true dataset.train.aud_aug_kwargs.timewarp=true dataset.train.aud_aug_kwargs.wrap_window=5 eval.batch_norm=true --json
stdout_has "sound is learnt" 0 '"status": "ok", "step": 90, "total_steps": 90'
top1=$(grep -o '"honest": {"epoch": 30, "top1": [0-9]*' <<<"$out" | grep -o '[0-9]*$')
check "well above chance" [ "${top1:-0}" -ge 60 ]
check "best is not below honest" [ "$(grep -o '"best": {"epoch": [0-9]*, "top1": [0-9]*' <<<"$out" | grep -o '[0-9]*$')" -ge "${top1:-101}" ]
for file in classifier.safetensors best.safetensors tests.jsonl metrics.jsonl config.yaml report.html classes.json; do
  check "a run leaves $file" [ -s "heard/$file" ]
done
check "a line a test" [ "$(wc -l <heard/tests.jsonl)" = 3 ]
check "the report draws the tests" grep -q '"title":"test-by-epoch"' heard/report.html
right=0
for class in bounce orbit sweep; do
  for file in toys/test/$class/*.mp4; do
    try predict heard "$file" --top 1
    [ "$(cut -f 2 <<<"$out")" = $class ] && right=$((right + 1))
  done
done
check "predict agrees with the test" [ $((right * 1000 / 6 / 10)) -eq "${top1:-0}" ]
try predict heard/classifier.safetensors toys/test/*/*.mp4 --top 2
check "predict: a line a class and file" [ "$(wc -l <<<"$out")" = 12 ]
try embed heard toys/test/bounce/00010.mp4 --out heard.npz -q
check "the run folder stands for its encoder in other commands" code 0
try predict heard toys/test/bounce/00010.mp4 --json
stdout_has "predict as JSON" 0 '"classes": [{"id": '
echo junk >junk.mp4
try predict heard junk.mp4 toys/test/bounce/00010.mp4 --top 1
stderr_has "predict names what it cannot read" 3 "junk.mp4: "
check "and still predicts the rest" grep -q "^toys/test/bounce/00010.mp4" <<<"$out"
try predict heard nowhere.mp4
fails_with "predict: a missing file" 3 "xkd: error: nowhere.mp4: no such file (check the path)"
try predict "$video" toys/test/bounce/00010.mp4
stderr_has "predict: a model without classifier" 4 "has no classifier (head.weight): train one with 'xkd finetune' or 'xkd linear'"
try predict heard/checkpoints/step-00000090.safetensors toys/test/bounce/00010.mp4
stderr_has "predict: a model without class names" 4 "take classifier.safetensors of an 'xkd finetune'"
try predict toys toys/test/bounce/00010.mp4
stderr_has "predict: a folder that is no run" 4 "no run of 'xkd finetune' or 'xkd linear'"
try convert heard/classifier.safetensors hub --to hf
check "a Hugging Face folder has the classes" grep -q '"id2label": {"0": "bounce"' hub/config.json
check "and how the input is made" grep -q '"num_mel_bins": 16' hub/preprocessor_config.json

# The same bits whatever the machine, and after a stop.
finetune whole hyperparams.num_epochs=4 eval.frequency=2 --classes --confusion confusion.png
stdout_has "video with the released recipe" 0 "honest: top-1"
stdout_has "the class table" 0 "   0 bounce"
check "the confusion matrix" [ -s confusion.png ]
finetune threads hyperparams.num_epochs=4 eval.frequency=2 run.threads=3 --workers 4
finetune stopped hyperparams.num_epochs=4 eval.frequency=2 --max-steps 7 progress.log2tb=true
stdout_has "stopping after a step" 0 "step 7 of 12"
try finetune --out stopped --resume --json
stdout_has "resuming needs nothing but the folder" 0 '"step": 12, "total_steps": 12'
tensors() { "$xkd" diff "whole/classifier.safetensors" "$1/classifier.safetensors" >/dev/null; }
check "other threads and workers give the same model" tensors threads
check "a resumed run ends with the same model" tensors stopped
check "and the same moments" "$xkd" diff whole/checkpoints/step-00000012.safetensors stopped/checkpoints/step-00000012.safetensors -q
check "and the same tests" cmp -s whole/tests.jsonl stopped/tests.jsonl
check "and the same curve of them" cmp -s whole/curves/test-by-epoch.svg stopped/curves/test-by-epoch.svg
check "which TensorBoard has too" grep -q 'test/clip_top5' stopped/tensorboard/*
# A kill that nobody can prepare for: behind the test of step 6 and its checkpoint, before the end. A busy machine may let the
# run end before the signal comes: then once more.
for _ in 1 2 3 4 5; do
  rm -rf killed
  "$xkd" finetune "$video" toys.jsonl --out killed "${quick[@]}" "${recipe[@]}" hyperparams.num_epochs=4 eval.frequency=2 \
    >/dev/null 2>&1 </dev/null &
  pid=$!
  for _ in $(seq 2000); do grep -qs '"step": 8,' killed/metrics.jsonl && break; sleep 0.01; done
  kill -KILL $pid 2>/dev/null
  wait $pid 2>/dev/null
  [ -e killed/checkpoints/step-00000012.safetensors ] || break
done
check "a killed run has not finished" [ ! -e killed/checkpoints/step-00000012.safetensors ]
try finetune --out killed --resume
stdout_has "a killed run goes on" 0 "honest: top-1"
check "to the same model" tensors killed
check "and the same tests again" cmp -s whole/tests.jsonl killed/tests.jsonl
finetune micro hyperparams.num_epochs=1 train.accumulate=2
check "micro-batches" code 0
finetune last hyperparams.num_epochs=1 dataset.train.drop_last=false
stdout_has "a smaller last batch" 0 "step 3 of 3"

signalled() { # signalled NAME SIGNAL: sends the signal once training has begun
  "$xkd" finetune "$video" toys.jsonl --out "$1" "${quick[@]}" hyperparams.num_epochs=5000 >"$work/.stdout" 2>"$work/.stderr" </dev/null &
  local pid=$!
  for _ in $(seq 200); do [ -s "$1/metrics.jsonl" ] && break; sleep 0.05; done
  kill -"$2" $pid
  wait $pid
  rc=$? out=$(cat "$work/.stdout") err=$(cat "$work/.stderr")
}
signalled term TERM
stderr_has "SIGTERM saves and says so" 75 "the run is saved: --resume goes on"
check "and leaves a checkpoint" [ -n "$(ls term/checkpoints)" ]
signalled int INT
check "the first Ctrl-C saves" code 130

try finetune "$video" toys.jsonl --out diverged "${quick[@]}" hyperparams.lr.base_lr=1000 hyperparams.lr.name=fixed \
  hyperparams.weight_decay=900 hyperparams.num_epochs=40 run.max_bad_steps=2
stderr_has "numbers that are not finite stop the run" 6 "3 steps were not finite, more than run.max_bad_steps"

# A frozen encoder stays as it was.
try linear "$video" toys.jsonl --out frozen "${quick[@]}" hyperparams.num_epochs=2 dataset.vid_transform=strong3crop
stdout_has "a linear classifier" 0 "honest: top-1"
try diff "$golden/vid_teacher.safetensors" frozen/classifier.safetensors
check "only the head is new" [ "$(grep -vc '^head\.' <<<"$out")" = "$(grep -c 'tensors differ' <<<"$out")" ]
try finetune "$video" toys.jsonl --out x "${quick[@]}" eval.batch_norm=true dataset.batch_size=29 dataset.train.drop_last=false
stderr_has "batch norm on a last batch of one clip" 2 "batch norm needs two clips"
# Several labels a file.
sed 's/"label":\([0-9]\)/"labels":[\1,0]/' toys.jsonl >several.jsonl
try finetune "$audio" several.jsonl --out several "${quick[@]}" hyperparams.num_epochs=3 dataset.test.ensemble=max \
  --classes --confusion none.png
stdout_has "several labels: mean average precision" 0 "honest: mean average precision"
check "by class" grep -q '^ *0 bounce  *6  *[0-9.]*$' <<<"$out"
check "and no confusion matrix, which is said" grep -q "no confusion matrix: files have several labels" <<<"$err"
try predict several toys/test/bounce/00010.mp4 --top 1
stdout_has "and sigmoids" 0 "bounce"
try finetune "$audio" toys.jsonl --out x "${quick[@]}" dataset.test.ensemble=max
stderr_has "one label: scores are averaged" 2 "dataset.test.ensemble: max and sum are for several labels"
# A clip of sound alone has the length of the key that the released files give it; video does not look at that key.
tokens() { try finetune "$1" toys.jsonl --out x "${quick[@]}" --dry-run --json "${@:2}"; grep -o '"tokens": [0-9]*' <<<"$out"; }
sound=$(tokens "$audio" dataset.clip_duration=0.5) frames=$(tokens "$video")
check "a clip of sound by its own key" [ -n "$sound" -a "$(tokens "$audio" dataset.audio_clip_duration=0.5)" = "$sound" ]
check "is another than by default" [ "$(tokens "$audio")" != "$sound" ]
check "and video has no use for it" [ -n "$frames" -a "$(tokens "$video" dataset.audio_clip_duration=0.5)" = "$frames" ]
try finetune "$audio" toys.jsonl --out x "${quick[@]}" hyperparams.cutmix_minmax=0.2
stderr_has "a box by its size" 2 "hyperparams.cutmix_minmax"
# Without a file the released recipe is taken.
try finetune "$video" toys.jsonl --out x --dry-run --json model.kwargs.frame_size='[3,32,32]'
stderr_has "a geometry that does not fit" 2 "model.kwargs.frame_size"
finetune term --dry-run
stderr_has "a plan refuses a folder that the training refuses" 2 "exists and is not empty"
finetune plan --dry-run --json
stdout_has "dry run" 0 '"modality": "video", "multi_label": false, "classes": 3, "train_files": 30, "test_files": 6'
check "with its time" grep -Eq '"seconds": [0-9.]*[1-9]' <<<"$out"
check "a dry run writes nothing" [ ! -e plan ]

# What is refused, before anything is written.
finetune whole
fails_with "a folder with a run" 2 "xkd: error: whole: exists and is not empty: --resume goes on with it, --force starts anew"
try finetune "$video"
fails_with "a manifest missing" 2 "xkd: error: a MODEL and a MANIFEST are wanted ('--help' shows the use)"
finetune x --split train9
fails_with "a split that is not there" 3 "xkd: error: toys.jsonl: no file is of split 'train9'; it has test, train (--split, --test-split)"
finetune x --test-split fold9
stderr_has "a test split that is not there" 3 "no file is of split 'fold9'"
finetune x --modality audio
stderr_has "the wrong modality" 4 "is an encoder of video, not of audio"
finetune x eval.num_classes=7
stderr_has "another number of classes" 2 "eval.num_classes is 7, but toys.jsonl names 3 classes"
sed 's/"label":[0-9],//' toys.jsonl >unlabelled.jsonl
try finetune "$video" unlabelled.jsonl --out x "${quick[@]}"
stderr_has "labels missing" 3 "30 of 30 files have no label, the first is train/"
sed 's/"sweep"]/"sweep","none"]/' toys.jsonl >empty.jsonl
try finetune "$video" empty.jsonl --out x "${quick[@]}"
stderr_has "a class without files" 3 "1 of 4 classes have no training file (none)"
sed 's/"bounce","orbit"/"orbit","bounce"/' toys.jsonl >other.jsonl
finetune x --test other.jsonl
stderr_has "another class list to test on" 3 "class 0 is bounce in toys.jsonl and orbit in other.jsonl"
try finetune --out stopped --resume data.path=other.jsonl
stderr_has "another class list to go on with" 4 "the run was trained for other classes"
sed '2s/"label":\([0-9]\)/"labels":[\1]/' toys.jsonl >mixed.jsonl # the first one is a test file
finetune x --test mixed.jsonl
stderr_has "labels of two kinds" 3 "all files need"
finetune x eval.auto_augment=rand-m99
stderr_has "an augmentation that is not known" 2 "want rand-mM-nN-mstdS-inc1"
check "refused runs leave nothing behind" [ ! -e x ]

# Files that are listed but absent are named and counted; beyond the budget nothing is passed off as a result.
sed 's/00010/99999/' toys.jsonl >absent.jsonl
finetune gone --test absent.jsonl hyperparams.num_epochs=1
stderr_has "test files absent" 3 "3 of 6 test files cannot be read"
check "they are named" grep -q "test/bounce/99999.mp4: missing" <<<"$err"
try finetune --out gone --resume data.max_bad_fraction=0.5
stdout_has "a larger budget says what is left out" 0 "3 of 6 test files could not be read and are in no figure"
sed 's|train/bounce/00000|train/bounce/x|' toys.jsonl >missing.jsonl
try finetune "$video" missing.jsonl --out replaced "${quick[@]}" hyperparams.num_epochs=1
stderr_has "a training file absent is replaced and named" 0 "train/bounce/x.mp4: missing"
check "and counted" grep -qF "1 of 30 training files could not be read and were replaced by others (replaced/bad_clips.jsonl)" <<<"$out"
try finetune --out replaced --resume --json
stdout_has "a resumed run still counts it" 0 '"replaced": 1, "unreadable": 0'
# The count is a statistic: a log that cannot be read costs neither steps nor figures.
try finetune "$video" missing.jsonl --out counted "${quick[@]}" hyperparams.num_epochs=1 --max-steps 1
truncate -s 1100M counted/bad_clips.jsonl
try finetune --out counted --resume --json
stdout_has "a log that is too large" 0 '"replaced": null, "unreadable": 0, "damaged_clips": 0, "in_both": 0, "honest": {"epoch": 1'
check "is told" grep -q "warning: how many training files were replaced is unknown: counted/bad_clips.jsonl: " <<<"$err"
check "and the last checkpoint is saved" [ -s counted/checkpoints/step-00000003.safetensors ]
finish
