#!/usr/bin/env bash
# inspect, convert, diff and verify as a user calls them: answers and exit codes.
. "$(dirname "$0")/tap.sh"
golden=tests/golden

try inspect $golden/torch/state.pth
stdout_has "inspect lists tensors" 0 "view.slice  float32   [3, 3]"
stdout_has "inspect says what was checked" 0 "11 tensors, 157 elements, 0.0 MB, checksums agree"
try inspect $golden/backbone/vid_teacher.pth.tar
stdout_has "inspect knows a released backbone" 0 "video backbone, width 32, 2 blocks"
try inspect $golden/torch/checkpoint.pth.tar
stdout_has "inspect knows a training checkpoint" 0 "epoch = 3"
try inspect $golden/xkd/init.safetensors --json
stdout_has "inspect as JSON" 0 '"content": "whole XKD model'
try inspect
fails_with "inspect needs a file" 2 "xkd: error: inspect needs one file or run folder (see 'xkd inspect --help')"
try inspect /nonexistent/x.pth
fails_with "inspect of nothing" 5 "xkd: error: /nonexistent/x.pth: cannot open: No such file or directory (check the path)"
try inspect README.md
stderr_has "inspect of text" 4 "not a tensor file"
# What stands under the name of a checkpoint when a download or a save went wrong is named.
stranger() { # BYTES WORDS
  printf "$1" >"$work/stranger.pth"
  try inspect "$work/stranger.pth"
  stderr_has "inspect of $2" 4 "not a tensor file but $2"
}
stranger '' "empty"
stranger 'version https://git-lfs.github.com/spec/v1\noid sha256:0\n' "a pointer of Git LFS"
stranger '<!DOCTYPE html><title>404</title>' "a web page"
stranger '\x1f\x8b\x08\x00' "compressed by gzip"
stranger '\x28\xb5\x2f\xfd\x00' "compressed by zstd"
stranger '\xfd7zXZ\x00' "compressed by xz"
stranger 'BZh91AY' "compressed by bzip2"
stranger 'GGUF\x03' "GGUF"
stranger '\x80\x04\x95\x00\x00' "a plain pickle"
stranger '\x89HDF\r\n' "HDF5"
(cd "$work" && tar cf stranger.tar stranger.pth && mv stranger.tar stranger.pth)
try inspect "$work/stranger.pth"
stderr_has "inspect of an archive" 4 "a tar archive: unpack it first"

# A run folder is its newest checkpoint.
mkdir -p "$work/trained/checkpoints" "$work/empty/checkpoints"
cp $golden/torch/checkpoint_model.safetensors "$work/trained/checkpoints/step-00000004.safetensors"
cp $golden/xkd/init.safetensors "$work/trained/checkpoints/step-00000012.safetensors"
touch "$work/trained/checkpoints/step-00000099.safetensors.tmp" "$work/empty/checkpoints/notes.txt"
newest=$work/trained/checkpoints/step-00000012.safetensors
try inspect "$work/trained"
stdout_has "inspect of a run folder" 0 "$newest: safetensors, whole XKD model"
try verify "$work/trained"
stdout_has "verify of a run folder" 0 "$newest: ok, safetensors"
try diff "$work/trained" $golden/xkd/init.safetensors
stdout_has "diff of a run folder" 0 "0 tensors differ"
try convert -q "$work/trained" "$work/whole.pth"
check "convert of a run folder" code 0
try diff "$work/whole.pth" "$newest"
stdout_has "takes the same checkpoint" 0 "0 tensors differ"
poison "$newest"
try verify "$work/trained"
stderr_has "verify names the checkpoint that is wrong" 4 "$newest: 1 elements of 1 tensors are not finite"
for command in "inspect $work/empty" "verify $work/empty" "diff $work/empty $work/trained"; do
  try $command
  stderr_has "${command%% *} of a folder without a model" 2 "$work/empty: is a folder with neither model.safetensors nor a run's checkpoints/step-*.safetensors"
done

try convert -q $golden/torch/checkpoint.pth.tar "$work/model.safetensors"
check "convert takes the model of a checkpoint" code 0
try diff "$work/model.safetensors" $golden/torch/checkpoint_model.safetensors
check "and it is the recorded one" code 0
check "the difference is none" [ "$out" = "0 tensors differ" ]
try diff $golden/torch/checkpoint.pth.tar $golden/torch/checkpoint_model.safetensors
stdout_has "diff says what it left out" 0 "6 tensors beside the model in one of the files were left out"
try diff $golden/torch/checkpoint.pth.tar $golden/torch/checkpoint.pth.tar --all
stdout_has "diff compares optimisers" 0 "optimizer.state.0.exp_avg"
printf '\72\0\0\0\0\0\0\0{"a\\"b\\\\":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}x' >"$work/quote.safetensors"
try diff "$work/quote.safetensors" "$work/quote.safetensors" --json
stdout_has "diff as JSON of any tensor name" 0 '{"name": "a\"b\\", "state": "equal"'
try convert -q $golden/torch/checkpoint.pth.tar "$work/model.safetensors"
stderr_has "convert keeps what exists" 5 "--force replaces it"
try convert -q -f --all $golden/torch/checkpoint.pth.tar "$work/model.safetensors"
check "convert --all" code 0
try convert -q -f --all $golden/torch/checkpoint.pth.tar "$work/part.safetensors" --part vid_teacher.backbone
stderr_has "convert --all of a part" 2 "give one of the two"
try convert -q --all $golden/torch/checkpoint.pth.tar "$work/hf-all" --to hf
stderr_has "convert --all to a folder of the model alone" 2 "leave out --all"
check "neither writes anything" [ ! -e "$work/part.safetensors" -a ! -e "$work/hf-all" ]
try inspect "$work/model.safetensors"
stdout_has "keeps the optimiser" 0 "optimizer.state.0.exp_avg"
try convert -q $golden/xkd/init.safetensors "$work/vid.pth.tar" --part vid_teacher.backbone
check "convert takes one network" code 0
try inspect "$work/vid.pth.tar"
stdout_has "under the release's names" 0 "video backbone, width 32"
try convert -q $golden/xkd/init.safetensors "$work/none.pth" --part hello
stderr_has "convert of an unknown part" 2 "it has vid_student"
check "writes nothing" [ ! -e "$work/none.pth" ]
try convert -q $golden/torch/state.pth "$work/state.npz"
stderr_has "numpy has no bfloat16" 2 "bfloat16"
check "and nothing is left" [ -z "$(ls "$work" | grep npz)" ]
try convert -q $golden/torch/state.pth "$work/state.xyz"
stderr_has "convert to an unknown form" 2 "which form?"
try convert -q $golden/backbone/aud_teacher.pth.tar "$work/hf" --to hf
check "convert to a Hugging Face folder" [ -s "$work/hf/config.json" -a -s "$work/hf/README.md" ]
try diff "$work/hf" $golden/backbone/aud_teacher.safetensors
check "which holds the same numbers" [ "$out" = "0 tensors differ" ]
try convert -q -f $golden/backbone/aud_teacher.pth.tar "$work/hf" --to hf
stderr_has "a full folder is kept" 5 "is not empty"
check "which says nothing that is not known" [ -z "$(grep -hoE "num_attention_heads|num_mel_bins" "$work"/hf/*.json)" ]
try convert -q $golden/torch/state.pth "$work/hf2" --to hf
stderr_has "no folder of something else than a model" 2 "is no XKD model"
check "and nothing is written" [ ! -e "$work/hf2" ]

try diff $golden/xkd/init.safetensors $golden/xkd/final.safetensors
check "diff exits 1 where files differ" code 1
stdout_has "diff counts" 1 "184 tensors differ"
try diff $golden/xkd/init.safetensors $golden/xkd/final.safetensors --tolerance 1000
check "diff within a tolerance" code 0
try diff $golden/xkd/init.safetensors $golden/torch/state.pth
stdout_has "diff of strangers" 1 "only in the second"

printf '\136\0\0\0\0\0\0\0{"__metadata__":{"\\u001b[2J":"a\\n\\u009b"},"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}x' >"$work/escapes.safetensors"
try inspect "$work/escapes.safetensors"
stdout_has "inspect escapes what a terminal would obey" 0 '  \x1b[2J = a\x0a\xc2\x9b'
try inspect "$work/escapes.safetensors" --json
stdout_has "as JSON too" 0 '"\u001b[2J": "a\u000a\u009b"'
printf '\76\0\0\0\0\0\0\0{"w":{"dtype":"\\u001b[2J\\n","shape":[1],"data_offsets":[0,1]}}x' >"$work/dtype.safetensors"
try inspect "$work/dtype.safetensors"
fails_with "messages too" 4 "xkd: error: $work/dtype.safetensors: tensor 'w': unknown dtype '\\x1b[2J\\x0a'"

# What would be refused is not written. NAME NAME...: one byte each.
bytes_of() {
  local header="" i=0 name
  for name; do header+="${header:+,}\"$name\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[$i,$((++i))]}"; done
  printf "$(printf '\\x%02x' $(((${#header} + 2) % 256)) $(((${#header} + 2) / 256 % 256)) $(((${#header} + 2) / 65536)))\\0\\0\\0\\0\\0"
  printf '{%s}%*s' "$header" $i ''
}
long=$(printf '%1500s' '' | tr ' ' a)
refused_as() { # FORM NAME...
  local form=$1
  shift
  bytes_of "$@" >"$work/names.safetensors"
  try convert -q "$work/names.safetensors" "$work/names.$form"
  check "names that $form cannot hold are refused ($#)" code 2
  check "and nothing is left" [ ! -e "$work/names.$form" ]
}
refused_as npz W w
refused_as npz ../../etc/x
refused_as npz a a.npy/b
refused_as npz "$long"
refused_as pth "$long"
bytes_of "$long" W w >"$work/names.safetensors"
try convert -q -f "$work/names.safetensors" "$work/again.safetensors"
check "safetensors take all of them" code 0

for type in uint16 uint32 uint64; do
  try convert -q -f "tests/fuzz/corpus/npy/$type" "$work/unsigned.safetensors"
  try diff "$work/unsigned.safetensors" "tests/fuzz/corpus/npy/$type"
  check "$type from npy to safetensors" [ "$out" = "0 tensors differ" ]
done
try convert -q "$work/unsigned.safetensors" "$work/unsigned.pth"
stderr_has "not to PyTorch" 2 "is uint64, which this form does not have"

# A header of 17 MiB, nearly all of it blanks.
{ printf '\0\0\20\1\0\0\0\0{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'; printf '%*s' $((17 * 1048576 - 53)) ''; printf x; } >"$work/wide.safetensors"
try inspect "$work/wide.safetensors"
stderr_has "a header over the limit" 4 "header of 17825792 bytes, more than 16777216"
for command in inspect verify; do
  try $command --header-limit 17 "$work/wide.safetensors"
  stdout_has "$command with a raised limit" 0 "1 tensors"
done
try diff --header-limit 17 "$work/wide.safetensors" "$work/wide.safetensors"
stdout_has "diff with a raised limit" 0 "0 tensors differ"
try convert -q --header-limit 17 "$work/wide.safetensors" "$work/narrow.safetensors"
check "convert with a raised limit" code 0
try inspect --header-limit 2000 "$work/wide.safetensors"
stderr_has "the limit has a limit" 2 "--header-limit is 1 to 1024 MiB"

# One tensor "w" of three elements; its numbers are given as bytes.
tensor_of() { printf "\\x$(printf %x $((53 + ${#2})))\\0\\0\\0\\0\\0\\0\\0"'{"w":{"dtype":"'"$1"'","shape":[3],"data_offsets":[0,'"$2"']}}'"$3"; }
nan='\0\0\300\177' one='\0\0\200\77' five='\0\0\240\100' zero='\0\0\0\0'
tensor_of F32 12 "$nan$one$one" >"$work/nan.safetensors"
tensor_of F32 12 "$five$one$one" >"$work/five.safetensors"
try diff "$work/nan.safetensors" "$work/five.safetensors" --tolerance 1000
stdout_has "diff does not lose a NaN" 1 "other values       max inf, relative inf, 1 elements"
try diff "$work/nan.safetensors" "$work/nan.safetensors"
stdout_has "which equals itself" 0 "0 tensors differ"
tensor_of I64 24 "$zero$zero$zero$zero\\0\\0\\0\\0\\0\\0\\40\\0" >"$work/2^53.safetensors"
tensor_of I64 24 "$zero$zero$zero$zero\\1\\0\\0\\0\\0\\0\\40\\0" >"$work/more.safetensors"
try diff "$work/2^53.safetensors" "$work/more.safetensors"
stdout_has "diff compares integers exactly" 1 "max 1, relative 1.11022e-16, 1 elements"

try verify $golden/torch/state.pth $golden/backbone/vid_teacher.safetensors
stdout_has "verify" 0 "all finite"
# Every hostile file: exit 4, one line, nothing written.
bad=""
while read -r name _; do
  try convert "tests/failure/hostile/$name" "$work/hostile.safetensors"
  if [ "$rc" -ne 4 ] || [ -n "$out" ] || [ "$(wc -l <"$work/.stderr")" -ne 1 ] || [[ $err != "xkd: error: tests/failure/hostile/$name: "* ]] ||
    [ -n "$(find "$work" -name 'hostile*')" ]; then bad+=" $name"; fi
done <tests/failure/hostile/expected.tsv
err=$bad check "convert refuses every hostile file" [ -z "$bad" ]
try verify tests/failure/hostile/pickle-global-os-system.pth
stderr_has "verify refuses code" 4 "the global 'os.system' is refused"
cp $golden/torch/state.pth "$work/broken.pth"
printf '\x7f' | dd of="$work/broken.pth" bs=1 seek=1100 conv=notrunc status=none
try verify "$work/broken.pth"
stderr_has "verify finds a flipped byte" 4 "CRC differs"

# Tensors stay in the mapped file: anonymous memory, which the limit counts, does not grow with it. A sanitizer's own
# memory alone is beyond any limit.
case ${XKD_BUILD:-build} in *asan* | *tsan*) echo "ok memory limit # SKIP under a sanitizer" ;; *)
  header="{'descr': '<f4', 'fortran_order': False, 'shape': (25165824,), }"
  { printf '\x93NUMPY\x01\x00\x76\x00'; printf '%-117s\n' "$header"; } >"$work/big.npy"
  truncate -s $((128 + 4 * 25165824)) "$work/big.npy" # 96 MiB of zeros that take no room
  for out in big.safetensors big.pth big.npz; do
    (ulimit -d 49152 && "$xkd" convert -q "$work/big.npy" "$work/$out" && "$xkd" verify "$work/$out") >/dev/null 2>"$work/.stderr"
    rc=$? err=$(cat "$work/.stderr")
    check "96 MiB to $out and back within 48 MiB of memory" code 0
    rm -f "$work/$out"
  done ;;
esac
try pretrain --data /nonexistent --out "$work/run" --init $golden/torch/state.pth
check "a bad start loses nothing" [ ! -e "$work/run/checkpoints" ]
finish
