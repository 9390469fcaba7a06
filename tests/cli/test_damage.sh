#!/usr/bin/env bash
# Clips and files that are mostly damage say nothing: training replaces them, embedding and evaluation leave them out, and
# each tells by name. Also: data.workers is heeded.
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
