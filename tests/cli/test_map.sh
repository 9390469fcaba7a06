#!/usr/bin/env bash
# A collection as a page: what it holds, that it repeats, and what it refuses.
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh
here=$PWD
cd "$work"
# One name that would be an element.
"$xkd" data synth --out videos --classes 2 --clips 6 --seconds 2 --size 64 -q >/dev/null || exit 1
mv videos/train/bounce/00000.mp4 "videos/train/bounce/a\"b'<i>.mp4"
"$xkd" data index videos --out videos.jsonl -q >/dev/null || exit 1
"$xkd" pretrain -c "$here/tests/data/tiny.yaml" --data videos.jsonl --out run --max-steps 1 -q >/dev/null 2>&1 || exit 1
"$xkd" embed run videos.jsonl --pool head --out heads.safetensors -q >/dev/null 2>&1 || exit 1
"$xkd" embed run videos.jsonl --out means.safetensors -q >/dev/null 2>&1 || exit 1
"$xkd" embed run videos.jsonl --out means.jsonl -q >/dev/null 2>&1 || exit 1
try map heads.safetensors --media videos --out a.html -t 1
stdout_has "a map" 0 "a.html: 12 of 12 files"
try map heads.safetensors --media videos --out b.html -t 2
check "the same bytes again, at another number of threads" cmp -s a.html b.html
check "a policy" grep -q "default-src 'none'" a.html
check "nothing of elsewhere" [ -z "$(grep -aiE '(src|href)="?(https?:|//)|url\(|@import' a.html)" ]
check "a name is a text" grep -qF "a\\\"b'\\u003ci\\u003e.mp4" a.html
check "and never an element" [ -z "$(grep -F '<i>' a.html)" ]
check "a picture for each file" [ "$(grep -o 'data:image/png;base64,iVBOR' a.html | wc -l)" = 12 ]
check "both layouts" grep -q '"pca":\[.*"tsne":\[' a.html
for list in "looks like it" "sounds like it" "sounds like this picture" "looks like this sound"; do
  check "heads: $list" grep -qF "{\"title\":\"$list\"" a.html
done
try map means.safetensors --out means.html --method pca
stdout_has "means" 0 "means.html: 12 of 12 files"
check "across modalities only heads can be compared" [ -z "$(grep 'like this' means.html)" ]
check "PCA alone" [ -z "$(grep '"tsne":' means.html)" ]
check "no pictures without their folder" [ -z "$(grep 'data:image/png;base64,iVBOR' means.html)" ]
try map means.safetensors --modality audio --out sound.html --json
stdout_has "sound alone" 0 '{"points": 12, "files": 12}'
rm "videos/train/bounce/a\"b'<i>.mp4"
try map heads.safetensors --media videos --out lost.html
stderr_has "a file that is gone is named" 0 "has no picture in the map: missing"
check "and stays a point" [ "$(grep -o 'data:image/png;base64,iVBOR' lost.html | wc -l)" = 11 ]
# Of more files than a page holds, 20000 with PCA, every so-manieth.
many() { # many N: features of three numbers
  awk -v n="$1" 'BEGIN { srand(3); for (i = 0; i < n; i++) printf "{\"path\":\"%05d.mp4\",\"modality\":\"video\",\"clip\":0,\"seconds\":0,\"model\":\"m\",\"pool\":\"mean\",\"layer\":-1,\"feature\":[%.4f,%.4f,%.4f]}\n", i, rand(), rand(), rand() }'
}
many 20001 >more.jsonl
try map more.jsonl --method pca -k 2 --out more.html --json
stdout_has "20000 with PCA" 0 '{"points": 20000, "files": 20001}'
check "and the page says so" grep -q '20000 of 20001 files, placed by picture; the others are left out, evenly' more.html
check "the first is there and the last is not" [ "$(grep -o '"00000.mp4"\|"20000.mp4"' more.html)" = '"00000.mp4"' ]
# Sound alone is shown by its waveform.
if command -v ffmpeg >/dev/null; then
  mkdir -p sounds/a
  for name in bounce/00001 bounce/00002 bounce/00003; do ffmpeg -v error -i videos/train/$name.mp4 -vn "sounds/a/${name/\//-}.wav"; done
  "$xkd" embed run sounds --out sounds.safetensors -q >/dev/null 2>&1
  try map sounds.safetensors --media sounds --out waves.html
  stdout_has "a map of sounds" 0 "waves.html: 3 of 3 files"
  check "with a waveform each" [ "$(grep -o 'data:image/png;base64,iVBOR' waves.html | wc -l)" = 3 ]
fi
sed '$s/\[-*[0-9][-0-9.e]*,/[1e39,/' means.jsonl >large.jsonl # infinite as a float
try map large.jsonl --out never.html
check "numbers that are not finite" code 6
try map heads.safetensors --method umap
stderr_has "an unknown method" 2 "--method umap: tsne or pca"
try map heads.safetensors --perplexity 1
stderr_has "a perplexity that is none" 2 "--perplexity must be 2 .. 1000"
try map heads.safetensors --media nowhere
stderr_has "no such folder" 5 "nowhere: is no folder (--media)"
try map
stderr_has "no features" 2 "want one file of features"
check "nothing is left of what failed" [ ! -e never.html ]
finish
