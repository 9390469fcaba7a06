#!/usr/bin/env bash
# The device guard: whole runs in memory that the host cannot read give the CPU's bits, and an operation that fails never
# reaches a file.
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh
tiny=$PWD/tests/data/tiny.yaml
cd "$work" || exit 1
"$xkd" data synth --out toys --classes 3 --clips 6 --seconds 2 --size 64 --seed 1 -q >/dev/null || exit 1
"$xkd" data index toys --out toys.jsonl -q >/dev/null || exit 1
train=(pretrain --data toys/train -c "$tiny" dataset.batch_size=4 run.save_steps=2 run.keep_last=10 run.picture_steps=2
  run.probe_data=toys/test run.probe_epochs=1 run.threads=2)
same() { # same NAME FILE: the guard's file and the CPU's
  check "$1" [ "$("$xkd" diff "guard-$2" "cpu-$2" 2>&1)" = "0 tensors differ" ]
}

for device in guard cpu; do
  try "${train[@]}" --out $device-run run.device=$device --max-steps 2
  check "$device: a training begins" code 0
  try "${train[@]}" --out $device-run run.device=$device --max-steps 6 --resume
  check "$device: and is resumed" code 0
done
same "with equal checkpoints" run/checkpoints/step-00000006.safetensors
same "and backbones" run/backbones/aud_teacher.safetensors
check "equal pictures" cmp -s guard-run/pictures/video-00000006.png cpu-run/pictures/video-00000006.png
figures() { sed 's/"time": *[^,]*,//; s/"[a-z_]*\(time\|second\)[a-z_]*": *[^,}]*,*//g' "$1"/metrics.jsonl; }
check "and figures, the probe's too" [ "$(figures guard-run | grep -o '"[a-z_]*\(loss\|entropy\|norm\|spread\|knn\)[a-z_0-9]*": *[^,}]*')" = \
  "$(figures cpu-run | grep -o '"[a-z_]*\(loss\|entropy\|norm\|spread\|knn\)[a-z_0-9]*": *[^,}]*')" ]

for device in guard cpu; do
  try embed cpu-run toys --out $device-features.safetensors run.device=$device
  check "$device: embeds" code 0
  try embed cpu-run toys --out $device-head.safetensors --pool head run.device=$device
  check "$device: with the projection head" code 0
  try finetune cpu-run toys.jsonl --split train --test-split test --modality video --out $device-tuned --max-steps 4 -c "$tiny" \
    dataset.batch_size=4 eval.dropout=0.3 eval.drop_path=0.2 run.device=$device run.threads=2
  check "$device: fine-tunes with dropout and stochastic depth" code 0
  try linear cpu-run toys.jsonl --split train --test-split test --modality audio --out $device-linear --max-steps 4 -c "$tiny" \
    dataset.batch_size=4 eval.batch_norm=true run.device=$device run.threads=2
  check "$device: trains a classifier with batch norm" code 0
  try predict $device-tuned toys/test/*/*.mp4 --device $device --json
  check "$device: predicts" code 0
  echo "$out" >$device-scores.json
done
same "equal features" features.safetensors
same "equal features of the head" head.safetensors
same "equal fine-tuned weights" tuned/checkpoints/step-00000004.safetensors
same "equal classifiers" linear/checkpoints/step-00000004.safetensors
check "equal scores" cmp -s guard-scores.json cpu-scores.json

try "${train[@]}" --out none run.device=guard:x
stderr_has "a fault that is no number" 2 "run.device=guard:x: want guard or guard:N"
try "${train[@]}" --out none run.device=gpu
stderr_has "an unknown device" 2 "run.device: wants cpu, cuda, cuda:N, ref or guard, not 'gpu'"

# An operation in every part of the run fails: the exit code says so, and what is on the disk is the CPU's.
reached=0
for at in 0 40 400 900 1300 1700 2100 2500 2900 3300; do
  rm -rf broken
  try "${train[@]}" --out broken run.device=guard:$at --max-steps 6
  [ "$rc" -eq 0 ] && break
  reached=$((reached + 1))
  if [ "$rc" -ne 9 ] || [[ $err != *"guard: "*"was made to fail"* ]]; then not_ok "operation $at fails the run"; continue; fi
  for f in broken/checkpoints/*.safetensors; do
    [ -e "$f" ] || continue
    [ "$("$xkd" diff "$f" "cpu-run/checkpoints/$(basename "$f")" 2>&1)" = "0 tensors differ" ] || not_ok "operation $at: $f"
  done
  try "${train[@]}" --out broken run.device=cpu --max-steps 6 --resume
  [ "$("$xkd" diff broken/checkpoints/step-00000006.safetensors cpu-run/checkpoints/step-00000006.safetensors 2>&1)" = \
    "0 tensors differ" ] || not_ok "operation $at: the resumed run"
done
check "operations in several parts of the run were made to fail" [ "$reached" -ge 5 ]
tune=(finetune cpu-run toys.jsonl --split train --test-split test --modality video -c "$tiny" dataset.batch_size=4 --max-steps 4
  run.save_steps=2 run.threads=2)
try "${tune[@]}" --out whole
for at in 10 300 500 700 900; do
  rm -rf broken
  try "${tune[@]}" --out broken run.device=guard:$at
  [ "$rc" -eq 9 ] || { [ "$rc" -eq 0 ] || not_ok "operation $at fails the fine-tuning"; continue; }
  for f in broken/checkpoints/*.safetensors; do
    [ -e "$f" ] || continue
    [ "$("$xkd" diff "$f" "whole/checkpoints/$(basename "$f")" 2>&1)" = "0 tensors differ" ] || not_ok "operation $at: $f"
  done
done
check "no failed operation of a fine-tuning reached a file" [ "$failed" -eq 0 ]
finish
