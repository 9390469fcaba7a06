#!/usr/bin/env bash
# What a model makes of one clip: files, figures, and what is refused.
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh
here=$PWD
cd "$work"
"$xkd" data synth --out videos --classes 2 --clips 6 --seconds 2 --size 64 -q >/dev/null || exit 1
"$xkd" pretrain -c "$here/tests/data/tiny.yaml" --data videos --out run --max-steps 1 -q >/dev/null 2>&1 || exit 1
clip=videos/train/bounce/00001.mp4
listed() { # listed FOLDER NAME...: all of them are printed and not empty
  local folder=$1 name
  shift
  for name in "$@"; do grep -qxF "$folder/$name" <<<"$out" && [ -s "$folder/$name" ] || return 1; done
}
seconds() { # seconds FILE FIELD: what an index says of it
  "$xkd" data index "$1" --out "$work/one.jsonl" -q >/dev/null 2>&1
  sed -n "2s/.*\"$2\":\([0-9.]*\).*/\1/p" "$work/one.jsonl"
}

# ---- reconstruction: 16 of the 64 patches ([8/2, 32/8, 32/8]) are kept at a ratio of 0.75, 7 of 140 at 0.95 ----
masks="model.fwd_kwargs.vid_mask_ratio=0.75 model.fwd_kwargs.aud_mask_ratio=0.95"
try viz recon run $clip --out a $masks
stdout_has "recon: patches of the picture" 0 "video: 48 of 64 patches masked, mean squared error "
stdout_has "recon: patches of the sound" 0 "audio: 133 of 140 patches masked, mean squared error "
check "recon: all files are there" listed a recon-video.png recon-video.mp4 recon-audio.png recon-audio.mp4
mkdir films && cp a/*.mp4 films
for film in video audio; do
  mkdir "one-$film" && cp "a/recon-$film.mp4" "one-$film"
  check "the $film's film lasts as the clip does" [ "$(seconds "one-$film" video_seconds)" = 1.0 ]
  check "and so does its sound" [ "$(seconds "one-$film" audio_seconds | cut -c1-3)" = 1.0 ]
done
try viz recon run $clip --out b $masks
check "recon repeats to the byte" diff -r a b
try viz recon run $clip --out c --seed 1 $masks
check "another seed, another mask" [ -n "$(cmp a/recon-video.png c/recon-video.png)" ]
try viz recon run $clip --out d --at 0.5 --json $masks
stdout_has "recon as JSON" 0 '{"start": 0.500000, "video": {"patches": 64, "masked": 48, "error": '
check "of another second" [ -n "$(cmp a/recon-video.png d/recon-video.png)" ]
checkpoint=$(ls run/checkpoints/step-*.safetensors)
try viz recon $checkpoint $clip --out e $masks
check "a checkpoint is what its run is" diff -r a e
"$xkd" convert $checkpoint whole.pth -q >/dev/null 2>&1
cp run/config.yaml config.yaml
try viz recon whole.pth $clip --out f $masks
check "and so is a .pth of it" diff -r a f
try viz recon run/backbones/vid_teacher.safetensors $clip --out no
stderr_has "an encoder alone has no decoder" 4 "holds no decoder, so nothing can be reconstructed: name a whole model"
try viz recon run $clip --out no dataset.crop_size=40
stderr_has "clips of another size" 2 "clips of 8x40x40, but the model's video is 8x32x32: set dataset.crop_size, clip_duration and video_fps"

# ---- attention ----
try viz attention run $clip --out g
stdout_has "attention: heads and patches" 0 "video: 2 heads over 64 patches, "
check "attention: all files are there" listed g attention-video.png attention-video.mp4 attention-audio.png \
  attention-audio.mp4 attention.safetensors
try inspect g/attention.safetensors
for line in 'video.attention *float32 *\[2, 4, 4, 4\]' 'audio.attention *float32 *\[2, 1, 5, 28\]' \
  'video.refinement *float64 *\[4, 4, 4\]' 'audio.refinement *float64 *\[1, 5, 28\]'; do
  check "numbers: $line" grep -q "^$line" <<<"$out"
done
try viz attention run $clip --out h --json
share=$(sed -n 's/.*"video": {"heads": 2, "patches": 64, "on_patches": \([0-9.]*\)}.*/\1/p' <<<"$out")
check "the class token's own share is left out" awk -v x="$share" 'BEGIN { exit !(x > 0.9 && x < 1) }'
check "attention repeats to the byte" diff -r g h
try viz attention run/backbones/vid_teacher.safetensors $clip --out i
check "one encoder: its pictures alone" [ "$(ls i)" = "attention-video.mp4
attention-video.png
attention.safetensors" ]
check "and no refinement by what is not there" [ -z "$("$xkd" inspect i/attention.safetensors | grep refinement)" ]
try viz attention run/backbones/vid_teacher.safetensors $clip --out j --audio-model run/backbones/aud_teacher.safetensors
check "two files are one model" diff -r g j
try viz attention run $clip --out k --layer 1
check "another block" [ -n "$(cmp g/attention-video.png k/attention-video.png)" ]
try viz attention run $clip --out no --layer 3
stderr_has "a block that is not there" 2 "layer 3: this encoder has 2 blocks"
try viz attention run $clip --out no --layer 0
stderr_has "before the first block" 2 "layer 0 is before the first block"
if command -v ffmpeg >/dev/null; then
  ffmpeg -v error -i $clip -an -c copy silent.mp4 && ffmpeg -v error -i $clip -vn sound.wav
  try viz attention run silent.mp4 --out l
  stderr_has "a file without sound" 0 "silent.mp4: has no sound at 0 s"
  check "has pictures" [ "$(ls l | tr '\n' ' ')" = "attention-video.mp4 attention-video.png attention.safetensors " ]
  try viz recon run sound.wav --out m
  stderr_has "a file without pictures" 0 "sound.wav: has no pictures at 0 s"
  check "has a spectrogram and a film to hear" [ "$(ls m | tr '\n' ' ')" = "recon-audio.mp4 recon-audio.png " ]
  try viz attention run/backbones/vid_teacher.safetensors sound.wav --out no
  stderr_has "nothing for this encoder" 3 "has nothing at 0 s that this model has an encoder for"
fi
for what in recon attention; do
  try viz $what run
  stderr_has "$what: no clip" 2 "want a MODEL and a CLIP"
  try viz $what run nowhere.mp4
  stderr_has "$what: no such clip" 3 "nowhere.mp4: no such file"
  try viz $what run videos
  stderr_has "$what: a folder" 3 "videos: is a folder: name one of its files"
  try viz $what nowhere $clip
  stderr_has "$what: no such model" 4 "nowhere: no such model"
  try viz $what run $clip --at 2.5 --out no
  stderr_has "$what: behind the end" 3 "ends at 2.000 s, before the clip begins at 2.500 s"
  try viz $what run $clip --at -1
  stderr_has "$what: no second" 2 "--at must be a second of the file"
  printf 'no video' >text.mp4
  try viz $what run text.mp4 --out no
  check "$what: no video" code 3
  : >file
  try viz $what run $clip --out file/in
  check "$what: no place" code 5
done
check "nothing is left of what failed" [ ! -e no ]
finish
