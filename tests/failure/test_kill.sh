#!/usr/bin/env bash
# Killed with SIGKILL at random moments and resumed, a run ends with the same bits. XKD_KILLS: how often (default 6).
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh
"$xkd" data synth --out "$work/videos" --classes 3 --clips 8 --seconds 2 --size 64 -q >/dev/null || exit 1
"$xkd" data index "$work/videos" --out "$work/videos.jsonl" -q >/dev/null || exit 1
tiny=(-c tests/data/tiny.yaml --data "$work/videos.jsonl" run.save_steps=1)
weights() { cat "$work/$1"/backbones/*.safetensors | sha256sum; }
start=$(date +%s%N)
try pretrain "${tiny[@]}" --out "$work/whole"
whole_ms=$((($(date +%s%N) - start) / 1000000))
check "uninterrupted" code 0
seed=${XKD_SEED:-$RANDOM}
echo "# seed $seed, the whole run takes $whole_ms ms"
RANDOM=$seed
for i in $(seq "${XKD_KILLS:-6}"); do
  workers=$((1 << (i % 3)))
  "$xkd" pretrain "${tiny[@]}" --out "$work/$i" data.workers=$workers >/dev/null 2>&1 </dev/null &
  pid=$!
  ms=$((30 + RANDOM % whole_ms))
  sleep "$((ms / 1000)).$(printf %03d $((ms % 1000)))"
  kill -KILL $pid 2>/dev/null
  wait $pid 2>/dev/null
  steps=$(cat "$work/$i/metrics.jsonl" 2>/dev/null | wc -l)
  if [ -e "$work/$i/config.yaml" ]; then again=--resume; else again=--force; fi
  try pretrain "${tiny[@]}" --out "$work/$i" data.workers=$workers $again
  check "killed after $ms ms and $steps steps, $workers workers" [ "$(weights whole)" = "$(weights "$i")" ]
done
finish
