#!/usr/bin/env bash
# Mistakes in configurations and on the command line of pretrain: one clear message, exit code 2, nothing left behind.
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh
mkdir "$work/videos"
pretrain() { try pretrain --data "$work/videos" --out "$work/run" "$@"; }
file() { printf '%b' "$1" >"$work/c.yaml"; }

try pretrain --data "$work/videos"
fails_with "no --out" 2 "xkd: error: pretrain: --out RUN is missing ('--help' shows its use)"
try pretrain --out "$work/run"
fails_with "no --data" 2 "xkd: error: pretrain: --data PATH is missing ('--help' shows its use)"
pretrain --resume --force
fails_with "--resume and --force" 2 "xkd: error: pretrain: --resume and --force exclude each other"
pretrain --resume
fails_with "nothing to resume" 2 "xkd: error: $work/run: no run to resume: leave out --resume to start one"
pretrain --workers 0
fails_with "no workers" 2 "xkd: error: pretrain: --workers wants at least 1"
pretrain data.workers=0
fails_with "no workers by key" 2 "xkd: error: command line:1: data.workers: wants integer 1..256 or auto, not '0'"
pretrain -c "$work/absent.yaml"
fails_with "configuration is missing" 2 "xkd: error: $work/absent.yaml: cannot open: No such file or directory (check the path)"
pretrain -c "$work/videos"
stderr_has "configuration is a folder" 2 "not a regular file"
pretrain --dry-run -v num_workers=20
check "a key without effect is named on the command line too" grep -q "command line: without effect here: num_workers" <<<"$err"
pretrain nonsense
fails_with "not an override" 2 "xkd: error: 'nonsense' is not of the form key.sub=value"
pretrain model.fwd_kwargs.recon_coef=1
fails_with "unknown key" 2 "xkd: error: command line:1: unknown key 'model.fwd_kwargs.recon_coef'; did you mean 'model.fwd_kwargs.recon_coeff'?"

file 'model:\n  fwd_kwargs:\n    vid_mask_ratoi: 0.9\n'
pretrain -c "$work/c.yaml"
fails_with "unknown key in a file" 2 "xkd: error: $work/c.yaml:3: unknown key 'model.fwd_kwargs.vid_mask_ratoi'; did you mean 'model.fwd_kwargs.vid_mask_ratio'?"
file 'a: [1\n'
pretrain -c "$work/c.yaml"
stderr_has "not YAML" 2 "c.yaml:2: not YAML:"
file 'num_node: &x 2\n'
pretrain -c "$work/c.yaml"
fails_with "anchor" 2 "xkd: error: $work/c.yaml:1: anchors are not supported"
file 'num_node: !!python/object/apply:os.system ["touch /tmp/xkd-owned"]\n'
pretrain -c "$work/c.yaml"
fails_with "tag" 2 "xkd: error: $work/c.yaml:1: tags are not supported"
check "a tag runs nothing" [ ! -e /tmp/xkd-owned ]
file '\0\0\0\0'
pretrain -c "$work/c.yaml"
stderr_has "binary" 2 "not YAML"
head -c 2000000 /dev/zero | tr '\0' '#' >"$work/c.yaml"
pretrain -c "$work/c.yaml"
stderr_has "huge file" 2 "more than the 1048576 allowed here"
file 'num_node: 1\nnum_node: 2\n'
pretrain -c "$work/c.yaml" --strict
fails_with "key given twice, strict" 2 "xkd: error: $work/c.yaml:2: key 'num_node' was given before, at line 1"
pretrain model.kwargs.vid_patch_spatial='[16, 15]'
fails_with "patch does not divide" 2 "xkd: error: model.kwargs.vid_patch_spatial (15) does not divide model.kwargs.frame_size (112)"
pretrain model.kwargs.student_cfg.num_heads=7
fails_with "heads do not divide" 2 "xkd: error: model.kwargs.student_cfg.num_heads (7) does not divide model.kwargs.student_cfg.embed_dim (768)"
pretrain model.fwd_kwargs.aud_mask_ratio=1
fails_with "ratio not below 1" 2 "xkd: error: command line:1: model.fwd_kwargs.aud_mask_ratio: wants real 0..<1, not '1'"
# Our own presets are in order: what is refused is only that there are no data.
for preset in configs/*.yaml; do
  try pretrain --data "$work/absent" --out "$work/run" -c "$preset" --strict
  check "$preset" code 3
done
check "nothing was left behind" [ ! -e "$work/run" ]
finish
