#!/usr/bin/env bash
# Several ranks whose devices exchange gradients themselves: on the simulation, each process has a device of its own.
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh
tiny=$PWD/tests/data/tiny.yaml
if [ ! -e "$(dirname "$xkd")/libxkd-cuda-sim.so" ]; then
  echo "ok ranks on the simulation # SKIP it is not built by this compiler"
  finish
fi
cd "$work" || exit 1
"$xkd" data synth --out toys --classes 3 --clips 4 --seconds 2 --size 64 --seed 1 -q >/dev/null || exit 1
train=(pretrain --data toys/train -c "$tiny" dataset.batch_size=4 run.picture_steps=off run.device=cuda-sim run.threads=1 --max-steps 3)
norm() { awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "grad_norm") column = i } END { print $column }' "$1/metrics.csv"; }
near() { awk "BEGIN { exit !($1 > 0 && ($1 - $2) ^ 2 <= ($3 * $1) ^ 2) }"; } # near A B RELATIVE
weights() { sha256sum <"$1/backbones/vid_teacher.safetensors"; }

try "${train[@]}" --out alone train.accumulate=2
check "one process, two micro-batches" code 0
try "${train[@]}" --out two --ranks 2
stderr_has "two ranks, each with a device" 0 "gradients are added up on the GPUs, which NCCL connects: 0 on sim-"
check "give the bits of the one process" [ "$(weights two)" = "$(weights alone)" ]
try "${train[@]}" --dry-run --ranks 2 --json
check "a plan counts the buckets of host and device" [ "$(grep -o '"exchange_bytes": [0-9]*' <<<"$out")" = "\"exchange_bytes\": $((2 * 8 << 20))" ]
for ranks in 2 3; do
  for wire in float32 bfloat16; do
    [ $ranks$wire = 3bfloat16 ] && continue
    halves=("${train[@]}" --ranks $ranks dataset.batch_size=$((2 * ranks)) train.wire=$wire)
    try "${halves[@]}" --out "devices-$ranks-$wire"
    check "$ranks ranks, $wire on the wire" code 0
    XKD_CUDASIM_ALONE=1 try "${halves[@]}" --out "hosts-$ranks-$wire"
    stderr_has "the same without NCCL says so" 0 "has no NCCL or computes on no GPU: gradients pass through the hosts' memory"
    if [ $wire = float32 ]; then
      check "and has the same bits" [ "$(weights "devices-$ranks-$wire")" = "$(weights "hosts-$ranks-$wire")" ]
    else # a rank's own share is not rounded, and which share that is depends on how the gradients are cut: 2^-9 of the norm
      check "and is near to it" near "$(norm "devices-$ranks-$wire")" "$(norm "hosts-$ranks-$wire")" 0.002
    fi
  done
done
check "bfloat16 on the wire is another sum" [ "$(weights devices-2-bfloat16)" != "$(weights devices-2-float32)" ]
try finetune two toys --split train --test-split test --modality video --out tuned --max-steps 1 -c "$tiny" --ranks 2 \
  dataset.batch_size=4 run.device=cuda-sim run.threads=1
stderr_has "a fine-tuning over two devices" 0 "which NCCL connects"

# ---- a meeting that does not come about: nobody waits for run.peer_timeout ----
port=$((20000 + RANDOM % 20000))
rank() { # rank NUMBER ARG...: one of two, as torchrun starts it
  RANK=$1 WORLD_SIZE=2 LOCAL_RANK=$1 MASTER_ADDR=localhost MASTER_PORT=$port "$xkd" "${train[@]}" --out no "${@:2}" \
    >/dev/null 2>"rank$1.err" </dev/null
}
pair() { # pair OF-RANK-1 [OF-RANK-0]: their variables; codes in rc0 and rc1
  port=$((port + 1)) start=$SECONDS
  (${1:+export "$1"}; rank 1) & other=$!
  (${2:+export "$2"}; rank 0)
  rc0=$?
  wait $other
  rc1=$? took=$((SECONDS - start)) rc="$rc0 $rc1" out=$(cat rank0.err) err=$(cat rank1.err)
}
names() { # names FILE RANK PART...: one error, which names the rank, its host and the parts
  [ "$(grep -c 'xkd: error:' "$1")" = 1 ] && grep -q "rank $2 ($(uname -n)) cannot meet the others' GPUs: " "$1" || return 1
  for text in "${@:3}"; do grep -qF "$text" "$1" || return 1; done
}
pair "" XKD_CUDASIM_NAMELESS=1
check "rank 0 can make no meeting: 9, and 7 for the other" [ "$rc0 $rc1" = "9 7" ]
for r in 0 1; do
  check "rank $r says who, why and what to do" names rank$r.err 0 "cuda-sim:0 failed in NCCL: the simulation makes no name" NCCL_SOCKET_IFNAME
done
check "both at once" [ "$took" -lt 20 ]
pair XKD_CUDASIM_MEMORY=4000000
check "rank 1 has no memory for buckets: 8, and 7 for rank 0" [ "$rc0 $rc1" = "7 8" ]
for r in 0 1; do check "rank $r says so" names rank$r.err 1 "is out of memory in buckets for sums over ranks"; done
check "at once too" [ "$took" -lt 20 ]
# ---- a rank that comes to no end in the meeting itself ----
pair XKD_CUDASIM_MEETING=fail
check "rank 1 fails in the meeting: 9, and 7 for rank 0" [ "$rc0 $rc1" = "7 9" ]
check "which names it" grep -q "rank 1 ($(uname -n)) ended with an error (exit code 9): .*simulated ranks did not meet" rank0.err
check "at once" [ "$took" -lt 20 ]
pair XKD_CUDASIM_MEETING=die
check "rank 1 dies in the meeting: 7 for rank 0" [ "$rc0" = 7 ]
check "which names it" grep -q "rank 1 ($(uname -n)) is lost: its process ended" rank0.err
check "at once" [ "$took" -lt 20 ]
patient=("${train[@]}") train+=(run.peer_timeout=4)
pair XKD_CUDASIM_MEETING=hang
check "rank 1 hangs in a call of the library's: 7 for both" [ "$rc0 $rc1" = "7 7" ]
check "rank 0 names it" grep -q "rank 1 ($(uname -n)) is lost: it lives, but its work has stood still for 4 s" rank0.err
check "within the time-outs" [ "$took" -lt 20 ]
pair XKD_CUDASIM_MEETING=never
check "the library goes on connecting: 7 for both" [ "$rc0 $rc1" = "7 7" ]
check "rank 0 says what to look at" grep -q "the GPUs of 2 ranks have not met in 8 s (twice run.peer_timeout), though all live: NCCL_DEBUG" rank0.err
check "behind the time-outs" [ "$took" -lt 25 ]
train=("${patient[@]}")
XKD_CUDASIM_NAMELESS=1 try "${train[@]}" --out no --ranks 3 dataset.batch_size=6
stderr_has "--ranks ends with the first one's code" 9 "rank 0 ($(uname -n)) cannot meet the others' GPUs"
check "and no folder is made" [ ! -e no ]

# ---- a rank that is lost ----
# Its end is seen at once: the time-out is long, as a simulated step on a busy machine may take seconds.
"$xkd" "${train[@]}" --out killed --ranks 2 --max-steps 400 run.save_steps=1 run.peer_timeout=60 2>killed.err >/dev/null &
launcher=$!
for _ in $(seq 600); do compgen -G "killed/checkpoints/*.safetensors" >/dev/null && break; sleep 0.1; done
victim=$(ranks_of $launcher | sed -n 2p)
check "two ranks are at work" kill -KILL "$victim"
start=$SECONDS
wait $launcher
rc=$?
err=$(cat killed.err)
check "a rank that is killed: exit 7" code 7
check "and who it was" [ -n "$(grep 'rank 1 (' <<<"$err")" ]
check "the other ends at once" [ $((SECONDS - start)) -lt 20 ]
try verify killed/checkpoints/*.safetensors
check "its checkpoints are whole" code 0
finish
