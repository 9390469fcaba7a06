#!/usr/bin/env bash
# What a training takes: memory as a dry run lays it out, time by arithmetic, disk as a run leaves it.
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh
tiny=$PWD/tests/data/tiny.yaml
cd "$work"
"$xkd" data synth --out videos --classes 2 --clips 8 --seconds 2 --size 64 -q >/dev/null || exit 1
"$xkd" data index videos --out videos.jsonl -q >/dev/null || exit 1
# number KEY [N]: the N-th number behind "KEY": in the last result.
number() { grep -oE "\"$1\": -?[0-9.e+-]+" <<<"$out" | sed -n "${2:-1}s/.*: //p"; }
near() { awk -v a="$1" -v b="$2" -v tolerance="${3:-1e-5}" 'BEGIN { d = a - b; if (d < 0) d = -d; exit !(b > 0 && d <= tolerance * b) }'; }
plan() { try plan -c "$tiny" --json "$@"; }

# ---- memory ----
for accumulate in 1 2 4; do
  try pretrain -c "$tiny" --data videos.jsonl --dry-run --json train.accumulate=$accumulate
  dry=$(awk -v all="$(number memory_bytes)" -v scratch="$(number scratch_bytes)" 'BEGIN { printf "%.0f", all - scratch }')
  plan --data videos.jsonl --seconds 1
  check "accumulate=$accumulate: memory is the dry run's" near \
    "$(grep -oE "\"ranks\": 1, \"accumulate\": $accumulate, \"micro_batch\": $((8 / accumulate)), \"memory_bytes\": [0-9]+" <<<"$out" |
      head -n 1 | sed 's/.*: //')" "$dry"
done
# The batch of 8 in ways of 8, 4 and 2 at a time.
check "all ways are there" [ "$(grep -o '"micro_batch": [0-9]*' <<<"$out" | sed 's/.*: //' | head -n 3 | tr '\n' ' ')" = "8 4 2 " ]
first=$(number memory_bytes 1) second=$(number memory_bytes 2)
between=$(awk -v a="$first" -v b="$second" 'BEGIN { printf "%.9f", (a + b) / 2e9 }')
plan --data videos.jsonl --seconds 1 --memory "$between"
check "what is too large does not fit" [ "$(grep -o '"fits": [a-z]*' <<<"$out" | head -n 2 | tr '\n' ' ')" = '"fits": false "fits": true ' ]
check "and the plan is the largest that does" [ "$(grep -o '"plan": {"ranks": 1, "accumulate": [0-9]*' <<<"$out")" = '"plan": {"ranks": 1, "accumulate": 2' ]
try plan -c "$tiny" --data videos.jsonl --seconds 1 --memory "$between"
stdout_has "said for people" 0 "fits 4 samples at a time: train.accumulate=2 reaches the batch of 8"
try plan -c "$tiny" --seconds 1 --memory 0.00001
stdout_has "nothing fits" 0 "nothing: the smallest takes "
plan --seconds 1 model.fwd_kwargs.mmd_group=4
check "a group of MMD bounds the micro-batch" [ "$(grep -o '"micro_batch": [0-9]*' <<<"$out" | sed 's/.*: //' | head -n 3 | tr '\n' ' ')" = "8 4 8 " ]

# ---- time: 80 videos are 10 steps an epoch, 100 in all, of 8 samples ----
plan --samples 80 --seconds 2
check "steps" [ "$(number total_steps)" = 100 ]
check "seconds of one rank" near "$(number seconds 4)" 1600
plan --samples 80 --seconds 2 --ranks 2 --network 0.5
check "seconds of two: half the samples, and the gradient once each way" \
  near "$(number seconds 4)" "$(awk -v trained="$(number trained)" 'BEGIN { print 100 * (4 * 2 + 4 * trained / 0.5e9) }')"
plan --samples 80 --seconds 2 --hours 0.23
check "as many ranks as end in time" grep -q '"deadline": {"ranks": 2, ' <<<"$out"
plan --samples 80 --seconds 2 --hours 0.1
check "or none" grep -q '"deadline": null' <<<"$out"
try plan -c "$tiny" --samples 80 --seconds 2 --hours 0.1
stderr_has "which is said with what to do" 2 "ends within 0.1 hours: allow more, or plan fewer epochs"
plan --samples 80 run.max_steps=7 --seconds 1
check "a shorter run" near "$(number seconds 4)" 56
plan --samples 80
check "a rate measured here" grep -q '"source": "measured"' <<<"$out"
flop=$(number gflop_per_sample)
"$xkd" bench step -c "$tiny" --batch 8 --repeats 1 --json -q >bench.json 2>/dev/null
check "a sample's products are those of bench step" near "$flop" "$(sed 's/.*"gflop_per_sample": \([0-9.]*\).*/\1/' bench.json)" 0.01
plan --samples 80 --gflops 4
check "by GFLOP/s" near "$(number seconds_per_sample)" "$(awk -v f="$flop" 'BEGIN { print f / 4 }')"
plan --samples 80 --bench bench.json
check "by another machine's bench step" near "$(number seconds_per_sample)" "$(sed 's/.*"s_per_sample": \([0-9.]*\).*/\1/' bench.json)"
try plan --bench bench.json --samples 80
stderr_has "which must be of this model" 2 "bench.json: is of a model of "
echo '{}' >empty.json
try plan -c "$tiny" --bench empty.json
stderr_has "and of bench step" 3 "holds no s_per_sample: want the output of 'xkd bench step --json'"

# ---- disk ----
"$xkd" pretrain -c "$tiny" --data videos.jsonl --out run --max-steps 10 data.cache="$work/cache" -q >/dev/null 2>&1
plan --data videos.jsonl data.cache="$work/cache" --seconds 1
size() { find "$@" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum }'; }
check "a checkpoint's size, three times" near "$(awk -v x="$(number checkpoint_bytes)" 'BEGIN { print x / 3 }')" "$(size run/checkpoints)" 0.05
check "the encoders' size" near "$(number backbone_bytes)" "$(size run/backbones)" 0.15
check "the cache's size" near "$(number cache_bytes)" "$(size cache)" 0.15

# ---- refused ----
for wrong in "--hours 3" "--data videos --samples 3" "--seconds 1 --gflops 2" "--memory -1" "--samples 4" "--network 0" "--ranks 3"; do
  try plan -c "$tiny" $wrong
  check "refused: $wrong" code 2
done
check "ranks that do not divide the batch are told" grep -q "3 ranks cannot share a batch of 8: take a number that divides it" <<<"$err"
try plan --data nowhere
stderr_has "no such data" 3 "nowhere: no such folder or manifest"
finish
