#!/usr/bin/env bash
# Tar archives as data sets: read in place, packed, and what hostile ones get.
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh
tiny=$PWD/tests/data/tiny.yaml
cd "$work" || exit 1
"$xkd" data synth --out toys --classes 2 --clips 5 --seconds 2 --size 64 --seed 1 -q >/dev/null || exit 1
# The same films as folders of one split and as two archives with labels beside them.
mkdir -p flat tars plain/bounce plain/orbit
n=0
for f in toys/*/*/*.mp4; do
  class=$(basename "$(dirname "$f")")
  key=$(printf '%03d' $n)
  cp "$f" "plain/$class/$key.mp4"
  cp "$f" "flat/$key.mp4"
  if [ $((n % 2)) = 0 ]; then echo "$class" >"flat/$key.cls"; else echo "{\"class\": \"$class\", \"note\": 7}" >"flat/$key.json"; fi
  n=$((n + 1))
done
(cd flat && tar --format=ustar -cf ../tars/a-0.tar $(ls | grep '^00[0-4]') && tar --format=pax -cf ../tars/a-1.tar $(ls | grep '^00[5-9]'))

try data index tars
stdout_has "archives are indexed" 0 "tars/manifest.jsonl: 10 files, 2 classes"
check "members keep their place" grep -q '"path":"a-0.tar/000.mp4","label":[01],.*"tar":7,"tar_at":[0-9]' tars/manifest.jsonl
try data check tars dataset.clip_duration=1
stdout_has "every member is decoded" 0 "10 files: 10 ok"
try data stats tars
first=$(grep -E "log-mel|class" <<<"$out")
try data stats plain
check "they are the films" [ "$(grep -E "log-mel|class" <<<"$out")" = "$first" ]
labels() { sed -n 's/.*"path":"\([^"]*\/\)*\([0-9]*\).mp4","label":\([0-9]\).*/\2 \3/p' "$1" | sort; }
"$xkd" data index plain -q >/dev/null
check "with their labels" [ "$(labels tars/manifest.jsonl)" = "$(labels plain/manifest.jsonl)" ]
"$xkd" pretrain -c "$tiny" --data plain --out from-files data.shuffle=false -q >/dev/null 2>&1
try pretrain -c "$tiny" --data tars --out from-tars -q
check "training in place" code 0
try data pack tars --out packed --codec raw --short-side 32
stdout_has "packing archives" 0 "10 samples packed, 0 unreadable"
try data pack tars/a-0.tar --out one --short-side 32
stdout_has "one archive by name" 0 "5 samples packed, 0 unreadable"
try data index tars/a-1.tar
stdout_has "or a manifest of it" 0 "tars/a-1.tar.jsonl: 5 files"
rm tars/a-1.tar.jsonl
try data check tars --hash dataset.clip_duration=1
hash=$(sed -n 's/.*005.mp4.*"hash":"\([0-9a-f]*\)".*/\1/p' tars/clean.jsonl)
"$xkd" data index flat --hash -q >/dev/null
check "a member's hash is its file's" [ -n "$hash" -a "$(grep -c "$hash" flat/manifest.jsonl)" = 1 ]
mkdir names && cp tars/a-0.tar names/train-000.tar && cp tars/a-1.tar names/val-000.tar
"$xkd" data index names -q >/dev/null
check "splits by the archives' names" [ "$(grep -c '"split":"train"' names/manifest.jsonl)" = 5 -a "$(grep -c '"split":"val"' names/manifest.jsonl)" = 5 ]

# Another archive under the name.
cp -r tars other
cp tars/a-1.tar other/a-0.tar
sed -n '1p;/a-0.tar/p' tars/manifest.jsonl >other/manifest.jsonl
printf '' | cat >/dev/null
head -c 20000 tars/a-0.tar >other/a-0.tar
try data check other dataset.clip_duration=1
stdout_has "an archive that became shorter is told" 3 "is shorter than when it was indexed"
head -c 2000000 /dev/urandom >other/a-0.tar
try data check other dataset.clip_duration=1
stdout_has "and one that became another" 3 "is another archive than was indexed"

# Hostile archives: what is no plain file inside is passed over, counted, and told once.
mkdir bad && cp flat/000.mp4 bad/
hostile() { # hostile NAME PYTHON: an archive made by lines over `t`
  mkdir -p "$work/h-$1"
  python3 -c "
import tarfile, io, sys
good = open('flat/000.mp4', 'rb').read()
t = tarfile.open('h-$1/x.tar', 'w', format=tarfile.GNU_FORMAT)
def add(name, data=good, **k):
    i = tarfile.TarInfo(name)
    for key, value in k.items(): setattr(i, key, value)
    if i.type == tarfile.REGTYPE: i.size = len(data)
    t.addfile(i, io.BytesIO(data) if i.type == tarfile.REGTYPE else None)
$2
add('good.mp4')
t.close()"
  try data index "h-$1" --out "h-$1.jsonl"
}
if command -v python3 >/dev/null; then
  hostile link "add('l.mp4', type=tarfile.SYMTYPE, linkname='/etc/passwd')"
  stderr_has "a link" 0 "1 members of archives are left out, and 0 archives are cut off: x.tar: l.mp4: is a link"
  hostile hard "add('l.mp4', type=tarfile.LNKTYPE, linkname='good.mp4')"
  stderr_has "a hard link" 0 "l.mp4: is a link"
  hostile device "add('d.mp4', type=tarfile.CHRTYPE)"
  stderr_has "a device" 0 "d.mp4: is a device"
  hostile fifo "add('f.mp4', type=tarfile.FIFOTYPE)"
  stderr_has "a FIFO" 0 "f.mp4: is a FIFO"
  hostile sparse "add('s.mp4', type=tarfile.GNUTYPE_SPARSE)"
  stderr_has "a sparse member" 0 "s.mp4: is sparse"
  hostile up "add('../../up.mp4')"
  stderr_has "a name that leads out" 0 '../../up.mp4: its name is absolute, has ".."'
  hostile absolute "add('/tmp/abs.mp4')"
  stderr_has "an absolute name" 0 '/tmp/abs.mp4: its name is absolute'
  hostile twice "add('good.mp4')"
  stderr_has "a name twice" 0 "1 members of archives are left out"
  hostile long "add('n' * 5000 + '.mp4')"
  check "a name that is too long" code 0
  hostile json "add('good.json', b'[1, 2')"
  stderr_has "a note that is no JSON" 0 "good.json: is no JSON object"
  hostile dot "add('./dir/key.with.dots.mp4')"
  check "a dot in front is none" grep -q '"x.tar/dir/key.with.dots.mp4"' h-dot.jsonl
  for kind in link hard device fifo sparse up absolute twice long json; do
    check "the good member of $kind is there" [ "$(grep -c '"x.tar/good.mp4"' "h-$kind.jsonl")" = 1 ]
  done
  python3 - <<'P'
d = bytearray(open('h-dot/x.tar', 'rb').read())
import os
def size(field): # of the first header, with its sum
    h = bytearray(d); h[124:136] = field; h[148:156] = b' ' * 8
    h[148:156] = b'%06o\0 ' % sum(h[:512])
    return bytes(h)
for name, field in (('huge', b'77777777777\0'), ('binary', b'\x80' + b'\xff' * 11), ('negative', b'\xff' * 12), ('words', b'many bytes\0\0')):
    os.makedirs('h-' + name, exist_ok=True); open(f'h-{name}/x.tar', 'wb').write(size(field))
P
  for name in huge binary negative words; do
    try data index h-$name
    stderr_has "a size of $name ends the archive" 3 "0 members of archives are left out, and 1 archives are cut off: x.tar: ./dir/key.with.dots.mp4: is longer than what is left"
  done
fi
mkdir text && echo "no archive at all, though it is called one" >text/x.tar
try data index text
stderr_has "text called .tar" 3 "x.tar: is no tar archive"
mkdir mixed && cp tars/a-0.tar mixed/ && cp flat/000.mp4 mixed/
try data index mixed
stderr_has "files beside archives" 3 "holds files and archives"
printf '{"xkd_manifest":1,"root":"tars"}\n{"path":"a-0.tar/000.mp4","tar":99,"tar_at":512,"bytes":5}\n' >m.jsonl
try data stats m.jsonl
stderr_has "a manifest that says something else" 3 'm.jsonl:2: a member of an archive needs "tar"'
printf '{"xkd_manifest":1,"root":"tars"}\n{"path":"a-0.tar/000.mp4","tar":7,"tar_at":51200000,"bytes":5}\n' >m.jsonl
try data check m.jsonl
stdout_has "a member past the end" 3 "is shorter than when it was indexed"
finish
