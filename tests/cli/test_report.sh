#!/usr/bin/env bash
# The pages of runs, made anew from what their folders hold.
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh
run=$work/first
mkdir -p "$run" "$work/empty"
printf 'name: one\nhyperparams:\n  num_epochs: 2\n' >"$run/config.yaml"
printf 'step,epoch,loss,recon_loss\n1,0,3,1\n2,0,2,1\n3,1,1,1\n' >"$run/metrics.csv"
try report "$run"

stdout_has "the page's path is printed" 0 "$run/report.html"
check "the verdict is of the files" grep -q '<strong>stopped</strong><p>3 of 4 steps are done.</p>' "$run/report.html"
check "and says what to do" grep -q "Go on: xkd pretrain --out $run --resume" "$run/report.html"
check "curves are written anew" [ -s "$run/curves/loss.svg" ]
cp "$run/report.html" "$work/before"
try report "$run" --out "$work/elsewhere.html" --json
stdout_has "another file" 0 "{\"report\": \"$work/elsewhere.html\"}"
check "of the same bytes" cmp -s "$work/before" "$work/elsewhere.html"
# Three of four steps, as run.max_steps asked.
sed -i '$a run: {max_steps: 3}' "$run/config.yaml"
try report "$run"
check "as far as was asked is finished" \
  grep -q '<strong>finished</strong><p>The 3 steps that run.max_steps asked for are done; the schedule has more.</p>' "$run/report.html"
check "and says how to go on" grep -q "or go on with the schedule: xkd pretrain --out $run --resume" "$run/report.html"
sed -i 's/max_steps: 3/max_steps: 4/' "$run/config.yaml"
try report "$run"
check "less than was asked is stopped" grep -q '<strong>stopped</strong>' "$run/report.html"
sed -i '$d' "$run/config.yaml"
# A process that holds the folder is a run that goes on.
exec 9>"$run/.lock"
flock 9
try report "$run"
check "a run that goes on" grep -q '<strong>running</strong>' "$run/report.html"
exec 9>&-
cp -r "$run" "$work/second"
printf 'name: two\nhyperparams:\n  num_epochs: 2\n' >"$work/second/config.yaml"
try report "$run" "$work/second" --out "$work/both.html"
stdout_has "a comparison" 0 "$work/both.html"
check "shows what differs" grep -q '<td>id</td>\|<td>name</td>' "$work/both.html"
check "and not what is alike" [ -z "$(grep num_epochs "$work/both.html")" ]
try report "$run" "$work/second"
stderr_has "a comparison needs a place" 2 "needs --out FILE"
try report
stderr_has "no run" 2 "name the folder of a run"
try report "$work/empty"
stderr_has "a folder of no run" 5 "$work/empty: holds neither metrics.csv nor config.yaml"
try report "$work/nothing"
stderr_has "no folder" 5 "$work/nothing: is no folder"
# A configuration of another version is shown, and said to be so.
printf 'from_the_future: 1\n' >"$run/config.yaml"
try report "$run"
stderr_has "an unknown key costs the comparison alone" 0 "is shown as it is"
check "and is in the page" grep -q 'from_the_future' "$run/report.html"
finish
