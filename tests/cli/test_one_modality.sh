#!/usr/bin/env bash
# Sounds alone and pictures alone through every command: the other side is neither decoded nor checked. With both, files of
# one side are counted and left out.
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh
tiny=$PWD/tests/data/tiny.yaml
pictures=$PWD/tests/fuzz/corpus/media/pictures.mkv
cd "$work" || exit 1

# wav FILE BYTE: 2 s of a buzz, 16 bit at 16 kHz
wav() {
  { printf 'RIFF\044\372\000\000WAVEfmt \020\000\000\000\001\000\001\000\200\076\000\000\000\175\000\000\002\000\020\000data\000\372\000\000'
    yes "$2" | head -c 64000; } >"$1"
}
mkdir -p sounds/a sounds/b videos/a videos/b
for i in 0 1 2 3 4 5 6 7 8 9; do
  wav sounds/a/$i.wav "a buzz of class a, number $i"
  wav sounds/b/$i.wav "zZ $i"
  cp "$pictures" videos/a/$i.mkv
  cp "$pictures" videos/b/$i.mkv
done

for m in audio video; do
  case $m in audio) set=sounds file=sounds/a/0.wav other=vid own=aud ;; *) set=videos file=videos/a/0.mkv other=aud own=vid ;; esac
  only=model.fwd_kwargs.modality=$m
  try data index $set --out $m.jsonl $only
  stdout_has "$m: index" 0 "20 files, 2 classes, $([ $m = audio ] && echo 0.01 || echo 0.02) hours, 0 without sound, 0 left out"
  try data check $set --out checked.jsonl $only dataset.clip_duration=1
  stdout_has "$m: check" 0 "20 files: 20 ok"
  try data stats $m.jsonl $only dataset.clip_duration=1
  stdout_has "$m: stats" 0 "$([ $m = audio ] && echo "0.01 hours; 2.00 to 2.00" || echo "0.02 hours; 3.00 to 3.00") s a file"
  check "$m: stats listens to sounds alone" [ "$(grep -c '^log-mel' <<<"$out")" -eq "$([ $m = audio ] && echo 1 || echo 0)" ]
  check "$m: nothing is unreadable" [ "$(grep -c 'unreadable\|^without' <<<"$out")" -eq 0 ]
  try data show $file --out shown-$m -c "$tiny" $only
  check "$m: show" [ "$rc" -eq 0 -a -z "$(ls shown-$m | grep -v "^$m")" -a -n "$(ls shown-$m | grep "^$m.*png")" ]
  try pretrain -c "$tiny" --data $m.jsonl --dry-run $only dataset.train.split=
  check "$m: a plan tells its own views alone" [ "$rc" -eq 0 -a "$(grep -cE '^(video|audio) (views|tokens)' <<<"$out")" -eq 2 ]
  try pretrain -c "$tiny" --data $set --out run-$m --max-steps 2 -q $only dataset.train.split= run.picture_steps=1
  check "$m: pretrain" [ "$rc" -eq 0 -a -z "$err" -a ! -s run-$m/bad_clips.jsonl ]
  check "$m: what was not trained is not exported" [ -e run-$m/backbones/${own}_teacher.safetensors -a ! -e run-$m/backbones/${other}_teacher.safetensors ]
  try pretrain --resume --out run-$m --max-steps 3 -q
  check "$m: resume" code 0
  try embed run-$m $set --out $m.safetensors
  stdout_has "$m: embed" 0 "20 files, 0 unreadable; $([ $m = audio ] && echo '0 video and 40 audio' || echo '60 video and 0 audio') clips"
  try embed run-$m $set --out x.safetensors --modality both
  stderr_has "$m: the other encoder is not there" 4 "run-$m: has no $([ $m = audio ] && echo video || echo audio) encoder"
  for codec in jpeg raw; do
    try data pack $set --out pack-$m-$codec --codec $codec --short-side 36 $only
    stdout_has "$m: pack as $codec" 0 "20 samples packed, 0 unreadable"
    try embed run-$m pack-$m-$codec --out pack-$m-$codec.safetensors
    stdout_has "$m: embed the $codec pack" 0 "20 files, 0 unreadable; $([ $m = audio ] && echo '0 video and 40 audio' || echo '60 video and 0 audio') clips"
    try pretrain -c "$tiny" --data pack-$m-$codec --out run-$m-$codec --max-steps 2 -q $only dataset.train.split= run.picture_steps=1
    check "$m: pretrain from the $codec pack" [ "$rc" -eq 0 -a ! -s run-$m-$codec/bad_clips.jsonl ]
  done
  try knn $m.safetensors $m.safetensors
  stdout_has "$m: knn" 0 "on 20 videos"
  try svm run-$m $set --out svm-$m --train '' --test '' dataset.train.clips_per_video=2
  stdout_has "$m: svm" 0 "honest: top-1"
  for task in finetune linear; do
    try $task run-$m $set --out $task-$m --max-steps 2 -q dataset.batch_size=8
    check "$m: $task" [ "$rc" -eq 0 -a ! -s $task-$m/bad_clips.jsonl ]
  done
  try predict finetune-$m $file
  stdout_has "$m: predict" 0 "	a"
done

# The paper's rows.
mkdir -p esc/meta esc/audio ucf/ucfTrainTestlist
printf 'filename,fold,target,category,esc10,src_file,take\n' >esc/meta/esc50.csv
for f in 1 2 3 4 5; do for c in 0 1; do
  printf '%d-1-A-%d.wav,%d,%d,kind%d,True,1,A\n' $f $c $f $c $c >>esc/meta/esc50.csv
  cp sounds/$([ $c = 0 ] && echo a || echo b)/$f.wav esc/audio/$f-1-A-$c.wav
done; done
for c in 1 2; do
  printf '%d C%d\n' $c $c >>ucf/ucfTrainTestlist/classInd.txt
  mkdir -p ucf/UCF-101/C$c
  for n in 1 2 3 4; do
    cp "$pictures" ucf/UCF-101/C$c/v_C${c}_g0${n}_c01.avi
    for f in 1 2 3; do
      [ $n = $f ] && echo "C$c/v_C${c}_g0${n}_c01.avi" >>ucf/ucfTrainTestlist/testlist0$f.txt || echo "C$c/v_C${c}_g0${n}_c01.avi $c" >>ucf/ucfTrainTestlist/trainlist0$f.txt
    done
  done
done
for row in "esc50-svm esc run-audio 8" "ucf101-svm ucf run-video 6"; do
  set -- $row
  try eval $1 --data $2 --model $3 --partial -n dataset.train.clips_per_video=2
  stdout_has "$1: dry run" 0 "fold 1: $4 training files"
  try eval $1 --data $2 --model $3 --partial --out eval-$1 dataset.train.clips_per_video=2
  stdout_has "$1: the row" 0 "honest, "
done
try eval ucf101-svm --data ucf --model run-audio --partial -n
stderr_has "a row of the other side" 4 "run-audio: has no video encoder"

# Both: sounds alone and pictures alone among videos.
"$xkd" data synth --out toys --classes 2 --clips 6 --seconds 2 --size 64 --seed 1 -q >/dev/null || exit 1
mkdir mixed && cp -r toys/train mixed/av && cp -r sounds/a mixed/snd && cp -r videos/a mixed/vid && find mixed/av -name '*.mp4' | while read -r f; do mv "$f" "mixed/av/$(tr / - <<<"$f")"; done
find mixed -type d -empty -delete
try data index mixed
stdout_has "both: index" 0 "30 files, 3 classes, 0.02 hours, 10 without sound, 0 left out"
try pretrain -c "$tiny" --data mixed --out known --max-steps 2 dataset.train.split= data.audio_policy=drop
stderr_has "both: sounds are counted" 0 "10 of 30 files have no pictures and are left out"
stderr_has "both: silent videos by policy" 0 "10 of 30 files have no sound and are left out (data.audio_policy)"
check "both: nothing is bad" [ ! -s known/bad_clips.jsonl ]
rm mixed/manifest.jsonl
try pretrain -c "$tiny" --data mixed --out unknown --max-steps 2 dataset.train.split= data.audio_policy=drop
check "both: the same without an index" code 0
finish
