#!/usr/bin/env bash
# Several processes that train one model: the bits of one process, stops and resumes on other numbers of them, and what
# the others do when one is lost.
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh
tiny=$PWD/tests/data/tiny.yaml golden=$PWD/tests/golden
cd "$work" || exit 1
"$xkd" data synth --out toys --classes 3 --clips 10 --seconds 2 --size 64 --seed 1 -q >/dev/null || exit 1
"$xkd" data index toys --out toys.jsonl -q >/dev/null || exit 1
base=(-c "$tiny" --data toys.jsonl data.workers=1 run.peer_timeout=20)
again=(--data toys.jsonl --resume) # with the configuration of the run
short=(hyperparams.num_epochs=3)
model() { cat "$1"/backbones/*.safetensors | sha256sum; }
figures() { cut -d, -f1-14 "$1/metrics.csv"; } # not the times
same() { [ "$(model "$1")" = "$(model "$2")" ] && cmp -s <(figures "$1") <(figures "$2"); }

try pretrain "${base[@]}" "${short[@]}" --out one2 train.accumulate=2
check "one process, two micro-batches" code 0
try pretrain "${base[@]}" "${short[@]}" --out two --ranks 2
stderr_has "two ranks" 0 "2 ranks: 0-1 on "
check "have the bits of two micro-batches" same one2 two
check "and one rank speaks" [ "$(grep -c '^step' <<<"$out")" = 1 -a "$(grep -c 'epoch 1 step' two/train.log)" -le 1 ]
try pretrain "${base[@]}" "${short[@]}" --out one4 train.accumulate=4
try pretrain "${base[@]}" "${short[@]}" --out four --ranks 4
check "four ranks have those of four" same one4 four
try pretrain "${base[@]}" "${short[@]}" --out twice --ranks 2 train.accumulate=2 run.device=guard
check "and two with two each, on memory that the host cannot read" same one4 twice

try pretrain "${base[@]}" "${short[@]}" --out half --ranks 2 train.wire=bfloat16
ends() { tail -n 1 "$1/metrics.csv" | cut -d, -f12; }
check "in bfloat16 between ranks: other bits, nearly the same loss" [ "$rc" -eq 0 -a "$(model half)" != "$(model two)" -a \
  "$(awk -v a="$(ends half)" -v b="$(ends two)" 'BEGIN { d = a - b; print (d < 0 ? -d : d) < 0.03 * b }')" = 1 ]

# Stopped and resumed on other numbers of ranks.
for ranks in 4 1 2; do
  case $ranks in 4) steps=2 ;; 1) steps=5 ;; *) steps=0 ;; esac
  if [ -e moved ]; then how=("${again[@]}"); else how=("${base[@]}" "${short[@]}"); fi
  try pretrain "${how[@]}" --out moved --ranks $ranks --max-steps $steps
  check "$ranks ranks go on" code 0
done
check "with the bits of one that never stopped" same one4 moved
for run in "whole16 0" "parts16 2"; do
  try pretrain "${base[@]}" "${short[@]}" --out ${run% *} --ranks 2 --max-steps ${run#* } run.precision=bfloat16
done
try pretrain "${again[@]}" --out parts16 --ranks 2
check "likewise where weights have working copies in bfloat16" same whole16 parts16
try pretrain "${again[@]}" --out two --ranks 3 dataset.batch_size=6
stderr_has "a number that cannot share the micro-batches" 2 "cannot be shared by 3 ranks, and other ones would change the losses: use 1, 2 ranks"
try pretrain "${base[@]}" "${short[@]}" --out grouped --ranks 2 --max-steps 2 dataset.batch_size=12 model.fwd_kwargs.mmd_group=2
try pretrain "${again[@]}" --out grouped --ranks 3
check "groups of a fixed size go with any" code 0
try pretrain "${base[@]}" --out no --ranks 3
stderr_has "a batch that does not divide" 2 "cannot be shared by 3 ranks with 1 micro-batches each: the nearest batch that can is 6 or 9"
try pretrain "${base[@]}" --out no --ranks 3 dataset.batch_size=2
stderr_has "or is too small" 2 "the nearest batch that can is 3"
try pretrain "${base[@]}" --ranks 4 --dry-run --json
check "a plan for ranks" grep -q '"micro_batch": 2' <<<"$out"
try pretrain "${base[@]}" --out no --ranks -1
stderr_has "no number of ranks" 2 "--ranks wants a number from 1 to 4096"

# Recorded steps; golden/test_replay compares their numbers.
try replay "$golden/xkd_groups" --out recorded --ranks 4
check "a recording whose samples four ranks share" [ "$rc" -eq 0 -a "$(wc -l <<<"$out")" -eq 3 -a -s recorded/state.safetensors ]
try replay "$golden/xkd_groups" --out no --ranks 3
stderr_has "and three cannot" 2 "8 samples a step cannot be shared by 3 ranks"
try replay "$golden/xkd_groups" --out no --ranks 8
stderr_has "a rank with less than a group" 2 "mmd_group=2 does not divide the (micro-)batch of 1 samples"
try replay "$golden/xkd_groups" --out no --ranks 2 --device ref --dtype f64
stderr_has "float64 is for one process" 2 "train in float64 as one process, without ranks"

# As torchrun starts them: each by itself, with its place in the environment.
port=$((20000 + RANDOM % 20000))
rank() { # rank NUMBER OF ARG...
  RANK=$1 WORLD_SIZE=$2 LOCAL_RANK=$1 MASTER_ADDR=localhost MASTER_PORT=$port "$xkd" pretrain "${base[@]}" "${@:3}" \
    >"rank$1.out" 2>"rank$1.err" </dev/null
}
rank 1 2 "${short[@]}" --out torch & other=$!
rank 0 2 "${short[@]}" --out torch
check "torchrun's variables" [ $? -eq 0 ]
wait $other
check "the other rank ends well and in silence" [ $? -eq 0 -a ! -s rank1.out -a ! -s rank1.err ]
check "with the same bits" same one2 torch
# A recording that one of two machines lacks: that rank names the file, the other one the rank, and neither waits.
port=$((port + 1)) began=$SECONDS
RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 MASTER_ADDR=localhost MASTER_PORT=$port \
  "$xkd" replay missing --out no >/dev/null 2>rank1.err </dev/null & other=$!
RANK=0 WORLD_SIZE=2 LOCAL_RANK=0 MASTER_ADDR=localhost MASTER_PORT=$port try replay "$golden/xkd_groups" --out no
check "a recording that one rank lacks" [ "$rc" -eq 7 -a -n "$(grep 'rank 1 (.*) ended with an error (exit code 2)' <<<"$err")" ]
wait $other
check "is named there, at once" [ $? -eq 2 -a -n "$(grep 'missing/config.yaml: cannot open' rank1.err)" -a $((SECONDS - began)) -lt 30 ]
try_rank() { # keeps what rank 1 said
  rank "$@" & local first=$!
  wait $first
}
# both ARGS0 ARGS1: two ranks with different arguments; codes in rc0 and rc1.
both() {
  port=$((port + 1))
  rank 1 2 $2 & other=$!
  rank 0 2 $1
  rc0=$?
  wait $other
  rc1=$?
}
said() { # said NAME CODE0 CODE1 PART-OF-RANK-1
  rc="$rc0 $rc1" out=$(cat rank0.err) err=$(cat rank1.err)
  check "$1" [ "$rc0" = "$2" -a "$rc1" = "$3" -a -z "${err##*"$4"*}" ]
}
both "--out other" "--out other train.seed=4"
said "another configuration" 7 2 "the configuration of rank 1"
check "is named" grep -q "'seed: 4' and not 'seed: 0'" rank1.err
check "to the others too" grep -q "rank 1 (.*) ended with an error (exit code 2)" rank0.err
check "and no folder is made" [ ! -e other ]
grep -v 00001 toys.jsonl >fewer.jsonl
both "--out other" "--out other --data fewer.jsonl"
said "fewer files" 7 2 "files and rank 0"
sed '$s/"bytes":[0-9]*/"bytes":77/' toys.jsonl >others.jsonl
both "--out other" "--out other --data others.jsonl"
said "other files" 7 2 "finds other files than rank 0"
# The ranks of a host have one copy of the list. A rank whose manifest is another file reads that one, to the same bits.
cp toys.jsonl copied.jsonl
shares() { grep -c "one copy for $1 ranks of this host" rank0.err; }
both "${short[*]} -v --out together" "${short[*]} -v --out together"
check "ranks of a host share one list" [ "$rc0 $rc1 $(shares 2)" = "0 0 1" ]
check "to the same bits" same one2 together
mkdir -p elsewhere && ln -sfn ../toys elsewhere/toys && cp toys.jsonl elsewhere/toys.jsonl
both "${short[*]} -v --out together --force" "${short[*]} -v --out together --force --data copied.jsonl"
check "a rank that names a copy has a list of its own" [ "$rc0 $rc1 $(shares 2)" = "0 0 0" ]
check "to the same bits" same one2 together
both_apart() { # as on two machines: the same names, other files
  port=$((port + 1))
  (cd elsewhere && rank 1 2 "${short[@]}" -v --out together2) & other=$!
  rank 0 2 "${short[@]}" -v --out together2
  rc0=$?
  wait $other
  rc1=$?
}
both_apart
check "ranks that see other files have lists of their own" [ "$rc0 $rc1 $(shares 2)" = "0 0 0" ]
check "to the same bits as well" same one2 together2
both "--out other run.max_steps=3" "--out other run.max_steps=4"
said "another end" 7 2 "max_steps: 4"
WORLD_SIZE=2 try pretrain "${base[@]}" --out other
stderr_has "half a place" 2 "RANK, MASTER_ADDR and MASTER_PORT are not all set"

# Supervised training: batch norm, dropout and mixed clips go by micro-batch, whichever rank has it; tests share the files.
tuned=(one2 toys.jsonl hyperparams.num_epochs=2 dataset.batch_size=6 eval.batch_norm=true eval.dropout=0.3 data.workers=1 run.threads=1)
head_of() { "$xkd" diff "$1/classifier.safetensors" "$2/classifier.safetensors" >/dev/null && cmp -s "$1/tests.jsonl" "$2/tests.jsonl"; }
for command in finetune linear; do
  try $command "${tuned[@]}" --out ${command}1 train.accumulate=2
  check "$command in one process" code 0
  try $command "${tuned[@]}" --out ${command}2 --ranks 2
  check "$command by two ranks has the same bits and figures" head_of ${command}1 ${command}2
  check "and tells them once" [ "$rc" -eq 0 -a "$(grep -c '^classifier' <<<"$out")" = 1 ]
  try $command "${tuned[@]}" --out ${command}3 --ranks 2 --max-steps 5
  try $command --out ${command}3 --resume
  check "$command goes on with one" head_of ${command}1 ${command}3
done
try finetune "${tuned[@]}" --out no --ranks 4
stderr_has "a batch that four cannot share" 2 "the nearest batch that can is 4 or 8"

# Features: every rank does its part of the files, and the result is that of one process.
try embed one2 toys.jsonl --out one.safetensors
try embed one2 toys.jsonl --out three.safetensors --ranks 3
check "features by three ranks" cmp -s one.safetensors three.safetensors
check "without parts left" [ -z "$(ls three.safetensors.rank* 2>/dev/null)" -a "$(grep -c ' files, 0 unreadable' <<<"$out")" = 1 ]
try embed one2 toys/test/orbit --out few.jsonl --ranks 4
stdout_has "more ranks than files" 0 "few.jsonl: 2 files, 0 unreadable"
try embed one2 toys.jsonl --out no.safetensors --ranks 2 --shard 1/2
stderr_has "shards and ranks" 2 "exclude each other"
mixed=$(ls toys/train/orbit | head -n 1)
cp -r toys/train some && head -c 300 /dev/urandom >some/orbit/"$mixed"
try embed one2 some --out some1.safetensors data.max_bad_fraction=0.5
try embed one2 some --out some2.safetensors data.max_bad_fraction=0.5 --ranks 2
check "a file that cannot be read" cmp -s some1.safetensors some2.safetensors
try embed one2 some --out some3.safetensors data.max_bad_fraction=0.01 --ranks 2
stderr_has "too many of them all" 3 "1 of 24 files could not be read, more than data.max_bad_fraction allows"
try svm one2 toys.jsonl --out svm1 --subsample 2
figures=$(grep -v 'clips of' <<<"$out")
try svm one2 toys.jsonl --out svm2 --subsample 2 --ranks 2
check "an SVM's features by two ranks" [ "$rc" -eq 0 -a -n "$figures" -a "$figures" = "$(grep -v 'clips of' <<<"$out")" ]
try svm one.safetensors --ranks 2
stderr_has "an SVM on features has no use for ranks" 2 "--ranks is for MODEL and a manifest"

# A check: every rank decodes its part of the files, and rank 0 says and writes what one process would.
length=(dataset.clip_duration=2 model.kwargs.num_frames=16 run.peer_timeout=20)
try data check some --out checked1.jsonl --hash head "${length[@]}"
report=${out/checked1/checked3} first=$rc
try data check some --out checked3.jsonl --hash head --ranks 3 "${length[@]}"
check "a check by three ranks" [ "$rc" -eq 3 -a "$first" -eq 3 -a "$out" = "$report" ]
check "writes the manifest of one process" cmp -s checked1.jsonl checked3.jsonl
check "and leaves no log" [ -z "$(ls checked3.jsonl.partial* 2>/dev/null)" ]
try data check toys/test/orbit --out few1.jsonl "${length[@]}"
report=${out/few1/few2}
try data check toys/test/orbit --out few2.jsonl --ranks 4 "${length[@]}"
check "by more ranks than files" [ "$rc" -eq 0 -a "$out" = "$report" -a -n "$(cmp few1.jsonl few2.jsonl && echo same)" ]
printf '{"path":"gone/a.mp4"}\n{"path_base64":"%s"}\n' "$(printf 'gone/\377.mp4' | base64)" >gone.jsonl
try data check gone.jsonl --out gone-clean.jsonl "${length[@]}"
report=$out
try data check gone.jsonl --out gone-clean.jsonl --ranks 2 "${length[@]}"
check "a name that is no UTF-8 is told alike" [ "$rc" -eq 3 -a "$out" = "$report" ]
# Ranks tell each other of 65 536 files at a time.
awk 'BEGIN { for (i = 0; i < 70000; i++) printf "{\"path\":\"gone/%d.mp4\"}\n", i }' >rounds.jsonl
try data check rounds.jsonl --out rounds-clean.jsonl -q
report=$out
try data check rounds.jsonl --out rounds-clean.jsonl -q --ranks 3 run.peer_timeout=20
check "more files than ranks tell each other of at a time" [ "$rc" -eq 3 -a "$out" = "$report" -a "$(grep -c missing <<<"$out")" -ge 70000 ]
try data check toys --out short.jsonl dataset.clip_duration=9 --ranks 2 run.peer_timeout=20
stderr_has "none in order" 0 "none of 30 files is in order, and short.jsonl is not written"
# A rank that never comes: FILE of -c says how long it is waited for, KEY=VALUE more than that.
echo 'run: {peer_timeout: 1}' >hasty.yaml
alone() { RANK=0 WORLD_SIZE=2 LOCAL_RANK=0 MASTER_ADDR=localhost MASTER_PORT=$((port + 40)) try "$@"; }
alone data check toys --out never.jsonl -c hasty.yaml
stderr_has "run.peer_timeout of a file counts" 7 "rank 1 of 2 did not come within 1 s (run.peer_timeout)"
alone data check toys --out never.jsonl -c hasty.yaml run.peer_timeout=2
stderr_has "and less than KEY=VALUE" 7 "rank 1 of 2 did not come within 2 s (run.peer_timeout)"
alone embed two toys --out never.safetensors -c hasty.yaml
stderr_has "for embed too" 7 "rank 1 of 2 did not come within 1 s (run.peer_timeout)"
for k in $(seq 12); do cp -rl toys/train "many$k" && mkdir -p many && mv "many$k" "many/part$k"; done
"$xkd" data index many --out many.jsonl -q >/dev/null
"$xkd" data check many.jsonl --out stopped.jsonl --ranks 3 --workers 1 "${length[@]}" >/dev/null 2>&1 &
pid=$!
begun() { [ "$(cat stopped.jsonl.partial* 2>/dev/null | grep -c '"check"')" -gt 5 ]; }
for _ in $(seq 1000); do begun && break; sleep 0.01; done
kill -INT $pid
wait $pid
check "Ctrl-C stops all ranks" [ $? -eq 130 -a ! -e stopped.jsonl -a -e stopped.jsonl.partial-2 ]
try data check many.jsonl --out stopped.jsonl --ranks 2 "${length[@]}"
check "another number of them goes on" grep -qE 'going on: [0-9]+ of 288 files are done' <<<"$err"
try data check many.jsonl --out never.jsonl "${length[@]}"
check "to the same manifest" cmp -s never.jsonl stopped.jsonl
check "and the logs of all go" [ -z "$(ls stopped.jsonl.partial* 2>/dev/null)" ]

# Signals and losses in the middle of a run. begin NAME RANKS ARG...: starts one, and waits for its first steps.
begin() {
  local name=$1 ranks=$2
  shift 2
  "$xkd" pretrain "${base[@]}" hyperparams.num_epochs=4000 --out "$name" --ranks "$ranks" run.save_steps=2 "$@" \
    >"$name.out" 2>"$name.err" </dev/null &
  launcher=$!
  for _ in $(seq 1000); do lines "$name/metrics.jsonl" 4 && break; kill -0 $launcher 2>/dev/null || break; sleep 0.02; done
}
lines() { [ -s "$1" ] && [ "$(wc -l <"$1")" -gt "$2" ]; }
ended() {
  wait $launcher
  rc=$? out=$(cat "$1.out") err=$(cat "$1.err")
}
begin term 2
kill -TERM $launcher
ended term
stderr_has "SIGTERM stops all ranks and saves" 75 "stopped by signal 15"
check "and is said once" [ "$(grep -c 'stopped by' term.err)" = 1 ]
begin int 3 dataset.batch_size=6
kill -INT $(ranks_of $launcher | sed -n 3p)
ended int
stderr_has "a signal to one rank stops all" 130 "stopped by signal 2"
try pretrain "${again[@]}" --out int --ranks 1 --max-steps 40
check "and the run goes on" code 0
for victim in 1 2; do
  begin kill$victim 2
  pid=$(ranks_of $launcher | sed -n ${victim}p)
  kill -KILL "$pid"
  # A process that waits for its disk ends when the disk has answered: the others are measured from there on.
  for _ in $(seq 6000); do [ -e /proc/$pid ] && ! grep -q '^State:.Z' /proc/$pid/status 2>/dev/null || break; sleep 0.01; done
  start=$(date +%s)
  ended kill$victim
  stderr_has "rank $((victim - 1)) is killed" 7 "rank $((victim - 1)) ("
  check "and the others end at once" [ $(($(date +%s) - start)) -lt 10 ]
  try verify kill$victim/checkpoints/*.safetensors
  check "their checkpoint is whole" code 0
done
begin stop 2 run.peer_timeout=2
pid=$(ranks_of $launcher | sed -n 2p)
kill -STOP "$pid"
for _ in $(seq 400); do grep -q 'no sign of life' stop.err && break; sleep 0.02; done
kill -CONT "$pid"
ended stop
stderr_has "a rank that is stopped is lost" 7 "no sign of life for 2 s"
begin gone 2
kill -KILL $launcher
wait $launcher 2>/dev/null
for _ in $(seq 1000); do pgrep -f "$work/gone|--out gone" >/dev/null || break; sleep 0.02; done
check "ranks whose starter dies save and end" [ -z "$(pgrep -f -- '--out gone')" ]
check "like by SIGTERM" grep -q "stopped by signal 15" gone.err

# Under mpirun messages go through MPI, whose module lies beside the program. As root it runs in this test alone.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0
if command -v mpirun >/dev/null && [ -e "$(dirname "$xkd")/libxkd-mpi.so" ]; then
  mpi() { # mpi RANKS ARG...
    out=$(mpirun --oversubscribe --bind-to none -n "$@" 2>"$work/.stderr" </dev/null)
    rc=$? err=$(cat "$work/.stderr")
  }
  mpi 2 "$xkd" pretrain "${base[@]}" "${short[@]}" -v --out mpi
  stderr_has "two ranks of mpirun share one list" 0 "one copy for 2 ranks of this host"
  check "have the same bits" same one2 mpi
  mpi 3 "$xkd" pretrain "${again[@]}" --out grouped hyperparams.num_epochs=5
  check "three go on with the run of others" code 0
  (
    for _ in $(seq 1000); do lines mpikill/metrics.jsonl 4 && break; sleep 0.02; done
    pkill -KILL -n -f -- '--out mpikill'
  ) &
  mpi 2 "$xkd" pretrain "${base[@]}" --out mpikill hyperparams.num_epochs=4000 run.save_steps=2
  check "a rank that is killed is named" [ "$rc" -ne 0 -a -n "$(grep 'is lost: its process ended' <<<"$err")" ]
  try verify mpikill/checkpoints/*.safetensors
  check "the checkpoint is whole" code 0
  try doctor --quick
  stdout_has "doctor knows MPI" 0 "MPI (mpirun, srun): "
else
  echo "ok mpirun # SKIP there is no MPI"
fi
cp "$xkd" alone
OMPI_COMM_WORLD_SIZE=2 xkd=./alone try pretrain "${base[@]}" --out none
stderr_has "mpirun without the module" 9 "libxkd-mpi.so is neither beside the program nor in "

# Files that cannot be read count over all ranks, and rank 0 writes them down.
mkdir broken
cp -r toys/train broken/train
for f in $(ls broken/train/*/*.mp4 | head -n 3); do head -c 300 /dev/urandom >"$f"; done
bad=(--data broken hyperparams.num_epochs=2 data.max_bad_fraction=0.5)
try pretrain "${base[@]}" "${bad[@]}" --out bad1 train.accumulate=2
one=$(cut -d, -f2- bad1/bad_clips.jsonl | sort)
try pretrain "${base[@]}" "${bad[@]}" --out bad2 --ranks 2
check "bad clips of all ranks" [ "$rc" -eq 0 -a -n "$one" -a "$one" = "$(cut -d, -f2- bad2/bad_clips.jsonl | sort)" ]
check "each named once" [ "$(grep -c 'xkd: warning: .*mp4: ' <<<"$err")" = 3 ]
for f in $(ls broken/train/*/*.mp4 | head -n 14); do head -c 300 /dev/urandom >"$f"; done
try pretrain "${base[@]}" --data broken hyperparams.num_epochs=9 data.max_bad_fraction=0.1 --out bad3 --ranks 2
stderr_has "too many end the run on all" 3 "cannot be read, more than data.max_bad_fraction allows"
check "by one sentence" [ "$(grep -c 'more than data.max' <<<"$err")" = 1 ]
finish
