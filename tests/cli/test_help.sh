#!/usr/bin/env bash
# Help, version, completion, and what happens to mistyped commands and options.
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh

try version
check "version" [ "$out" = "xkd 0.1.0" ]
try version --json
check "version as JSON" [ "$out" = '{"version": "0.1.0"}' ]
try version extra
fails_with "argument too many" 2 "xkd: error: version takes no argument 'extra' ('--help' shows its use)"
try
stdout_has "no command shows the overview" 2 "Usage: xkd COMMAND"
try --help
stdout_has "overview" 0 "xkd pretrain --data"
try versoin
fails_with "mistyped command" 2 "xkd: error: 'versoin' is not a command of xkd; did you mean 'version'? ('xkd --help' lists them)"
try zzzzzzzzz
fails_with "unknown command" 2 "xkd: error: 'zzzzzzzzz' is not a command of xkd ('xkd --help' lists them)"
try bench
fails_with "subcommand missing" 2 "xkd: error: xkd bench needs the name of a subcommand ('xkd bench --help' lists them)"
try pretrain --resum
fails_with "mistyped option" 2 "xkd: error: pretrain: unknown option '--resum'; did you mean '--resume'? ('--help' lists them)"
try pretrain --max-steps two
fails_with "option wants a number" 2 "xkd: error: --max-steps wants a number, not 'two'"
try pretrain --out
fails_with "option without value" 2 "xkd: error: --out needs a value: RUN"
try pretrain --resume=yes
fails_with "flag with value" 2 "xkd: error: '--resume=yes': --resume takes no value"
try version --help
stdout_has "help wins over running" 0 "Usage: xkd version"

# Every command explains itself with an example.
list() { "$xkd" $1 --help | sed -n '/^Commands:/,/^$/s/^  \([a-z][a-z-]*\) .*/\1/p'; }
for command in $(list ""); do
  for path in "$command" $(list "$command" | sed "s/^/$command:/"); do
    try ${path/:/ } --help
    if [ -z "$(list "${path/:/ }")" ]; then stdout_has "help of ${path/:/ } has an example" 0 "Example:"; fi
  done
done

try help options model.fwd_kwargs.teacher_view
check "help of one key" [ "$out" = "model.fwd_kwargs.teacher_view
    what teachers see: the global view (paper) or the first local one (released code) [global|local; default global]" ]
try help options model.fwd_kwargs.teacher_veiw
stderr_has "help of a mistyped key" 2 "did you mean 'model.fwd_kwargs.teacher_view'?"
try help nothing
stderr_has "help of nothing" 2 "'nothing' is not a command of xkd"
try help manual
stdout_has "manual page" 0 ".SH CONFIGURATION KEYS"
"$xkd" completion bash >"$work/completion"
check "completion is a shell script" bash -n "$work/completion"
words=$(bash -c ". '$work/completion'; COMP_WORDS=(xkd pretrain --re); COMP_CWORD=2; _xkd; echo \${COMPREPLY[@]}")
check "completion of an option" [ "$words" = "--resume" ]
try completion fish
fails_with "completion of another shell" 2 "xkd: error: completion: the shell must be bash"
try doctor --quick
stdout_has "doctor" 0 "oneDNN"
if [ -e /dev/full ]; then
  "$xkd" version >/dev/full 2>"$work/.stderr"
  rc=$? out="" err=$(cat "$work/.stderr")
  fails_with "stdout is full" 5 "xkd: error: cannot write the result to stdout"
fi
finish
