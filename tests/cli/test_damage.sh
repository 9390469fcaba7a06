#!/usr/bin/env bash
# Clips and files that are mostly damage say nothing: training replaces them, embedding and evaluation leave such files out
# and count such clips of other files, and each tells by name. Also: data.workers is heeded.
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh
tiny=$PWD/tests/data/tiny.yaml
cd "$work" || exit 1
"$xkd" data synth --out toys --classes 2 --clips 6 --seconds 3 --size 64 --seed 1 -q >/dev/null || exit 1
"$xkd" pretrain -c "$tiny" --data toys --out run --max-steps 1 -q dataset.train.split= >/dev/null 2>&1 || exit 1

# Zeros over half of the packets of one file; its index says that all is well.
bad=toys/train/orbit/00000.mp4
size=$(stat -c %s $bad)
dd if=/dev/zero of=$bad bs=1 seek=$((size * 3 / 10)) count=$((size / 2)) conv=notrunc status=none
try data index toys --out all.jsonl
stdout_has "its header tells nothing" 0 "12 files, 2 classes"
for policy in "" data.cache=ram data.cache=cached; do
  try pretrain -c "$tiny" --data all.jsonl --out "t$policy" --max-steps 6 -q dataset.train.split= $policy
  check "training goes on ${policy}" [ "$rc" -eq 0 ]
  check "its clips are replaced and told ${policy}" grep -q '"file":.*train/orbit/00000.mp4.*damaged or missing (data.max_clip_damage=0.1)' "t$policy/bad_clips.jsonl"
  check "by no other name ${policy}" [ "$(grep -vc orbit/00000 "t$policy/bad_clips.jsonl")" -eq 0 ]
done
try pretrain -c "$tiny" --data all.jsonl --out allowed --max-steps 6 -q dataset.train.split= data.max_clip_damage=1
check "data.max_clip_damage=1 takes what there is" [ "$rc" -eq 0 -a ! -s allowed/bad_clips.jsonl ]
for protocol in windows test train; do
  try embed run all.jsonl --out $protocol.safetensors --protocol $protocol data.max_bad_fraction=0.2
  stdout_has "embed $protocol: it is counted" 0 "12 files, 1 unreadable"
  stderr_has "embed $protocol: and named" 0 "train/orbit/00000.mp4: broken: "
  check "embed $protocol: with the key" grep -q 'damaged or missing (data.max_clip_damage=0.1)' <<<"$err"
  try embed run all.jsonl --out $protocol.all.safetensors --protocol $protocol data.max_clip_damage=1
  stdout_has "embed $protocol: unless it is allowed" 0 "12 files, 0 unreadable"
done
try embed run all.jsonl --out few.safetensors
check "more than the budget is refused" [ "$rc" -eq 3 ]
mkdir -p esc/meta esc/audio
printf 'filename,fold,target,category,esc10,src_file,take\n' >esc/meta/esc50.csv
for f in 1 2 3 4 5; do for c in 0 1; do
  printf '%d-1-A-%d.wav,%d,%d,kind%d,True,1,A\n' $f $c $f $c $c >>esc/meta/esc50.csv
  cp toys/train/bounce/0000$((f % 4)).mp4 esc/audio/$f-1-A-$c.wav
done; done
cp $bad esc/audio/2-1-A-0.wav
try eval esc50-svm --data esc --model run --partial --out row --json --fold 1 dataset.train.clips_per_video=2 data.max_bad_fraction=0.2
stderr_has "eval names it" 0 "2-1-A-0.wav: broken: "
check "and counts it" grep -q '"unreadable": *\[* *1' <<<"$out"

# Zeros over a twentieth of one training and one test file of 20 s: the files pass, a few of their clips do not.
"$xkd" data synth --out long --classes 2 --clips 4 --seconds 20 --size 64 --seed 3 -q >/dev/null || exit 1
for f in train/orbit/00001.mp4 test/orbit/00003.mp4; do
  size=$(stat -c %s long/$f)
  dd if=/dev/zero of=long/$f bs=1 seek=$((size * 45 / 100)) count=$((size / 25)) conv=notrunc status=none
done
"$xkd" data index long --out long.jsonl -q >/dev/null || exit 1
budget=data.max_bad_fraction=0.5
try embed run long.jsonl --out whole.jsonl $budget --json
named=$(grep -cE 'long/t(rain|est)/orbit/0000[13].mp4: at [0-9.]+ s [0-9]+ % of the clip.s (pictures are|sound is) damaged or missing \(data.max_clip_damage=0.1\)' <<<"$err")
check "clips of whole files are named with second and share" [ "$rc" -eq 0 -a "$named" -ge 3 ]
check "none but these" [ "$(grep -c 'damaged or missing' <<<"$err")" -eq "$named" ]
stdout_has "counted" 0 "\"files\": 8, \"bad\": 0, \"video\": 160, \"audio\": 160, \"damaged\": $named,"
marked=$(grep -oE '"damage":[0-9.]+' whole.jsonl | awk -F: '$2 > 0.1' | wc -l)
check "and marked in the features, which are all there" [ "$marked" -eq "$named" -a "$(wc -l <whole.jsonl)" -eq 320 ]
try embed run long.jsonl --out ranks.jsonl $budget --ranks 2
stdout_has "ranks count together" 0 "$named of the clips are damaged beyond data.max_clip_damage"
check "and write the same bytes" cmp -s whole.jsonl ranks.jsonl
try embed run long.jsonl --out few.jsonl data.max_bad_fraction=0
stderr_has "more than the budget is exit 3" 3 "$named of 320 clips are damaged beyond data.max_clip_damage, more than data.max_bad_fraction allows"
check "and nothing is written" [ ! -e few.jsonl ]
try embed run long.jsonl --out few.jsonl $budget -q
stdout_has "what was done is gone on with, and still counted" 0 "$named of the clips are damaged"
check "to the same bytes" cmp -s whole.jsonl few.jsonl
try embed run long.jsonl --out allowed.jsonl data.max_clip_damage=1 data.max_bad_fraction=0
check "data.max_clip_damage=1 allows all" [ "$rc" -eq 0 -a -z "$(grep damaged <<<"$out$err")" ]
try embed --join whole.jsonl --out joined.safetensors
stdout_has "joined features keep it" 0 "$named of the clips are damaged"

try svm run long.jsonl --out svm --train train --test test $budget eval.test_clips=20
stderr_has "svm names clips" 0 "orbit/00003.mp4: at 9"
stderr_has "counts them for each set" 0 "of 40 clips of the test set are damaged beyond data.max_clip_damage"
stdout_has "and tells it with the figure" 0 "test clips damaged beyond data.max_clip_damage"
try svm run long.jsonl --out svm --train train --test test $budget eval.test_clips=20 --json
check "also of features that are there" [ "$(grep -oE '"test_damaged_clips": [0-9]+' <<<"$out" | cut -d' ' -f2)" -ge 1 ]
try knn svm/train-25.safetensors svm/test-20.safetensors
stderr_has "knn tells it" 0 "of 40 clips of the test set are damaged beyond data.max_clip_damage"
try svm run long.jsonl --out svm-strict --train train --test test eval.test_clips=20
stderr_has "svm: more than the budget is exit 3" 3 "clips are damaged beyond data.max_clip_damage, more than data.max_bad_fraction"

linear=(long.jsonl --split train --test-split test --modality audio -c "$tiny" hyperparams.num_epochs=1 dataset.batch_size=2 eval.test_clips=20)
try linear run "${linear[@]}" --out heard $budget
stderr_has "a test in training names clips" 0 "orbit/00003.mp4: at 9"
stdout_has "and tells it with the figure" 0 "test clips are damaged beyond data.max_clip_damage"
try linear run "${linear[@]}" --out heard-strict
stderr_has "linear: more than the budget is exit 3" 3 "of 40 test clips are damaged beyond data.max_clip_damage, more than data.max_bad_fraction"
try predict heard long/test/*/00003.mp4 --json
check "predict scores every file" [ "$(grep -c '"classes"' <<<"$out")" -eq 2 ]
stderr_has "names clips, and its exit code tells" 3 "predict: 1 of 2 files have damaged clips"
check "and counts them" grep -qE '00003.mp4", "clips": 20, "damaged": [1-9]' <<<"$out"
try predict heard long/test/bounce/00003.mp4
check "a whole file is no reason" [ "$rc" -eq 0 ]
cp long/test/orbit/00003.mp4 esc/audio/1-1-A-0.wav
try eval esc50-svm --data esc --model run --partial --out damaged --json --fold 1 dataset.train.clips_per_video=2 eval.test_clips=20 data.max_bad_fraction=0.2
check "eval counts clips" grep -qE '"damaged_clips": \[[0-9]+, [1-9]' <<<"$out"
try eval esc50-svm --data esc --model run --partial --out damaged --fold 1 dataset.train.clips_per_video=2 eval.test_clips=20 data.max_bad_fraction=0.2
check "and says so in the row" grep -qE 'files unreadable, [0-9]+ \+ [0-9]+ clips damaged' <<<"$out"

# Worker processes at once, seen from outside; a short work may be missed.
for n in 1 3; do
  for command in "index toys --out w.jsonl" "check toys --out w.jsonl"; do
    most=0
    for try in 1 2 3 4 5 6 7 8; do
      rm -f w.jsonl
      "$xkd" data $command data.workers=$n >/dev/null 2>&1 &
      pid=$!
      while kill -0 $pid 2>/dev/null; do
        now=$(cat /proc/$pid/task/*/children 2>/dev/null | wc -w)
        [ "$now" -gt "$most" ] && most=$now
      done
      wait $pid
      [ "$most" -ge $n ] && break
    done
    check "data ${command%% *} with data.workers=$n has $n worker processes" [ "$most" -eq $n ]
  done
done
finish
