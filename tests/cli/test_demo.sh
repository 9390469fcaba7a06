#!/usr/bin/env bash
# The demo's script on a tenth of its videos and two steps: its last screen has five lines with figures, and what it names is there.
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh
demo=$work/demo
# The script runs the build at hand; it stands in a folder of its own, as in a tree.
mkdir -p "$work/tree/build"
ln -s "$PWD/scripts" "$PWD/configs" "$work/tree/"
ln -s "$xkd" "$work/tree/build/xkd"
sed "s|^cd .*|cd '$work/tree'|" scripts/demo >"$work/script"
bash "$work/script" --short "$demo" >"$work/log" 2>&1
rc=$? out=$(tail -n 6 "$work/log") err=$(head -n 30 "$work/log")
check "the demo ends well" code 0
check "its last screen is kept" [ "$out" = "$(tail -n 6 "$demo/summary.txt")" ]
check "a heading" grep -qE '^== what was learnt, without labels, in [0-9]+ seconds$' "$demo/summary.txt"
figures='[0-9]+ %'
check "pictures before and after" \
  grep -qE "^Pictures: nearest neighbours name the motion of $figures of 20 new videos \(untrained $figures, guessing 10 %\)" "$demo/summary.txt"
check "sounds before and after" grep -qE "^Sounds: .* of $figures \(untrained $figures," "$demo/summary.txt"
check "pictures against sounds" grep -qE "^Both: .* for $figures \(untrained $figures," "$demo/summary.txt"
for file in run/report.html map.html run/backbones/vid_teacher.safetensors untrained/features.safetensors; do
  check "there is $file" [ -s "$demo/$file" ]
done
# The untrained model is the one that training began with, and the figures of a second call are those of the first.
check "the untrained model has not moved" grep -q '^1,0,' "$demo/untrained/metrics.csv"
bash "$work/script" --short "$demo" >"$work/again" 2>&1
check "a second call repeats the figures" [ "$(tail -n 5 "$work/again")" = "$(tail -n 5 "$work/log")" ]
check "and trains nothing" [ -z "$(grep 'pre-training' "$work/again")" ]
check "nothing lands beside the demo's folder" [ "$(ls "$work/tree")" = "build
configs
scripts" ]
scripts/draw-screen "make demo" "$demo/summary.txt" >"$work/demo.svg"
check "a picture of the last screen" grep -q '>Pictures: nearest neighbours' "$work/demo.svg"
printf 'a <b> & "c"\n' >"$work/odd"
check "its text is escaped" grep -qF '>a &lt;b&gt; &amp; "c"<' <(scripts/draw-screen x "$work/odd")
finish
