# Helpers of the command line tests; source it. Every check prints one TAP line and the script ends with the number of
# failed ones as its status.
xkd=$(realpath "${XKD_BUILD:-build}")/xkd
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0 out="" err="" rc=0

# try ARG...: runs xkd and keeps stdout, stderr and exit code.
try() {
  out=$("$xkd" "$@" 2>"$work/.stderr" </dev/null)
  rc=$?
  err=$(cat "$work/.stderr")
}

ok() { echo "ok $1"; }
not_ok() {
  echo "not ok $1"
  printf '# exit %s\n# stdout: %s\n# stderr: %s\n' "$rc" "$out" "$err" | head -n 30
  failed=$((failed + 1))
}
check() { # check NAME CONDITION...
  local name=$1
  shift
  if "$@"; then ok "$name"; else not_ok "$name"; fi
}
code() { [ "$rc" -eq "$1" ]; }
# fails_with NAME CODE MESSAGE: the last try ended like this, with nothing on stdout and exactly this on stderr.
fails_with() {
  if [ "$rc" -eq "$2" ] && [ -z "$out" ] && [ "$err" = "$3" ]; then ok "$1"; else not_ok "$1 (wanted $2: $3)"; fi
}
# stderr_has NAME CODE PART
stderr_has() {
  if [ "$rc" -eq "$2" ] && [[ $err == *"$3"* ]]; then ok "$1"; else not_ok "$1 (wanted $2: $3)"; fi
}
# stdout_has NAME CODE PART
stdout_has() {
  if [ "$rc" -eq "$2" ] && [[ $out == *"$3"* ]]; then ok "$1"; else not_ok "$1 (wanted $2: $3)"; fi
}
ranks_of() { pgrep -P "$1" | sort -n; } # ranks_of STARTER: their processes, in order of ranks
finish() { exit "$((failed > 0))"; }
# poison FILE: makes the last number of a safetensors file of float32 NaN, and its checksum one that nobody knows.
poison() {
  LC_ALL=C sed -i 's/xkd\.xxh3_128/xkd.xxh3_129/' "$1"
  printf '\0\0\300\177' | dd of="$1" bs=1 seek="$(($(stat -c %s "$1") - 4))" conv=notrunc status=none
}
