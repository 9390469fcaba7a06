#!/usr/bin/env bash
# Runs of several ranks, one of which is killed at a random moment, go on with another number of ranks and end with the
# bits of a run that nothing happened to. XKD_KILLS: how often (default 4).
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh
"$xkd" data synth --out "$work/videos" --classes 3 --clips 8 --seconds 2 --size 64 -q >/dev/null || exit 1
"$xkd" data index "$work/videos" --out "$work/videos.jsonl" -q >/dev/null || exit 1
tiny=(-c tests/data/tiny.yaml --data "$work/videos.jsonl" run.save_steps=1 data.workers=1 hyperparams.num_epochs=${XKD_EPOCHS:-10})
weights() { cat "$work/$1"/backbones/*.safetensors | sha256sum; }
start=$(date +%s%N)
try pretrain "${tiny[@]}" --out "$work/whole" --ranks 4
whole_ms=$((($(date +%s%N) - start) / 1000000))
check "uninterrupted, four ranks" code 0
seed=${XKD_SEED:-$RANDOM}
echo "# seed $seed, the whole run takes $whole_ms ms"
RANDOM=$seed
numbers=(4 1 2)
for i in $(seq "${XKD_KILLS:-4}"); do
  before=${numbers[$((i % 3))]} after=${numbers[$(((i + 1 + RANDOM % 2) % 3))]}
  "$xkd" pretrain "${tiny[@]}" train.parts=4 --out "$work/$i" --ranks "$before" >/dev/null 2>&1 </dev/null &
  pid=$!
  ms=$((30 + RANDOM % whole_ms))
  sleep "$((ms / 1000)).$(printf %03d $((ms % 1000)))"
  victim=$(pgrep -P $pid -f -- '--ranks' | shuf -n 1 --random-source=<(yes $i))
  kill -KILL ${victim:-$pid} 2>/dev/null
  wait $pid 2>/dev/null
  # Ranks whose starter was killed save and end by themselves.
  for _ in $(seq 500); do pgrep -f -- "--out $work/$i " >/dev/null || break; sleep 0.02; done
  steps=$(cat "$work/$i/metrics.jsonl" 2>/dev/null | wc -l)
  if [ -e "$work/$i/config.yaml" ]; then again=(--resume); else again=(--force "${tiny[@]}" train.parts=4); fi
  try pretrain --out "$work/$i" --ranks "$after" "${again[@]}"
  check "of $before ranks one is killed after $ms ms and $steps steps; $after go on" [ "$(weights whole)" = "$(weights "$i")" ]
done
finish
