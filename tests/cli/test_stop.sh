#!/usr/bin/env bash
# Signals: every command ends at once or keeps what it has found, and goes on with it.
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh
tiny=$PWD/tests/data/tiny.yaml
cd "$work" || exit 1
"$xkd" data synth --out toys --classes 3 --clips 40 --seconds 2 --size 64 --seed 1 -q >/dev/null || exit 1

# begun SIGNAL WAIT ARG...: runs xkd, sends the signal once the shell words WAIT hold, keeps exit code and stderr.
begun() {
  local signal=$1 wait=$2 pid start
  shift 2
  "$xkd" "$@" >"$work/.stdout" 2>"$work/.stderr" </dev/null &
  pid=$!
  for _ in $(seq 1000); do eval "$wait" && break; kill -0 $pid 2>/dev/null || break; sleep 0.005; done
  start=$(date +%s%N)
  kill -"$signal" $pid 2>/dev/null
  wait $pid
  rc=$? out=$(cat "$work/.stdout") err=$(cat "$work/.stderr")
  took=$((($(date +%s%N) - start) / 1000000))
}
lines() { [ -s "$1" ] && [ "$(wc -l <"$1")" -gt "$2" ]; }
clip=(dataset.clip_duration=2 model.kwargs.num_frames=16)

"$xkd" data check toys --out whole.jsonl "${clip[@]}" >whole.txt 2>/dev/null
begun INT 'lines clean.jsonl.partial 20' data check toys --out clean.jsonl --workers 1 "${clip[@]}"
stderr_has "Ctrl-C stops a check" 130 "stopped; the same command goes on"
check "within a second" [ "$took" -lt 1000 ]
check "what was found is kept" [ "$(grep -c '"check"' clean.jsonl.partial)" -ge 19 -a ! -e clean.jsonl ]
touch toys/train/orbit/00000.mp4
head -c 100 <(tail -n 1 clean.jsonl.partial) >>clean.jsonl.partial
try data check toys --out clean.jsonl "${clip[@]}"
check "the same command goes on" grep -qE 'going on: [0-9]+ of 120 files are done' <<<"$err"
untimed() { sed 's/,"modified":[0-9]*//' "$1"; } # one has been touched
check "to the same manifest" cmp -s <(untimed clean.jsonl) <(untimed whole.jsonl)
check "and report" [ "$(sed 's/whole/clean/' whole.txt)" = "$out" ]
check "and the log goes" [ ! -e clean.jsonl.partial ]
begun TERM 'lines clean2.jsonl.partial 20' data check toys --out clean2.jsonl --workers 1 "${clip[@]}"
check "SIGTERM asks to be started again" code 75
try data check toys --out clean2.jsonl dataset.clip_duration=1 model.kwargs.num_frames=8
check "findings of other settings are not taken" [ "$rc" -eq 0 -a -z "$(grep 'going on' <<<"$err")" ]
"$xkd" data index toys --out index.jsonl --hash -q >/dev/null
begun INT 'lines index2.jsonl.partial 10' data index toys --out index2.jsonl --hash --workers 1
check "Ctrl-C stops an index" code 130
try data index toys --out index2.jsonl --hash
check "which goes on to the same manifest" [ "$rc" -eq 0 -a -n "$(cmp index.jsonl index2.jsonl && echo same)" ]
synth=(data synth --out made --classes 3 --clips 40 --seconds 2 --size 64 --seed 1 --workers 1)
begun INT '[ "$(find made -name "*.mp4" 2>/dev/null | wc -l)" -gt 5 ]' "${synth[@]}"
stderr_has "Ctrl-C stops synth" 130 "stopped; the same command goes on"
try data synth --out made --classes 3 --clips 40 --seconds 3
stderr_has "other options do not go on with it" 2 "exists already"
try "${synth[@]}"
check "which goes on to the same files" [ "$rc" -eq 0 -a -z "$(diff -r toys made 2>&1 | grep -v manifest)" ]
try "${synth[@]}"
stderr_has "and then is done" 2 "exists already"

# Signals of schedulers and of terminals that are closed save a training like SIGTERM.
train() { echo pretrain -c "$tiny" --data toys --out "$1" hyperparams.num_epochs=5000 dataset.train.split=; }
for signal in USR2 HUP USR1; do
  begun $signal '[ -s '$signal'/metrics.jsonl ]' $(train $signal)
  stderr_has "SIG$signal saves a training" 75 "the run is saved: --resume goes on"
  check "SIG$signal leaves a checkpoint" [ -n "$(ls $signal/checkpoints)" ]
done
# nohup's SIGHUP stays ignored.
(trap '' HUP; exec "$xkd" $(train nohup) --max-steps 400 -q >/dev/null 2>&1) &
pid=$!
for _ in $(seq 1000); do [ -s nohup/metrics.jsonl ] && break; sleep 0.005; done
kill -HUP $pid
wait $pid
rc=$?
check "a SIGHUP that was ignored at the start stays so" code 0

# What "ulimit -f" forbids is told by who writes it, and ends no program without a word.
err=$( (ulimit -f 1 && "$xkd" data index toys --no-probe --out limited.jsonl) 2>&1 >/dev/null)
rc=$?
stderr_has "a file that may not grow is an error of its own" 5 "limited.jsonl"
# Only files are replaced: a FIFO, as any device, stays what it is.
mkfifo fifo
try data index toys --out fifo
stderr_has "a FIFO is not replaced by a manifest" 5 "fifo: is no regular file"
check "and is still there" [ -p fifo ]

# Commands that have nothing to save end at once, in the middle of a loop too.
begun INT 'sleep 0.5' bench svm --samples 20000 --width 512 --classes 60
check "a loop without end is left at once" [ "$rc" -eq 130 -a "$took" -lt 1000 ]
finish
