#!/usr/bin/env bash
# run.precision=bfloat16 in every command: resumed to the same bits, checkpoints of float32 masters, equal on the guarded device,
# features that are never mixed with those of float32.
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh
tiny=$PWD/tests/data/tiny.yaml config=$PWD/configs/demo.yaml
cd "$work" || exit 1
"$xkd" data synth --out toys --classes 3 --clips 6 --seconds 2 --size 64 --seed 1 -q >/dev/null || exit 1
"$xkd" data index toys --out toys.jsonl -q >/dev/null || exit 1
half=run.precision=bfloat16
train=(pretrain --data toys/train -c "$tiny" dataset.batch_size=4 run.save_steps=2 run.keep_last=10 run.threads=2)
final=checkpoints/step-00000006.safetensors

try "${train[@]}" --out whole $half --max-steps 6
check "a training in bfloat16" code 0
try "${train[@]}" --out parts $half --max-steps 2
try "${train[@]}" --out parts $half --max-steps 6 --resume
check "is resumed" code 0
try diff whole/$final parts/$final
stdout_has "to the same bits" 0 "0 tensors differ"
try "${train[@]}" --out guarded $half --max-steps 6 run.device=guard
try diff whole/$final guarded/$final
stdout_has "which the guarded device gives too" 0 "0 tensors differ"
try "${train[@]}" --out single --max-steps 6
try diff whole/$final single/$final
check "and float32 does not" [ "$rc" -eq 1 ]
try inspect whole/$final
check "checkpoints hold float32" [ -z "$(grep bfloat16 <<<"$out")" ]
try "${train[@]}" --out single --max-steps 8 --resume $half
stderr_has "a float32 run goes on in bfloat16, which is said" 0 "from 'precision: float32' to 'precision: bfloat16'"
try "${train[@]}" --out ranks $half --max-steps 6 --ranks 2
check "two ranks train in bfloat16" code 0
try "${train[@]}" --out accumulated $half --max-steps 6 train.accumulate=2
try diff ranks/$final accumulated/$final
stdout_has "to the bits of one process" 0 "0 tensors differ"

for precision in float32 bfloat16; do
  try embed whole toys/test --out $precision.safetensors run.precision=$precision
  check "$precision: embeds" code 0
  try finetune whole toys.jsonl --split train --test-split test --modality video --out tuned-$precision --max-steps 4 -c "$tiny" \
    dataset.batch_size=4 eval.drop_path=0.2 run.precision=$precision
  check "$precision: fine-tunes with stochastic depth" code 0
done
try svm float32.safetensors bfloat16.safetensors
stderr_has "features of two precisions are not mixed" 3 "are of different models or precisions"
try "${train[@]}" --out none run.precision=float16
stderr_has "an unknown precision" 2 "run.precision: wants float32|bfloat16|tf32, not 'float16'"

# ---- how far losses are from float32: the demo's width, from the same weights ----
for precision in float32 bfloat16; do
  try pretrain --data toys/train -c "$config" --out wide-$precision --max-steps 1 dataset.batch_size=8 data.cache=off \
    run.picture_steps=off run.precision=$precision
  check "$precision: a step of the demo's model" code 0
done
losses() { grep -oE '"[a-z0-9_]*loss": [-0-9.e+]+' "$1/metrics.jsonl" | tr -d '":'; }
far=$(paste -d ' ' <(losses wide-float32) <(losses wide-bfloat16) |
  awk '{ d = $4 / $2 - 1; if (d < 0) d = -d; n++; if ($1 != $3 || d > 0.01) print } END { if (n < 10) print n " losses" }')
check "all losses are within 1 %" [ -z "$far" ]

# ---- tf32: on a GPU alone ----
for device in cpu ref guard; do
  try "${train[@]}" --out none run.precision=tf32 run.device=$device
  stderr_has "tf32 is refused on $device" 2 "run.precision=tf32: run.device=$device has no such products: take cuda, or float32"
done
check "and leaves nothing" [ ! -e none ]
if [ -e "$(dirname "$xkd")/libxkd-cuda-sim.so" ]; then
  on=(run.device=cuda-sim run.picture_steps=off)
  for precision in float32 tf32; do
    try "${train[@]}" "${on[@]}" --out sim-$precision --max-steps 1 run.precision=$precision
    check "$precision: trains on the simulation" code 0
  done
  try diff sim-float32/checkpoints/step-00000001.safetensors sim-tf32/checkpoints/step-00000001.safetensors
  check "with other bits" [ "$rc" -eq 1 ]
  try diff sim-float32/backbones/vid_teacher.safetensors sim-tf32/backbones/vid_teacher.safetensors -t 2e-3
  stdout_has "and nearly the same numbers" 0 "0 tensors differ"
  try embed whole toys/test --out sim-tf32.safetensors run.precision=tf32 run.device=cuda-sim
  check "tf32: embeds" code 0
  try svm float32.safetensors sim-tf32.safetensors
  stderr_has "features in tf32 are a precision of their own" 3 "are of different models or precisions"
else
  echo "ok tf32 on the simulation # SKIP it is not built by this compiler"
fi
finish
