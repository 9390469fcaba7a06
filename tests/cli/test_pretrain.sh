#!/usr/bin/env bash
# Whole runs of a tiny model on real files: what they leave, how they stop, how they go on, what they refuse.
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh
"$xkd" data synth --out "$work/videos" --classes 3 --clips 8 --seconds 2 --size 64 -q >/dev/null || exit 1
"$xkd" data index "$work/videos" --out "$work/videos.jsonl" -q >/dev/null || exit 1
tiny=(-c tests/data/tiny.yaml --data "$work/videos.jsonl")
train() { local run=$1; shift; try pretrain "${tiny[@]}" --out "$work/$run" "$@"; }
weights() { cat "$work/$1"/backbones/*.safetensors | sha256sum; }

train whole
stdout_has "a run" 0 "step 20 of 20, loss "
for file in config.yaml metrics.jsonl metrics.csv train.log report.html curves/loss.svg backbones/vid_teacher.safetensors; do
  check "it leaves $file" [ -s "$work/whole/$file" ]
done
check "one line a step" [ "$(wc -l <"$work/whole/metrics.jsonl")" = 20 ]
train whole
fails_with "its folder is protected" 2 "xkd: error: $work/whole: exists and is not empty: --resume goes on with it, --force starts anew"
train whole --resume
stdout_has "resuming a finished run" 0 "step 20 of 20"
train again --json data.workers=1
stdout_has "result as JSON" 0 '"status": "ok", "step": 20, "total_steps": 20, "loss": '
check "another number of workers changes nothing" [ "$(weights whole)" = "$(weights again)" ]
train threads run.threads=3 data.workers=4 -q
check "another number of threads changes nothing" [ "$(weights whole)" = "$(weights threads)" ]

train stopped --max-steps 7
stdout_has "stopping after a step" 0 "step 7 of 20"
try pretrain --out "$work/stopped" --resume
stdout_has "resuming needs nothing but the folder" 0 "step 20 of 20"
check "a resumed run ends with the same bits" [ "$(weights whole)" = "$(weights stopped)" ]

signalled() { # signalled NAME SIGNAL: sends the signal once training has begun
  "$xkd" pretrain "${tiny[@]}" --out "$work/$1" hyperparams.num_epochs=5000 >"$work/.stdout" 2>"$work/.stderr" </dev/null &
  local pid=$!
  for _ in $(seq 200); do [ -s "$work/$1/metrics.jsonl" ] && break; sleep 0.05; done
  kill -"$2" $pid
  wait $pid
  rc=$? out=$(cat "$work/.stdout") err=$(cat "$work/.stderr")
}
signalled term TERM
stderr_has "SIGTERM saves and says so" 75 "the run is saved: --resume goes on"
check "SIGTERM leaves a checkpoint" [ -n "$(ls "$work"/term/checkpoints)" ]
signalled usr1 USR1
check "SIGUSR1 likewise" code 75
signalled int INT
# A shell starts background jobs with SIGINT ignored, but the program installs its own handler.
check "the first Ctrl-C saves" code 130

ls "$work"/stopped/checkpoints >"$work/.list"
last=$work/stopped/checkpoints/$(tail -n 1 "$work/.list")
train keep --max-steps 4 run.save_steps=2
newest=$work/keep/checkpoints/step-00000004.safetensors
printf 'X' | dd of="$newest" bs=1 seek=$(($(stat -c %s "$newest") - 5000)) conv=notrunc status=none
train keep --resume
stderr_has "a damaged newest checkpoint is passed over" 0 "step-00000004.safetensors: damaged: its checksum does not match; falling back to step-00000002.safetensors"
check "and the run still ends with the same bits" [ "$(weights whole)" = "$(weights keep)" ]
truncate -s 100 "$last"
rm -f "$(dirname "$last")"/step-0000000*
try pretrain --out "$work/stopped" --resume
stderr_has "no whole checkpoint" 4 "cut off within its header"
train whole --resume model.kwargs.projector_cfg=32-gelu-3-16-128-norm3
stderr_has "another architecture" 4 "of another architecture"
train whole --resume train.seed=9
stderr_has "another seed" 2 "train.seed is 9, but the run was started with 0"
train whole --force --max-steps 1
stdout_has "--force starts anew" 0 "step 1 of 20"

train short --max-steps 1
check "a run without a probe has no chart of one" [ -e "$work/short/curves/loss.svg" -a -z "$(ls "$work"/short/curves | grep probe)" ]
train short --resume --max-steps 1
stdout_has "a call without a step has no loss" 0 "loss -,"
check "nor has its report" [ -z "$(grep -i '>nan<' "$work/short/report.html")" ]

train plan --dry-run --json
stdout_has "dry run" 0 '"total_steps": 20'
check "the list is part of its memory" grep -qE '"list_bytes": [1-9]' <<<"$out"
check "a dry run writes nothing" [ ! -e "$work/plan" ]
train plan --dry-run --json data.cache=ram
check "the cache is part of its memory" grep -qE '"cache_bytes": [1-9]' <<<"$out"
train whole --dry-run
stderr_has "a dry run refuses a folder that the run refuses" 2 "exists and is not empty"
train whole --dry-run --force
check "as the run, it takes it with --force" code 0
train nowhere --dry-run --resume
stderr_has "a dry run of a resume without a run" 2 "no run to resume"
touch "$work/file"
train file/run --dry-run
stderr_has "a dry run below a file" 5 "is not a folder"
train plan --dry-run --init tests/golden/torch/state.pth
stderr_has "a dry run refuses weights that the run refuses" 4 "neither a whole XKD model nor a backbone"
train plan --dry-run model.kwargs.projector_cfg=32-gelu-3-16-128-norm3 --init "$work/whole/checkpoints/$(ls "$work/whole/checkpoints" | tail -n 1)"
stderr_has "of another architecture too" 4 "of another architecture"
train plan --dry-run --init "$work/absent.safetensors"
stderr_has "and weights that are not there" 5 "absent.safetensors: cannot open"
train plan --dry-run run.probe_epochs=1 run.probe_data="$work/absent"
stderr_has "and a probe without data" 3 "absent: no such folder or manifest"
check "nothing is written by any of them" [ ! -e "$work/plan" -a ! -e "$work/nowhere" ]
train overfit --overfit 1 --max-steps 3
check "overfit" code 0

# A folder whose name is no UTF-8 is remembered as it is.
odd=$work/$(printf 'donn\351es')
cp -r "$work/videos" "$odd"
try pretrain -c tests/data/tiny.yaml --data "$odd" --out "$work/odd" -q --max-steps 1
check "a path that is no UTF-8" code 0
try pretrain --out "$work/odd" --resume --max-steps 2
stdout_has "is found again by a resume" 0 "step 2 of"

try pretrain -c tests/data/tiny.yaml --data "$work/absent" --out "$work/x"
check "data that are not there" code 3
mkdir "$work/empty"
try pretrain -c tests/data/tiny.yaml --data "$work/empty" --out "$work/x"
check "a folder without videos" code 3
echo "no video" >"$work/empty/a.mp4"
try pretrain -c tests/data/tiny.yaml --data "$work/empty" --out "$work/x"
check "a file that is no video" code 3
train x dataset.batch_size=100
check "fewer samples than a batch" code 3
check "refused runs leave nothing behind" [ ! -e "$work/x" ]
try pretrain "${tiny[@]}" --out /proc/xkd-run
stderr_has "output that cannot be written" 5 "/proc/xkd-run: cannot make folder"
# A full disk, where this machine lets us make one: a small file system in a name space of our own.
small() { unshare -rm sh -c "mount -t tmpfs -o size=3m none '$work/disk' && $*"; }
mkdir "$work/disk"
if small true 2>/dev/null; then
  small "'$xkd' pretrain ${tiny[*]} --out '$work/disk/run' run.save_steps=1 run.keep_last=9 >'$work/.stdout' 2>'$work/.stderr'; echo \$? >'$work/.rc'; ls '$work/disk/run/checkpoints' >'$work/.list'"
  rc=$(cat "$work/.rc") out="" err=$(cat "$work/.stderr")
  stderr_has "no space left" 5 "(free some space, then give the command again; a training wants --resume)"
  check "the checkpoints before are still there" grep -qx 'step-00000001.safetensors' "$work/.list"
  check "no half checkpoint is left" [ -z "$(grep tmp "$work/.list")" ]
else
  ok "no space left # SKIP cannot mount a small file system"
fi
finish
