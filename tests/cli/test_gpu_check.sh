#!/usr/bin/env bash
# scripts/gpu-check, which wants a GPU: what it makes of what others tell, with stand-ins for the program and for PyTorch.
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh
tree=$PWD
mkdir "$work/build"
cat >"$work/build/xkd" <<'END'
#!/bin/sh
case $1 in
  bench) echo '{"s_per_sample": 0.002000, "asked_of_device": 41}' ;;
  replay) while [ "$1" != --out ]; do shift; done; mkdir -p "$2"; echo same >"$2/state.safetensors" ;;
esac
END
chmod +x "$work/build/xkd"
gpu_check() {
  out=$("$tree/scripts/gpu-check" --build "$work/build" --device cuda-sim:count --batches "4" "$@" "$work/report" 2>"$work/.stderr" </dev/null)
  rc=$?
  err=$(cat "$work/.stderr")
}
report_has() { grep -qE "$2" "$work/report" && ok "$1" || not_ok "$1 (wanted $2)"; }
stand_in() { # stand_in NAME COMMAND: a Python with torch, whose step does that
  printf '#!/bin/sh\n[ "$1" = -c ] && exit 0\necho "$*" >>%s/asked\n%s\n' "$work" "$2" >"$work/$1"
  chmod +x "$work/$1"
}

gpu_check --python "$work/no-python"
check "without PyTorch it ends well" code 0
report_has "and says so" "^== PyTorch: NOT RUN, .*no-python has no torch"
report_has "as it says that this is no GPU" "^run.device=cuda-sim:count: .* nothing below was measured on a GPU"
report_has "two runs have equal bits" "^== two runs with equal bits: ok"
report_has "speed and requests" "^== 500 samples/s at batch 4, local teacher; the host asked the device 41 times a step"
stand_in slow "echo '{\"s_per_sample\": 0.005, \"mode\": 1}'"
XKD_PYTHON=$work/slow gpu_check
check "with PyTorch" code 0
for mode in bfloat16 compile-bfloat16; do
  report_has "the ratio to $mode" "^== xkd against PyTorch $mode, batch 4: 2.50 times, 0.005 against 0.002000 s a sample"
  check "which was asked for on the device" grep -q -- "--device cuda --batch 4 --repeats 10 --mode $mode$" "$work/asked"
done
stand_in broken "exit 3"
gpu_check --python "$work/broken"
check "a PyTorch that fails fails the check" code 1
report_has "and is named" "^== PyTorch bfloat16, batch 4: FAILED \(3\)"
gpu_check --batch 4
stderr_has "an unknown option" 2 "--batch: unknown"
out=$("$tree/scripts/gpu-check" --python 2>&1)
rc=$?
check "an option without its value" code 2
finish
