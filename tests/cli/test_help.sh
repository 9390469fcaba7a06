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
# ---- manual pages ----
try help manual
stdout_has "manual page" 0 ".SH CONFIGURATION KEYS"
try help manual --out "$work/man"
check "a page a command is written" code 0
missing="" pages=0
for command in $(list ""); do
  subcommands=$(list "$command")
  for path in ${subcommands:-.}; do
    words="$command" page=$work/man/xkd-$command.1
    [ "$path" = . ] || words="$command $path" page=$work/man/xkd-$command-$path.1
    pages=$((pages + 1))
    [ -s "$page" ] || { missing="$missing $page"; continue; }
    # Every option of its help is in the page.
    for option in $("$xkd" $words --help | sed -n '/^Options:/,/^$/s/^ *\(-.,\)\{0,1\} *--\([a-z0-9-]*\).*/\2/p'); do
      grep -qF -- "\\-\\-${option//-/\\-}" "$page" || missing="$missing $words --$option"
    done
  done
done
check "every command and option has its place" [ -z "$missing" ]
check "and no page is of anything else" [ "$(ls "$work/man"/*.1 | wc -l)" = $((pages + 1)) ]
check "keys have theirs" [ "$(grep -c '^\.TP' "$work/man/xkd-config.5")" = "$("$xkd" help options | grep -c '^[a-z]')" ]
if command -v mandoc >/dev/null; then
  # A page has no date: it would change with every build.
  check "mandoc warns of nothing" [ -z "$(mandoc -Tlint -Wwarning "$work"/man/* | grep -v 'missing date')" ]
fi
if command -v man >/dev/null && command -v groff >/dev/null; then
  check "man warns of nothing" [ -z "$(for page in "$work"/man/*; do man --warnings=w -l "$page" 2>&1 >/dev/null; done)" ]
fi
try help pretrain --out "$work/man"
fails_with "--out is of the manual" 2 "xkd: error: help: --out DIR is for 'help manual'"

# ---- completion ----
"$xkd" completion bash >"$work/completion"
check "completion is a shell script" bash -n "$work/completion"
bash_words() { bash -c ". '$work/completion'; COMP_WORDS=($1 '$2'); COMP_CWORD=$3; _xkd; echo \${COMPREPLY[@]}"; }
check "bash: an option" [ "$(bash_words "xkd pretrain" --re 2)" = "--resume" ]
check "bash: a subcommand" [ "$(bash_words "xkd data" in 2)" = "index" ]
check "bash: its option" [ "$(bash_words "xkd data index" --fo 3)" = "--follow-links" ]
check "bash: a key" [ "$(bash_words "xkd pretrain" hyperparams.lr.base 2)" = "hyperparams.lr.base_lr=" ]
check "bash: a key of a command of a group" [ "$(bash_words "xkd viz attention" data.colou 3)" = "data.colour=" ]
check "bash: no key where none may stand" [ -z "$(bash_words "xkd inspect" hyperparams.lr.base 2)" ]
"$xkd" completion zsh >"$work/_xkd"
"$xkd" completion fish >"$work/xkd.fish"
if command -v zsh >/dev/null; then check "completion is a script of zsh" zsh -n "$work/_xkd"; fi
if command -v fish >/dev/null; then
  check "completion is a script of fish" fish -n "$work/xkd.fish"
  fish_words() { fish -c "source '$work/xkd.fish'; complete -C '$1'" | cut -f 1 | tr '\n' ' '; }
  check "fish: an option" [ "$(fish_words "xkd pretrain --re")" = "--resume " ]
  check "fish: subcommands" [ "$(fish_words "xkd viz ")" = "attention recon " ]
  check "fish: an option of one" [ "$(fish_words "xkd data index --fo")" = "--follow-links " ]
  check "fish: a key" [ "$(fish_words "xkd pretrain hyperparams.lr.base")" = "hyperparams.lr.base_lr= " ]
fi
try completion tcsh
fails_with "completion of another shell" 2 "xkd: error: completion: which shell? bash, zsh or fish"
try doctor --quick
stdout_has "doctor" 0 "oneDNN"
if [ -e /dev/full ]; then
  "$xkd" version >/dev/full 2>"$work/.stderr"
  rc=$? out="" err=$(cat "$work/.stderr")
  fails_with "stdout is full" 5 "xkd: error: cannot write the result to stdout"
fi
finish
