#!/usr/bin/env bash
# xkd data import: a tiny tree of every official layout, and trees that do not fit. Files are empty: importing reads lists.
set -u
source "$(dirname "$0")/tap.sh"
cd "$work" || exit 1
has() { # has NAME FILE TEXT
  if grep -qF -- "$3" "$2" 2>/dev/null; then ok "$1"; else not_ok "$1: no $3 in $2"; fi
}
put() { mkdir -p "$(dirname "$1")" && : >"$1"; }

# UCF101: 1-based ids, test lists without label, CRLF.
mkdir -p ucf/ucfTrainTestlist
printf '1 Archery\r\n2 Biking\r\n' >ucf/ucfTrainTestlist/classInd.txt
printf 'Archery/v_Archery_g08_c01.avi 1\r\nBiking/v_Biking_g08_c01.avi 2\r\n' >ucf/ucfTrainTestlist/trainlist02.txt
printf 'Biking/v_Biking_g01_c01.avi\r\n' >ucf/ucfTrainTestlist/testlist02.txt
put ucf/UCF-101/Archery/v_Archery_g08_c01.avi
put ucf/UCF-101/Biking/v_Biking_g08_c01.avi
put ucf/UCF-101/Biking/v_Biking_g01_c01.avi
try data import ucf101 ucf --fold 2 --out ucf.jsonl --partial
stdout_has "UCF101" 0 "3 files, 2 classes, 0 missing"
try data import ucf101 ucf --fold 2 --out 'a"b\c.jsonl' --partial --json
check "JSON of any file name" [ "$out" = '{"out": "a\"b\\c.jsonl", "files": 3, "classes": 2, "missing": 0}' ]
has "UCF101 test label from the folder" ucf.jsonl '"path":"UCF-101/Biking/v_Biking_g01_c01.avi","label":1,"split":"testlist02"'
try data import UCF101 ucf --fold 2 --out x.jsonl
stderr_has "counts are checked" 3 "3 samples, the official set has 13320"
check "and the tree is shown" grep -q "ROOT/ucfTrainTestlist/classInd.txt" <<<"$err"
try data import UCF101 ucf --fold 4 --out x.jsonl
stderr_has "a fold that is not there" 2 "no fold 4: 1 .. 3"
rm ucf/UCF-101/Archery/v_Archery_g08_c01.avi
try data import UCF101 ucf --fold 2 --out x.jsonl
stderr_has "absent files are named" 3 "1 of 3 listed files are not there:
  UCF-101/Archery/v_Archery_g08_c01.avi
That is more than data.max_absent_fraction=0.01 allows: data.max_absent_fraction=0.334 would, --partial accepts any number"
try data import UCF101 ucf --fold 2 --out x.jsonl data.max_bad_fraction=1
stderr_has "that files may be unreadable does not let them be absent" 3 "1 of 3 listed files are not there:"
try data import UCF101 ucf --fold 2 --out x.jsonl data.max_absent_fraction=0.334
stderr_has "a larger budget" 3 "3 samples, the official set has 13320"
check "nothing is written of a refused set" [ ! -e x.jsonl -a ! -e x.jsonl.missing ]
try data import UCF101 ucf --fold 2 --out x.jsonl --partial
stdout_has "absent files are counted" 0 "2 files, 2 classes, 1 missing"
check "and told" grep -q "1 of 3 listed files are not there:" <<<"$err"
check "and named" [ "$(cat x.jsonl.missing)" = UCF-101/Archery/v_Archery_g08_c01.avi ]
put ucf/UCF-101/Archery/v_Archery_g08_c01.avi
try data import UCF101 ucf --fold 2 --out x.jsonl --partial
check "names of a former import are removed" [ ! -e x.jsonl.missing ]
rm ucf/UCF-101/Archery/v_Archery_g08_c01.avi
printf '../../etc/passwd 1\n' >ucf/ucfTrainTestlist/trainlist02.txt
try data import UCF101 ucf --fold 2 --out y.jsonl --partial
check "a list cannot lead out of the folder" [ "$rc" -eq 3 ]
for list in classInd trainlist02 testlist02; do : >ucf/ucfTrainTestlist/$list.txt; done
try data import UCF101 ucf --fold 2 --out y.jsonl --partial
stderr_has "empty lists" 3 "ucf: no file is found or listed"

# HMDB51: names with # & ; ( ) and blanks; codes 1, 2, 0.
mkdir -p hmdb/testTrainMulti_7030_splits
printf 'a#1 (b);&.avi 1 \nc.avi 2 \nd.avi 0 \n' >hmdb/testTrainMulti_7030_splits/brush_hair_test_split1.txt
printf 'e.avi 1 \n' >hmdb/testTrainMulti_7030_splits/wave_test_split1.txt
for f in 'a#1 (b);&' c d; do put "hmdb/brush_hair/$f.avi"; done
put hmdb/wave/e.avi
try data import HMDB51 hmdb --out hmdb.jsonl --partial
stdout_has "HMDB51" 0 "4 files, 2 classes, 0 missing"
has "HMDB51 odd names" hmdb.jsonl '"path":"brush_hair/a#1 (b);&.avi","label":0,"split":"train-split1"'
has "HMDB51 test" hmdb.jsonl '"path":"brush_hair/c.avi","label":0,"split":"test-split1"'
has "HMDB51 unused" hmdb.jsonl '"path":"brush_hair/d.avi","label":0,"split":"unused"'

# Kinetics: class folders with blanks in one split and _ in the other; a flat split with a list; ids that begin with -.
put "k400/train/playing piano/-abc_000001_000011.mp4"
put "k400/train/air drumming/def_000001_000011.mp4"
put k400/val/-xyz-12_000003_000013.mp4
put k400/val/qq.mp4
printf 'label,youtube_id,time_start,time_end,split,is_cc\nplaying piano,-xyz-12,3,13,val,0\n"air drumming",qq,1,11,val,0\nair drumming,gone,1,11,val,0\n' >k400/val.csv
try data import Kinetics400 k400 --out k400.jsonl --partial
stdout_has "Kinetics400" 0 "4 files, 2 classes, 1 missing"
has "Kinetics400 classes have _" k400.jsonl '"classes":["air_drumming","playing_piano"]'
has "Kinetics400 flat" k400.jsonl '"path":"val/-xyz-12_000003_000013.mp4","label":1,"split":"val"'
try data import Kinetics400 k400 --out x.jsonl data.max_absent_fraction=0.5
stderr_has "Kinetics400 counts classes" 3 "2 classes, the official set has 400"
try data import Kinetics-Sound k400 --out ks.jsonl --partial
stdout_has "Kinetics-Sound takes its classes" 0 "2 files, 1 classes"
has "Kinetics-Sound class" ks.jsonl '"classes":["playing_piano"]'
try data import Kinetics-Sound k400 --out x.jsonl --classes 31
stderr_has "Kinetics-Sound counts classes" 3 "1 classes, the official set has 31"

# Kinetics400 with as many classes as there should be, 800 listed files and 2, then 796 of them there.
sounds=(blowing_nose blowing_out_candles bowling chopping_wood dribbling_basketball laughing mowing_lawn playing_accordion
  playing_bagpipes playing_bass_guitar playing_clarinet playing_drums playing_guitar playing_harmonica playing_keyboard
  playing_organ playing_piano playing_saxophone playing_trombone playing_trumpet playing_violin playing_xylophone
  ripping_paper shoveling_snow shuffling_cards singing stomping_grapes strumming_guitar tap_dancing tapping_guitar
  tapping_pen tickling)
mkdir -p k8/train
for i in $(seq 800); do
  k=$((i % 400))
  if [ $k -lt 32 ]; then class=${sounds[k]}; else class="class $k"; fi
  echo "$class,id$i,1,11,train"
done >k8/train.csv
touch k8/train/id1.mp4 k8/train/id2.mp4
try data import Kinetics400 k8 --out x.jsonl
stderr_has "most of the listed files are absent" 3 "798 of 800 listed files are not there:"
check "some are named" grep -q "^  train/id22_000001_000011$" <<<"$err"
check "and the others counted" grep -q "^  and 778 more$" <<<"$err"
for i in $(seq 3 681); do : >k8/train/id$i.mp4; done
try data import Kinetics400 k8 --out k8.jsonl
stdout_has "what has vanished from YouTube may be absent" 0 "681 files, 400 classes, 119 missing"
try data import Kinetics400 k8 --out x.jsonl data.max_absent_fraction=0.01
stderr_has "or not" 3 "data.max_absent_fraction=0.01 allows: data.max_absent_fraction=0.149 would"
rm k8/train/id681.mp4 k8/train/id680.mp4
try data import Kinetics400 k8 --out x.jsonl
stderr_has "but no more" 3 "data.max_absent_fraction=0.15 allows: data.max_absent_fraction=0.152 would"
try data import Kinetics400 k8 --out x.jsonl data.max_absent_fraction=0
stderr_has "a budget of 0 is none" 2 "data.max_absent_fraction"
for i in $(seq 5 800); do : >k8/train/id$i.mp4; done
rm k8/train/id3.mp4 k8/train/id4.mp4
try data import Kinetics400 k8 --out k8.jsonl
stdout_has "few may be absent" 0 "798 files, 400 classes, 2 missing"
check "they are told" grep -q "  train/id4_000001_000011$" <<<"$err"
check "and written beside the manifest" [ "$(tr '\n' ' ' <k8.jsonl.missing)" = "train/id3_000001_000011 train/id4_000001_000011 " ]
sed -i 's/^blowing_nose,/sneezing,/' k8/train.csv
try data import Kinetics400 k8 --out x.jsonl
stderr_has "400 other classes" 3 "none is blowing_nose: this is not Kinetics400"

# Kinetics as JSON: flat folders, entries that are gone, unused keys, a test split without labels.
put kj/train/-abc_000001_000011.mp4
put kj/val/def.mkv
put kj/test/ghi_000002_000012.mp4
mkdir -p kj/annotations
entry() { # entry ID LABEL START END SUBSET
  printf '"%s": {"annotations": {"label": "%s", "segment": [%s, %s]}, "duration": 10.0, "subset": "%s", "url": "https://x/%s"}' "$1" "$2" "$3" "$4" "$5" "$1"
}
printf '{%s, %s}' "$(entry -abc 'playing piano' 1.0 11.0 training)" "$(entry gone 'air drumming' 5 15 training)" >kj/train.json
printf '{%s}' "$(entry def 'air drumming' 3.0 13.0 validate)" >kj/annotations/kinetics_val.json
printf '{"ghi": {"duration": 10, "subset": "test"}, %s}' "$(entry xyz 'playing piano' 3.0 13.0 test)" >kj/test.json
try data import Kinetics400 kj --out kj.jsonl --partial
stdout_has "Kinetics400 as JSON" 0 "2 files, 2 classes, 2 missing"
has "by ID and segment" kj.jsonl '"path":"train/-abc_000001_000011.mp4","label":1,"split":"train"'
has "by ID alone" kj.jsonl '"path":"val/def.mkv","label":0,"split":"val"'
try data import Kinetics-Sound kj --out x.jsonl --partial
stdout_has "Kinetics-Sound takes its classes of it" 0 "1 files, 1 classes"
refused() { # refused NAME JSON PART: as train.json
  printf '%s' "$2" >kj/train.json
  try data import Kinetics400 kj --out no.jsonl --partial
  stderr_has "JSON: $1" 3 "$3"
}
refused "the list of another split" "{$(entry a 'x' 1 2 validation)}" 'a is of subset "validation": is this the list of another split?'
refused "no label" '{"a": {"annotations": {"segment": [1, 2]}}}' 'a has no "annotations": {"label"'
refused "a segment that is none" '{"a": {"annotations": {"label": "x", "segment": ["1", 2]}}}' 'a: "segment" must be [start, end] in seconds'
refused "an ID that is a path" "{$(entry ../a x 1 2 train)}" '"../a" is no YouTube ID'
refused "an ID given twice" "{$(entry a x 1 2 train), $(entry a x 1 2 train)}" 'train.json:1: bad JSON'
refused "a list of records" '[{"video": "a.mp4", "label": "x"}]' 'entry 1 is no text "CLASS/FILE"'
refused "a path without class" '["x/a.avi", "a.avi"]' 'entry 2, "a.avi": want "CLASS/FILE"'
refused "a path of more folders" '["train/x/a.avi"]' 'want "CLASS/FILE"'
refused "a path out of the folder" '["../a.avi"]' 'want "CLASS/FILE"'
refused "text alone" '"x/a.avi"' 'train.json:1: bad JSON'
refused "cut off" '{"a": {' 'train.json:1: bad JSON'
rm kj/train.json
try data import Kinetics400 kj --out no.jsonl --partial
stderr_has "no list at all" 3 "kj/train: has no folders of classes, and neither train.csv nor train.json is there"
check "and the tree is shown" grep -q 'ROOT/train.json' <<<"$err"
check "no manifest of a refused list" [ ! -e no.jsonl ]

# The release's lists: arrays of paths, which select from the folders of classes; endings differ from download to download.
put "ks/train/blowing nose/-3nc_000001_000011.mp4"
put "ks/train/blowing nose/extra_000001_000011.mp4"
put ks/train/bowling/b.c_000002_000012.webm
put ks/val/bowling/v_000003_000013.avi
mkdir -p ks/kinetics_sound
printf '["blowing_nose/-3nc_000001_000011.avi", "bowling/b.c_000002_000012.avi", "bowling/gone_000001_000011.avi", "bowling/gone.avi"]' >ks/kinetics_sound/train.txt
printf '["bowling/v_000003_000013.avi"]' >ks/val.json
try data import Kinetics-Sound ks --out ks.jsonl --partial
stdout_has "the release's lists" 0 "3 files, 2 classes, 2 missing"
has "names with blanks" ks.jsonl '"path":"train/blowing nose/-3nc_000001_000011.mp4","label":0,"split":"train"'
has "another ending" ks.jsonl '"path":"train/bowling/b.c_000002_000012.webm","label":1,"split":"train"'
has "beside the set" ks.jsonl '"path":"val/bowling/v_000003_000013.avi","label":1,"split":"val"'
check "files that are not listed are left out" [ "$(grep -c extra ks.jsonl)" = 0 ]
check "those that are gone are named" [ "$(cat ks.jsonl.missing)" = "train/bowling/gone_000001_000011
train/bowling/gone" ]
try data import Kinetics-Sound ks --out x.jsonl
stderr_has "and too many refused" 3 "2 of 5 listed files are not there:"
rm -r ks/kinetics_sound ks/val.json
printf 'youtube_id,split,label,time_end,time_start\nb.c,train,bowling,12,2\n' >ks/train.csv
try data import Kinetics400 ks --out ks.jsonl --partial
stdout_has "a CSV list selects as well, with its columns in any order" 0 "2 files, 1 classes, 0 missing"
printf 'youtube_id,time_start,time_end,split\nb.c,2,12,train\n' >ks/train.csv
try data import Kinetics400 ks --out x.jsonl --partial
stderr_has "a list without labels" 3 'ks/train.csv: has no column "label"'
printf 'label,id,time_start,time_end\nbowling,b.c,2,12\n' >ks/train.csv
try data import Kinetics400 ks --out x.jsonl --partial
stderr_has "a list without IDs" 3 'ks/train.csv:1: has no column "youtube_id"'
rm ks/train.csv
printf 'youtube_id,time_start,time_end,split\nabc,2,12,test\n' >ks/test.csv
put ks/test/abc_000002_000012.mp4
try data import Kinetics400 ks --out ks.jsonl --partial
stdout_has "a test list without labels" 0 "4 files, 2 classes, 0 missing"
check "is left out with a word" grep -q "split 'test' is left out" <<<"$err"

# What is no video is no sample, and does not hide the folders of classes.
put ks/train/README.txt
put ks/train/A.csv
put ks/train/bowling/b.c_000002_000012.json
put ks/train/bowling/other.mp4.part
put ks/test/abc_000002_000012.info.json
printf 'bowling,abc,2,12,test\n' >ks/test.csv
try data import Kinetics400 ks --out ks.jsonl --partial
stdout_has "stray files" 0 "5 files, 2 classes, 0 missing"
has "of a flat split too" ks.jsonl '"path":"test/abc_000002_000012.mp4"'

# Lists of other programs by the same names beside folders of classes, and a flat split that needs its list.
put "kp/train/air drumming/a_000001_000011.mp4"
put kp/train/bowling/b_000001_000011.mp4
other_list() { # other_list NAME FILE: passed over, with a word
  try data import Kinetics400 kp --out kp.jsonl --partial
  stdout_has "a list of another kind: $1" 0 "2 files, 2 classes, 0 missing"
  check "$1: is told once" [ "$(grep -c "kp/$2: no list of Kinetics, passed over" <<<"$err")" = 1 ]
}
printf 'train/bowling/b_000001_000011.mp4 1\n' >kp/train.csv
other_list "path label" train.csv
printf 'path,label\ntrain/bowling/b_000001_000011.mp4,1\n' >kp/train.csv
other_list "path,label with a header" train.csv
mv kp/train.csv kp/train.txt
other_list "path label as text" train.txt
mv kp/train.txt kp/train.json
echo '[{"video": "b.mp4", "label": 1}]' >kp/train.json
other_list "records" train.json
printf 'bowling/b_000001_000011.mp4 1\n' >kp/train.csv
mkdir kp/annotations
printf 'bowling,b,1,11,train\n' >kp/annotations/train.csv
try data import Kinetics400 kp --out kp.jsonl --partial
stdout_has "Kinetics' own is looked for further" 0 "1 files, 1 classes, 0 missing"
mkdir -p kp2/train && cp kp/train.csv kp2
put kp2/train/b.mp4
try data import Kinetics400 kp2 --out x.jsonl --partial
stderr_has "a flat split has nothing else" 3 "kp2/train.csv:1: want label,youtube_id,time_start,time_end,split"

# A folder in a flat split is no reason to look for the videos in folders of classes.
put kf/train/-x1_000001_000011.mp4
put kf/train/a2.mp4
put kf/train/tmp/a3.mp4.part
printf 'bowling,-x1,1,11,train\nair drumming,a2,3,13,train\nair drumming,a3,3,13,train\n' >kf/train.csv
try data import Kinetics400 kf --out kf.jsonl --partial
stdout_has "a flat split with a stray folder" 0 "2 files, 2 classes, 1 missing"
has "by ID and segment" kf.jsonl '"path":"train/-x1_000001_000011.mp4","label":1,"split":"train"'

# Two segments of a video, one of which is gone; another video is named by its ID alone.
put kg/train/x_000020_000030.mp4
put kg/train/y_cut.mp4
printf 'bowling,x,1,11,train\nbowling,x,20,30,train\nbowling,y,1,11,train\n' >kg/train.csv
try data import Kinetics400 kg --out kg.jsonl --partial
stdout_has "a segment does not take the file of another" 0 "2 files, 1 classes, 1 missing"
check "it is named" [ "$(cat kg.jsonl.missing)" = train/x_000001_000011 ]

rm kg/train/*.mp4
try data import Kinetics400 kg --out x.jsonl --partial
stderr_has "nothing is there: some names show why" 3 "kg: 3 of 3 listed files are not there:
  train/x_000001_000011
  train/x_000020_000030
  train/y_000001_000011
The layout of Kinetics400 is:"

# The validation split has two names, and its list may have the other one.
put kv/val/bowling/a.mp4
put kv/val/bowling/b.mp4
echo 'bowling,a,1,11,val' >kv/validate.csv
try data import Kinetics400 kv --out kv.jsonl --partial
stdout_has "val with validate.csv" 0 "1 files, 1 classes, 0 missing"
mv kv/val kv/validate && mv kv/validate.csv kv/val.csv
try data import Kinetics400 kv --out kv.jsonl --partial
stdout_has "validate with val.csv" 0 "1 files, 1 classes, 0 missing"
put kv/val/bowling/a.mp4
try data import Kinetics400 kv --out kv.jsonl --partial
stdout_has "a list is of one of the two" 0 "3 files, 1 classes, 0 missing"

# ESC50
mkdir -p esc/meta
printf 'filename,fold,target,category,esc10,src_file,take\n1-1-A-0.wav,1,0,dog,True,1,A\n2-2-A-1.wav,2,1,rooster,False,2,A\n' >esc/meta/esc50.csv
put esc/audio/1-1-A-0.wav
put esc/audio/2-2-A-1.wav
try data import ESC50 esc --fold 2 --out esc.jsonl --partial
stdout_has "ESC50" 0 "2 files, 50 classes"
has "ESC50 test fold" esc.jsonl '"path":"audio/2-2-A-1.wav","label":1,"split":"test-2"'
has "ESC50 other folds train" esc.jsonl '"path":"audio/1-1-A-0.wav","label":0,"split":"train-2"'

# FSD50K: quoted label lists, a vocabulary without header.
mkdir -p fsd/FSD50K.ground_truth
printf '0,Accordion,/m/0mkg\n1,Bark,/m/05tny_\n2,Dog,/m/0bt9lr\n' >fsd/FSD50K.ground_truth/vocabulary.csv
printf 'fname,labels,mids,split\n10,"Bark,Dog","/m/05tny_,/m/0bt9lr",train\n11,Accordion,/m/0mkg,val\n' >fsd/FSD50K.ground_truth/dev.csv
printf 'fname,labels,mids\n20,"Dog","/m/0bt9lr"\n' >fsd/FSD50K.ground_truth/eval.csv
put fsd/FSD50K.dev_audio/10.wav
put fsd/FSD50K.dev_audio/11.wav
put fsd/FSD50K.eval_audio/20.wav
try data import FSD50K fsd --out fsd.jsonl --partial
stdout_has "FSD50K" 0 "3 files, 3 classes"
has "FSD50K several labels" fsd.jsonl '"path":"FSD50K.dev_audio/10.wav","labels":[1,2],"split":"train"'
has "FSD50K val" fsd.jsonl '"labels":[0],"split":"val"'
has "FSD50K test" fsd.jsonl '"labels":[2],"split":"test"'
try data stats fsd.jsonl --max-files 0
check "a manifest with label lists can be read" [ "$rc" -eq 0 ]
sed -i 's/,Dog"/,Cat"/' fsd/FSD50K.ground_truth/dev.csv
try data import FSD50K fsd --out x.jsonl --partial
stderr_has "a label outside the vocabulary" 3 'dev.csv:2: "Cat" is no label of the vocabulary'

# Lists of as many files as there should be, but 1000 of them on the wrong side.
seq -f 'Label%g' 0 199 | awk '{ print NR - 1 "," $1 ",/m/" NR }' >fsd/FSD50K.ground_truth/vocabulary.csv
{ echo 'fname,labels,mids,split'; seq -f '%g,Label7,/m/8,train' 41966; } >fsd/FSD50K.ground_truth/dev.csv
{ echo 'fname,labels,mids'; seq -f '%.0f,Label7,/m/8' 100001 109231; } >fsd/FSD50K.ground_truth/eval.csv
try data import FSD50K fsd --out x.jsonl data.max_absent_fraction=1
stderr_has "FSD50K counts both parts" 3 "9231 of the samples are for testing, of the official set 10231"

# The same of a fold of UCF101: its test list has 3734 videos.
seq -f 'Class%g' 101 | awk '{ print NR " " $1 }' >ucf/ucfTrainTestlist/classInd.txt
seq -f 'Class1/%.0f.avi 1' 13000 >ucf/ucfTrainTestlist/trainlist02.txt
seq -f 'Class2/%.0f.avi' 320 >ucf/ucfTrainTestlist/testlist02.txt
put ucf/UCF-101/Class1/1.avi
try data import UCF101 ucf --fold 2 --out x.jsonl data.max_absent_fraction=1
stderr_has "UCF101 counts both lists" 3 "320 of the samples are for testing, of the official set 3734"

# AudioSet: three comment lines, a blank before the quote, files with and without the start in their names.
mkdir -p as
printf 'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/05zppz,"Male speech, man speaking"\n' >as/class_labels_indices.csv
printf '# a\n# b\n# YTID, start_seconds, end_seconds, positive_labels\n--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/m/05zppz"\n-gone, 0.000, 10.000, "/m/09x0r"\n' >as/eval_segments.csv
put as/eval/Y--PJHxphWEs.wav
try data import AudioSet as --out as.jsonl --partial
stdout_has "AudioSet" 0 "1 files, 2 classes, 1 missing"
has "AudioSet labels" as.jsonl '"labels":[0,1],"split":"test"'
has "AudioSet names with commas" as.jsonl '"Male speech, man speaking"'

try data import Imagenet as --out x.jsonl
stderr_has "an unknown set" 2 "is no data set that is known here"
try data import ESC50 k400 --out x.jsonl
stderr_has "the wrong tree" 3 "ROOT/meta/esc50.csv"
check "nothing is written where it fails" [ ! -e y.jsonl ]
finish
