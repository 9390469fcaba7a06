#!/usr/bin/env bash
# What is written for people: on a terminal a bar with its loss and time left, in colour unless NO_COLOR is set; plain lines elsewhere.
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh
here=$PWD
cd "$work"
escape=$(printf '\033')
"$xkd" data synth --out videos --classes 2 --clips 6 --seconds 2 --size 64 -q >/dev/null || exit 1

# In a log: no control sequences, and a line of progress as often as asked for.
XKD_PROGRESS_SECONDS=0 "$xkd" data check videos --out clean.jsonl >/dev/null 2>log
check "a log gets plain lines" grep -qE '^check: [0-9]+ of 12 \([0-9]+ %\), ETA [0-9]+:[0-9]{2}$' log
check "and no control sequences" [ -z "$(grep "$escape" log)" ]
"$xkd" data check videos --out clean.jsonl >/dev/null 2>log
check "but not in the first minute" [ -z "$(grep 'check: ' log)" ]
XKD_PROGRESS_SECONDS=0 "$xkd" data check videos --out clean.jsonl -q >/dev/null 2>log
check "and none with -q" [ ! -s log ]

if ! command -v script >/dev/null; then
  echo "ok a terminal # SKIP no script(1) here"
  finish
fi
train() { # train FILE VARIABLE...: a training on a terminal of 100 columns, each drawing a line of FILE
  local file=$1
  shift
  rm -rf run
  env -u NO_COLOR LC_ALL=C.UTF-8 TERM=xterm "$@" script -qec "stty cols ${columns:-100}; '$xkd' pretrain -c '$here/tests/data/tiny.yaml' --data videos \
    --out run --max-steps 6 progress.print_freq=1000" /dev/null </dev/null 2>&1 | tr '\r' '\n' >"$file"
}
plain() { sed "s/$escape\[[0-9;]*[mK]//g" "$1"; }
train seen
check "a bar with loss, its course, time left and the data's share" bash -c "sed 's/$escape\[[0-9;]*[mK]//g' seen |
  grep -qE '^pretrain \[=+>? *\]  [0-9]+ % 6/[0-9]+  ETA [0-9:]+  loss [0-9.]+ (▁|▂|▃|▄|▅|▆|▇|█){6}  data [0-9]+ %  [0-9.]+ samples/s'"
check "its course in colour" grep -q "$escape\[36m" seen
check "and the bar is gone at the end" [ -z "$(plain seen | tail -n 3 | grep '\[=')" ]
train quiet NO_COLOR=1
check "NO_COLOR: no colour" [ -z "$(grep "$escape\[[0-9;]*m" quiet)" ]
check "but a bar" grep -q '^.*pretrain \[' quiet
train empty NO_COLOR=
check "an empty NO_COLOR is not set" grep -q "$escape\[36m" empty
train ascii LC_ALL=C
check "without UTF-8 the course is ASCII" grep -qE 'loss [0-9.]+ [^ ]*[_#]' ascii
check "and nothing else is there" [ -z "$(LC_ALL=C grep -P '[\x80-\xff]' ascii)" ]
train dumb TERM=dumb
check "TERM=dumb: no control sequences" [ -z "$(grep "$escape" dumb)" ]
columns=40 train narrow
check "a line is cut to the terminal's width, in characters" \
  [ "$(plain narrow | grep '^pretrain \[' | LC_ALL=C.UTF-8 awk '{ if (length($0) > most) most = length($0) } END { print most }')" = 39 ]
short() { env TERM=xterm script -qec "'$xkd' data check videos --out short.jsonl dataset.clip_duration=9" /dev/null </dev/null; }
check "what is wrong with a file is told to its end" grep -q 'shorter than a clip of 9 s' <(short)
bad() { env -u NO_COLOR LC_ALL=C.UTF-8 TERM=xterm "$@" script -qec "'$xkd' inspect nothing" /dev/null </dev/null; }
check "an error is red" grep -q "$escape\[1;31merror: $escape\[0mnothing: cannot open: No such file or directory (check the path)" <(bad)
for name in "$(printf 'a\033[31mb')" "$(printf 'r\351')"; do
  try "$name"
  check "a word that is no command is shown as a terminal may see it" [ "$rc" -eq 2 -a -z "$(LC_ALL=C grep -P '[^\x20-\x7e]' <<<"$err")" ]
  try data "$name"
  stderr_has "nor one of a group" 2 "' is not a command of xkd data"
  check "either" [ -z "$(LC_ALL=C grep -P '[^\x20-\x7e]' <<<"$err")" ]
done
check "NO_COLOR: an error is plain" grep -q 'xkd: error: nothing: cannot open' <(bad NO_COLOR=1)
finish
