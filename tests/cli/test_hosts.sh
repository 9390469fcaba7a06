#!/usr/bin/env bash
# Ranks on machines that differ: two hosts, each with a network, a name and addresses of its own, and a wire between them that
# is slow, is cut, or is not there. They are namespaces of this machine, which root alone can make.
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh
tiny=$PWD/tests/data/tiny.yaml
cd "$work" || exit 1
hosts=() # a process that holds each one's namespaces
trap 'kill "${hosts[@]}" 2>/dev/null; rm -rf "$work"' EXIT
command -v ip >/dev/null || { echo "ok two hosts # SKIP no ip(8) here: install iproute2"; finish; }
on() { nsenter -t "${hosts[$1]}" -n -u -- "${@:2}"; } # on HOST COMMAND...
# Their addresses are 10.77.0.1 and fd77::1, 10.77.0.2 and fd77::2.
make_hosts() {
  local i name
  for i in 0 1; do
    name=$([ $i = 0 ] && echo alpha || echo beta)
    unshare -n -u sh -c "hostname $name && echo made >$name && exec sleep 3600" 2>/dev/null &
    hosts+=($!)
    for _ in $(seq 250); do [ -s $name ] && break; sleep 0.02; done
    [ -s $name ] || return 1
  done
  on 0 ip link add wire type veth peer name wire netns "${hosts[1]}" || return 1
  for i in 0 1; do
    on $i ip address add 10.77.0.$((i + 1))/24 dev wire && on $i ip address add fd77::$((i + 1))/64 dev wire nodad &&
      on $i ip link set wire up && on $i ip link set lo up || return 1
  done
}
make_hosts 2>ip.err || { echo "ok two hosts # SKIP this machine makes no namespaces: $(tail -n 1 ip.err)"; finish; }
"$xkd" data synth --out toys --classes 3 --clips 10 --seconds 2 --size 64 --seed 1 -q >/dev/null || exit 1
"$xkd" data index toys --out toys.jsonl -q >/dev/null || exit 1
base=(-c "$tiny" --data toys.jsonl hyperparams.num_epochs=3 data.workers=1)
model() { cat "$1"/backbones/*.safetensors | sha256sum; }
same() { [ -d "$1/backbones" ] && [ "$(model "$1")" = "$(model "$2")" ]; }
port=$((20000 + RANDOM % 20000)) address=10.77.0.1
# rank NUMBER OF ARG...: as torchrun starts them; the first half of them on alpha.
rank() {
  on $(($1 * 2 / $2)) env RANK=$1 WORLD_SIZE=$2 LOCAL_RANK=$(($1 % ($2 / 2))) MASTER_ADDR="$address" MASTER_PORT=$port \
    "$xkd" pretrain "${@:3}" >"rank$1.out" 2>"rank$1.err" </dev/null
}
start() { # start OF ARG...: all of them; their exit codes are in `codes` after `ended`
  port=$((port + 1)) ranks=()
  for ((r = 0; r < $1; r++)); do rank $r "$@" & ranks+=($!); done
}
ended() {
  codes=""
  for pid in "${ranks[@]}"; do wait "$pid"; codes+=" $?"; done
  rc=$codes out=$(cat rank0.out) err=$(tail -n 3 rank*.err)
}
together() { start "$@"; ended; }
# Ranks 0 and 1 are on alpha, 2 and 3 on beta.
each_names_the_other_host() {
  grep -qE 'rank [23] \(beta\)' rank0.err && grep -qE 'rank [23] \(beta\)' rank1.err &&
    grep -qE 'rank [01] \(alpha\)' rank2.err && grep -qE 'rank [01] \(alpha\)' rank3.err
}

try pretrain "${base[@]}" --out one2 train.accumulate=2
try pretrain "${base[@]}" --out one4 train.accumulate=4
together 4 "${base[@]}" --out four
check "two ranks on each of two hosts" [ "$codes" = " 0 0 0 0" ]
check "have the bits of one process" same one4 four
check "and are listed by host" grep -q "4 ranks: 0-1 on alpha, 2-3 on beta" rank0.err
address=fd77::1
together 2 "${base[@]}" --out six
check "over IPv6" [ "$codes" = " 0 0" ]
check "to the same bits" same one2 six
address="fd78::9 10.77.0.1"
together 2 "${base[@]}" --out second
check "an address that does not answer beside one that does" same one2 second
address=10.77.0.1

# mpirun starts its ranks through ssh, in whose place nsenter does.
if ! command -v mpirun >/dev/null || [ ! -e "$(dirname "$xkd")/libxkd-mpi.so" ]; then
  echo "ok mpirun # SKIP there is no MPI"
else
  printf '#!/bin/bash\nexec nsenter -t "$([ "$1" = 10.77.0.1 ] && echo %s || echo %s)" -n -u -- sh -c "${*:2}"\n' "${hosts[@]}" >agent
  printf '10.77.0.%s slots=1\n' 1 2 >hostfile
  chmod +x agent
  out=$(OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 on 0 mpirun --mca plm_rsh_agent "$PWD/agent" --mca btl tcp,self \
    --mca btl_tcp_if_include wire --mca oob_tcp_if_include wire --mca mpi_yield_when_idle 1 --hostfile hostfile -n 2 \
    "$xkd" pretrain "${base[@]}" --out mpi 2>mpi.err </dev/null)
  rc=$? err=$(cat mpi.err)
  check "mpirun on both hosts" grep -q "2 ranks: 0 on alpha, 1 on beta" mpi.err
  check "to the same bits" same one2 mpi
fi

if on 0 tc qdisc add dev wire root netem delay 20ms 2>tc.err; then
  together 2 "${base[@]}" --out slow run.peer_timeout=3
  check "a wire of 20 ms, and nobody counts as lost" same one2 slow
  on 0 tc qdisc del dev wire root
else
  echo "ok a slow wire # SKIP $(tail -n 1 tc.err)"
fi

start 4 "${base[@]}" hyperparams.num_epochs=4000 --out cut run.peer_timeout=3 run.save_steps=3
for _ in $(seq 1500); do [ "$(wc -l 2>/dev/null <cut/metrics.jsonl)" -ge 7 ] 2>/dev/null && break; sleep 0.02; done
on 0 ip link set wire down
began=$SECONDS
ended
check "a cut wire ends the ranks of both hosts" [ "$codes" = " 7 7 7 7" -a $((SECONDS - began)) -le 20 ]
check "each names one of the other host" each_names_the_other_host
on 0 ip link set wire up
together 4 --out cut --data toys.jsonl --resume run.max_steps=12
check "and once it is there again they go on" [ "$codes" = " 0 0 0 0" ]
try pretrain "${base[@]}" hyperparams.num_epochs=4000 --out whole run.max_steps=12 train.accumulate=4
check "to the bits of a run that nobody cut" same whole cut

on 0 ip link set wire down
start 2 "${base[@]}" --out no run.peer_timeout=3
ended
check "hosts that never meet" [ "$codes" = " 7 7" ]
check "say who did not come, and where to" [ -n "$(grep -E 'rank 1' rank0.err)" -a -n "$(grep -E '10\.77\.0\.1' rank1.err)" ]
check "and leave nothing" [ ! -e no ]
finish
