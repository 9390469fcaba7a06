#!/usr/bin/env bash
# Views that the device makes of what was decoded (run.augment): whole runs, beside those whose views the loader makes.
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh
tiny=$PWD/tests/data/tiny.yaml
sim=$(dirname "$xkd")/libxkd-cuda-sim.so
cd "$work" || exit 1
"$xkd" data synth --out toys --classes 3 --clips 4 --seconds 2 --size 64 --seed 1 -q >/dev/null || exit 1
train=(pretrain --data toys/train -c "$tiny" dataset.batch_size=4 run.picture_steps=2)
weights() { sha256sum <"$1/backbones/vid_teacher.safetensors"; }
pictures() { find "$1" -name '*.png' | sort | xargs cat | sha256sum; }

# ---- what cannot be ----
try "${train[@]}" --out never run.augment=gpu
fails_with "a device that is no GPU" 2 \
  "xkd: error: run.augment=gpu: run.device=cpu is no GPU: take run.device=cuda, or run.augment=cpu"
check "leaves no folder" [ ! -e never ]
mkdir from && "$xkd" "${train[@]}" --out from/run --max-steps 1 -q >/dev/null 2>&1
try finetune from/run toys --split train --test-split test --modality video --out never run.augment=gpu run.device=guard
fails_with "a training with labels" 2 \
  "xkd: error: run.augment=gpu: this training makes its views on the processors: take run.augment=auto or cpu"
check "leaves no folder either" [ ! -e never ]
try "${train[@]}" --out never run.augment=gpu run.device=guard dataset.n_fft=16384
fails_with "a transform that is too long" 2 \
  "xkd: error: run.augment=gpu: dataset.n_fft=16384 is above 8192: take run.augment=cpu"
try "${train[@]}" --out never run.augment=tpu
stderr_has "neither nor" 2 "run.augment: wants auto|cpu|gpu, not 'tpu'"

# ---- the same draws: behind the guard the same bits ----
for augment in cpu gpu; do
  try "${train[@]}" --out $augment --max-steps 3 run.device=guard run.augment=$augment
  check "guard, run.augment=$augment" code 0
done
check "the same weights" [ "$(weights gpu)" = "$(weights cpu)" ]
check "the same pictures" [ "$(pictures gpu)" = "$(pictures cpu)" ]
check "of which there are some" [ -n "$(find gpu -name '*.png')" ]
try "${train[@]}" --out threads --max-steps 3 run.device=guard run.augment=gpu data.workers=1
check "whatever the number of threads" [ "$(weights threads)" = "$(weights gpu)" ]
try "${train[@]}" --out parts --max-steps 1 run.device=guard run.augment=gpu
try "${train[@]}" --out parts --max-steps 3 --resume run.device=guard run.augment=gpu
check "and wherever it was stopped" [ "$(weights parts)" = "$(weights gpu)" ]
for augment in cpu gpu; do
  try "${train[@]}" --out over-$augment run.overfit=true --max-steps 3 train.accumulate=2 run.device=guard run.augment=$augment
  check "one batch over and over, run.augment=$augment" code 0
  try "${train[@]}" --out odd-$augment --max-steps 3 dataset.train.drop_last=false dataset.batch_size=5 run.device=guard \
    run.augment=$augment
  check "a smaller last batch, run.augment=$augment" code 0
  for modality in audio video; do
    try "${train[@]}" --out $modality-$augment --max-steps 2 model.fwd_kwargs.modality=$modality run.device=ref \
      run.augment=$augment
    check "$modality alone, run.augment=$augment" code 0
  done
done
check "gives the same weights" [ "$(weights over-gpu)" = "$(weights over-cpu)" ]
check "and so does the smaller batch" [ "$(weights odd-gpu)" = "$(weights odd-cpu)" ]
check "and video alone" [ "$(weights video-gpu)" = "$(weights video-cpu)" ]
check "and audio alone" [ "$(sha256sum <audio-gpu/backbones/aud_teacher.safetensors)" = "$(sha256sum <audio-cpu/backbones/aud_teacher.safetensors)" ]

# ---- a clip that cannot be read is replaced by the same one ----
cp -r toys/train hurt
victim=$(find hurt -name '*.mp4' | sort | sed -n 3p)
head -c 2000 "$victim" >short && mv short "$victim"
for augment in cpu gpu; do
  try pretrain --data hurt -c "$tiny" dataset.batch_size=4 --max-steps 4 --out hurt-$augment run.device=guard run.augment=$augment
  check "a damaged file, run.augment=$augment" code 0
done
check "is told of alike" cmp -s hurt-gpu/bad_clips.jsonl hurt-cpu/bad_clips.jsonl
check "and once at least" [ -s hurt-gpu/bad_clips.jsonl ]
check "and the weights are the same" [ "$(weights hurt-gpu)" = "$(weights hurt-cpu)" ]

# ---- what it takes ----
mega() { "$xkd" "${train[@]}" --dry-run --json run.device=guard "$@" 2>/dev/null | sed -n "s/.*\"$key\": \([0-9.]*\).*/\1/p"; }
key=ring_bytes
check "batches of bytes are smaller than those of floats" \
  awk "BEGIN { exit !($(mega run.augment=gpu) > 0 && 2 * $(mega run.augment=gpu) < $(mega run.augment=cpu)) }"
key=activation_bytes
check "and the views' room on the device is counted" awk "BEGIN { exit !($(mega run.augment=gpu) > $(mega run.augment=cpu)) }"

# ---- on the simulation of a GPU ----
if [ ! -e "$sim" ]; then
  echo "ok runs on the simulation # SKIP it is not built by this compiler"
  finish
fi
for seed in 1 2 3; do
  XKD_CUDASIM_SEED=$seed try "${train[@]}" --out sim-$seed --max-steps 3 run.device=cuda-sim
  check "a pre-training with its threads in order $seed" code 0
done
for seed in 2 3; do check "gives the same bits as in order 1" [ "$(weights sim-$seed)" = "$(weights sim-1)" ]; done
try "${train[@]}" --out sim-gpu --max-steps 3 run.device=cuda-sim run.augment=gpu
check "which are those of run.augment=gpu" [ "$(weights sim-gpu)" = "$(weights sim-1)" ]
try "${train[@]}" --out sim-cpu --max-steps 3 run.device=cuda-sim run.augment=cpu
check "and not those of run.augment=cpu" [ "$(weights sim-cpu)" != "$(weights sim-1)" ]
near=$("$xkd" diff sim-gpu/backbones/vid_teacher.safetensors sim-cpu/backbones/vid_teacher.safetensors -t 1e-3 2>&1)
check "but near to them" [ "${near##*$'\n'}" = "0 tensors differ" ]
XKD_CUDASIM_SEED=1 try pretrain --data hurt -c "$tiny" dataset.batch_size=4 --max-steps 4 --out hurt-sim run.device=cuda-sim
check "a damaged file" code 0
check "is told of as elsewhere" cmp -s hurt-sim/bad_clips.jsonl hurt-cpu/bad_clips.jsonl
try bench step -c "$tiny" --batch 4 --repeats 1 --count --json --device cuda-sim run.augment=gpu
stdout_has "the launches of views are counted" 0 '"video_view"'
finish
