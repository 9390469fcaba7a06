#!/usr/bin/env bash
# The probe of a pre-training: it measures the live teachers and leaves the training as it would have been.
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh
"$xkd" data synth --out "$work/videos" --classes 3 --clips 8 --seconds 2 --size 64 -q >/dev/null || exit 1
"$xkd" data index "$work/videos" --out "$work/videos.jsonl" -q >/dev/null || exit 1
"$xkd" data synth --out "$work/held" --classes 3 --clips 5 --seconds 2 --size 64 --seed 7 -q >/dev/null || exit 1
"$xkd" data index "$work/held" --out "$work/held.jsonl" -q >/dev/null || exit 1
tiny=(-c tests/data/tiny.yaml --data "$work/videos.jsonl" hyperparams.num_epochs=4)
probe=(run.probe_epochs=2 run.probe_data="$work/held.jsonl" run.probe_split=train)
train() { local run=$1; shift; try pretrain "${tiny[@]}" --out "$work/$run" "$@"; }
weights() { cat "$work/$1"/backbones/*.safetensors | sha256sum; }
figures() { grep -o '"probe_[a-z0-9_]*": [0-9][0-9.]*' "$work/$1/metrics.jsonl"; }

train without
check "a run without a probe" code 0
check "has no figures" grep -q '"probe_video_knn": null' "$work/without/metrics.jsonl"
train with "${probe[@]}"
stderr_has "a run with a probe" 0 "probe after epoch 2: kNN video "
check "the probe changes no bit of the training" [ "$(weights without)" = "$(weights with)" ]
check "six figures every second epoch" [ "$(figures with | wc -l)" = 12 ]
check "they stand in the rows of the epochs' last steps" [ "$(grep -c '"step": [48].*"probe_audio_recall5": [0-9]' "$work/with/metrics.jsonl")" = 2 ]
check "the report draws them" grep -q ' d="M[^M"]*h0L[^M"]*"' "$work/with/curves/probe-retrieval.svg"
train decoding "${probe[@]}" run.probe_memory=0 run.threads=2
check "decoding anew and more threads give the same figures" [ "$(figures with)" = "$(figures decoding)" ]
check "and the same weights" [ "$(weights without)" = "$(weights decoding)" ]
train stopped --max-steps 3 "${probe[@]}"
try pretrain --out "$work/stopped" --resume
check "a resumed run has the same figures" [ "$(figures with)" = "$(figures stopped)" ]
check "and the same weights" [ "$(weights without)" = "$(weights stopped)" ]
train sound "${probe[@]}" model.fwd_kwargs.modality=audio
check "one modality alone has no retrieval" grep -q '"probe_video_knn": null, "probe_audio_knn": [0-9.]*, "probe_video_recall1": null' "$work/sound/metrics.jsonl"

train x run.probe_epochs=1
stderr_has "a probe without data" 2 "run.probe_epochs needs run.probe_data"
train x run.probe_epochs=1 run.probe_data="$work/held.jsonl" run.probe_split=val
stderr_has "an empty split" 3 "has 0 files of split 'val'"
mkdir -p "$work/broken/a" && cp "$work"/held/train/bounce/0000[01].mp4 "$work/broken/a/" && echo junk >"$work/broken/a/z.mp4"
train x run.probe_epochs=1 run.probe_data="$work/broken"
stderr_has "unreadable files are refused before the training" 3 "1 of 3 files could not be read"
check "and named" grep -q "probe: a/z.mp4" <<<"$err"
check "nothing is left behind" [ ! -e "$work/x" ]
finish
