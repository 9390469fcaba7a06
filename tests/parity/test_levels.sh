#!/usr/bin/env bash
# Parity, gradients and golden cases at every level below the highest that this machine has (the suite runs the highest),
# with oneDNN held to the same; equal bits of a step from 1, 2, 3 and 8 threads and from all levels with fused products;
# and what is refused.
set -u
source "$(dirname "$0")/../cli/tap.sh"
tests=$XKD_BUILD/tests
declare -A onednn=([v2]=SSE41 [v3]=AVX2 [v4]=AVX512_CORE)
levels=$("$xkd" doctor --quick --json | sed 's/.*"kernel levels": "\([^";]*\).*/\1/; s/,//g')
highest=${levels##* }
check "doctor names the levels" [ -n "$levels" ]
passes() { "$@" >"$work/log" 2>&1; }
replay() { "$xkd" replay "$1" --threads "$2" --out "$work/out" -q && sha256sum <"$work/out/state.safetensors"; }

for level in $levels; do
  export XKD_CPU=$level ONEDNN_MAX_CPU_ISA=${onednn[$level]:-ALL}
  try doctor --quick
  stdout_has "$level is forced" 0 "$level, as XKD_CPU says"
  if [ "$level" != "$highest" ]; then
    for program in grad/test_operations grad/test_step golden/test_finetune golden/test_backbone unit/test_svm; do
      check "$program at $level" passes "$tests/$program"
    done
    # What the level has a part in: neither the reference nor the order of tasks changes with it.
    check "parity at $level" passes "$tests/parity/test_operations" "cpu: parity*"
    check "special values at $level" passes "$tests/parity/test_operations" "cpu: special*"
    check "golden steps at $level" passes "$tests/golden/test_replay" "*on cpu*"
  fi
  first=$(replay tests/golden/xkd_mats 1)
  for threads in 2 3 8; do
    check "$threads threads at $level give the bits of one" [ "$(replay tests/golden/xkd_mats $threads)" = "$first" ]
  done
  [ "$level" = v2 ] && continue # rounds products and sums one by one
  check "$level gives the bits of every level with fused products" [ "$first" = "${fused:=$first}" ]
done

# Checkpoints and features record the level, and a change of it is said.
if [ "${levels%% *}" = v2 ] && [ "$highest" != v2 ]; then
  "$xkd" data synth --out "$work/toys" --classes 2 --clips 4 --seconds 2 --size 64 --seed 1 -q
  run=(pretrain -c tests/data/tiny.yaml --data "$work/toys" --out "$work/run" dataset.train.split=)
  XKD_CPU=v2 "$xkd" "${run[@]}" --max-steps 1 -q >/dev/null
  XKD_CPU=$highest try "${run[@]}" --resume --max-steps 2
  stderr_has "a run goes on at another level" 0 "made at processor level v2, goes on at level $highest: last bits"
  golden=(tests/golden/backbone/vid_teacher.safetensors -c tests/data/backbone.yaml --modality video)
  XKD_CPU=v2 "$xkd" embed "${golden[0]}" "$work/toys" "${golden[@]:1}" --shard 1/2 --out "$work/1.safetensors" -q >/dev/null
  XKD_CPU=$highest "$xkd" embed "${golden[0]}" "$work/toys" "${golden[@]:1}" --shard 2/2 --out "$work/2.safetensors" -q >/dev/null
  try embed --join "$work/1.safetensors" "$work/2.safetensors" --out "$work/joined.safetensors"
  stderr_has "shards of two levels are joined with a word" 0 "last bits of results may differ"
fi
export XKD_CPU=v9
try data index . --out "$work/m"
stderr_has "an unknown level, with the list" 2 "XKD_CPU=v9: unknown level; this processor has ${levels// /, }"
try version
stdout_has "a command that only informs needs no level" 0 "xkd "
unset XKD_CPU
# Emulated processors, where the emulator is there. Sanitizers do not run in it.
if [ "$(uname -m)" = x86_64 ] && command -v qemu-x86_64 >/dev/null && ! grep -q fsanitize "$XKD_BUILD/build.ninja"; then
  emulated() { err=$(qemu-x86_64 -cpu "$@" 2>&1 >/dev/null); rc=$?; out=; }
  emulated qemu64 "$xkd" data index . --out "$work/m"
  stderr_has "a processor below the lowest level gets a sentence" 9 "this processor lacks SSE4.2"
  XKD_CPU=v4 emulated Nehalem "$xkd" data index . --out "$work/m"
  stderr_has "a level that the processor lacks" 2 "XKD_CPU=v4: this processor lacks AVX-512"
  emulated Nehalem "$xkd" replay tests/golden/xkd --threads 2 --out "$work/low" -q
  check "a golden case on a processor of the lowest level" [ "$rc" -eq 0 ]
else
  echo "ok emulated processors # SKIP no qemu-x86_64, or a sanitizer"
fi
finish
