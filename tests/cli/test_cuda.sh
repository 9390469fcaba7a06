#!/usr/bin/env bash
# The device cuda: whole runs of the same code on the simulation of a GPU, and what is said where there is none.
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh
tiny=$PWD/tests/data/tiny.yaml
golden=$PWD/tests/golden/xkd
modules=$(dirname "$xkd")
cd "$work" || exit 1

# ---- without a GPU, or without the module ----
cp "$xkd" alone
lonely() { # lonely ARG...: the program with no module beside it
  out=$(./alone "$@" 2>.stderr </dev/null)
  rc=$?
  err=$(cat .stderr)
}
lonely bench step -c "$tiny" --device cuda
check "no module: exit 9" code 9
check "says which, where and what to do" \
  [ "${err%% in /*}${err##*/xkd}" = "xkd: error: run.device=cuda: libxkd-cuda.so is neither beside the program nor: build where CUDA 13's nvcc and cuBLASLt are" ]
check "and computes nothing" [ -z "$out" ]
echo "no library" >libxkd-cuda.so
lonely bench step -c "$tiny" --device cuda
stderr_has "a module that is none" 9 "libxkd-cuda.so: "
rm libxkd-cuda.so
lonely doctor --quick --json
stdout_has "doctor says what is missing" 0 '"CUDA": "libxkd-cuda.so is neither beside the program'
try bench step -c "$tiny" --device cuda:x
stderr_has "a device whose number is none" 2 "run.device"
if [ -e "$modules/libxkd-cuda.so" ]; then
  try doctor --quick
  check "doctor knows the versions" code 0
  if [[ $out == *"there is no NVIDIA driver"* ]]; then
    stdout_has "and that there is no driver" 0 "none that can be used"
    try bench step -c "$tiny" --device cuda
    fails_with "no driver: exit 9" 9 \
      "xkd: error: run.device=cuda: there is no NVIDIA driver: install one for CUDA 13 (Debian: nvidia-driver)"
  fi
else
  echo "ok the module for GPUs # SKIP nvcc or cuBLASLt is not here"
fi
if [ ! -e "$modules/libxkd-cuda-sim.so" ]; then
  echo "ok runs on the simulation # SKIP it is not built by this compiler"
  finish
fi

# ---- on the simulation ----
try bench step -c "$tiny" --device cuda-sim:1
stderr_has "a device that is not there" 9 "run.device=cuda-sim:1: there is 1 device here, numbered from 0"
asked() { sed -n 's/.*"asked_of_device": \([0-9]*\).*/\1/p'; }
try bench step -c "$tiny" --batch 4 --repeats 2 --device cuda-sim --json
launched=$("$xkd" bench step -c "$tiny" --batch 4 --device cuda-sim --count 2>/dev/null | awk '$1 == "all" { print $2 }')
check "a step from graphs asks the device for little" [ "$(asked <<<"$out")" -gt 0 -a "$(asked <<<"$out")" -lt $((launched / 8)) ]
of_graphs=$(asked <<<"$out")
try bench step -c "$tiny" --batch 4 --repeats 1 --device cuda-sim
check "as it tells people" [ "$(awk '/^requests to the device per step/ { print $NF }' <<<"$out")" = "$of_graphs" ]
check "whose share of this machine's rate nobody is told" [ -z "$(grep GEMM <<<"$out")" ]
try bench step -c "$tiny" --batch 4 --repeats 1 --json
check "a CPU is asked for nothing" [ "$(asked <<<"$out")" = 0 ]
digest() { cat "$1"/*.safetensors "$1"/losses.json | cksum; }
for seed in 1 2 3; do
  export XKD_CUDASIM_SEED=$seed
  try replay "$golden" --device cuda-sim --out "seed-$seed"
  check "a replay with its threads in order $seed" code 0
done
unset XKD_CUDASIM_SEED
for seed in 2 3; do check "gives the same bits as in order 1" [ "$(digest seed-$seed)" = "$(digest seed-1)" ]; done

"$xkd" data synth --out toys --classes 3 --clips 4 --seconds 2 --size 64 --seed 1 -q >/dev/null || exit 1
"$xkd" data index toys --out toys.jsonl -q >/dev/null || exit 1
train=(pretrain --data toys/train -c "$tiny" dataset.batch_size=4 run.save_steps=1 run.keep_last=10 run.picture_steps=2
  run.device=cuda-sim)
try "${train[@]}" --out whole --max-steps 4
check "a pre-training, whose later steps are graphs" code 0
try "${train[@]}" --out parts --max-steps 1
check "one that is stopped" code 0
try "${train[@]}" --out parts --max-steps 4 --resume
check "and resumed" code 0
same() { "$xkd" diff "$1" "$2" 2>&1; }
check "gives the same bits" [ "$(same whole/checkpoints/step-00000004.safetensors parts/checkpoints/step-00000004.safetensors)" = "0 tensors differ" ]
try "${train[@]}" --out cpu --max-steps 4 run.device=cpu
near=$("$xkd" diff whole/backbones/vid_teacher.safetensors cpu/backbones/vid_teacher.safetensors -t 1e-3 2>&1)
check "near to the CPU's" [ "${near##*$'\n'}" = "0 tensors differ" ]
for device in cuda-sim cpu; do
  try embed cpu toys --out $device.safetensors run.device=$device
  check "$device: embeds" code 0
done
near=$("$xkd" diff cuda-sim.safetensors cpu.safetensors -t 1e-3 2>&1)
check "near to the CPU's embedding" [ "${near##*$'\n'}" = "0 tensors differ" ]
tune=(finetune cpu toys.jsonl --split train --test-split test --modality video -c "$tiny" dataset.batch_size=4 eval.dropout=0.3
  eval.drop_path=0.2 run.save_steps=1 run.keep_last=10 run.device=cuda-sim)
try "${tune[@]}" --out tuned --max-steps 4
check "a fine-tuning" code 0
try "${tune[@]}" --out tuned-parts --max-steps 1
check "one that is stopped" code 0
try "${tune[@]}" --out tuned-parts --max-steps 4 --resume
check "and resumed" code 0
for step in 2 4; do
  last=checkpoints/step-0000000$step.safetensors
  check "has the same bits after step $step" [ "$(same tuned/$last tuned-parts/$last)" = "0 tensors differ" ]
done
losses() { cut -d, -f1-3 "$1/metrics.csv"; }
check "and the same losses and rates" [ "$(losses tuned)" = "$(losses tuned-parts)" -a "$(losses tuned | wc -l)" = 5 ]
try linear cpu toys.jsonl --split train --test-split test --modality audio --out linear --max-steps 2 -c "$tiny" \
  dataset.batch_size=4 eval.batch_norm=true run.device=cuda-sim
check "a linear classifier with batch norm" code 0
try predict tuned toys/test/*/*.mp4 --device cuda-sim --json
check "a prediction" code 0
finish
