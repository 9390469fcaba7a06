#!/usr/bin/env bash
# xkd eval: from untouched official layouts, made small here, to the row of a table; what it keeps, resumes and refuses.
cd "$(dirname "$0")/../.."
. tests/cli/tap.sh
tiny=$PWD/tests/data/tiny.yaml
cd "$work" || exit 1
"$xkd" data synth --out toys --classes 3 --clips 5 --seconds 2 --size 64 --seed 1 -q >/dev/null || exit 1
"$xkd" pretrain -c "$tiny" --data toys --out run --max-steps 2 -q dataset.train.split= >/dev/null 2>&1 || exit 1

# UCF101: 3 classes of 5 videos, in fold F the videos F and F + 1 of each class are for testing; lists end in CRLF.
names=(Archery Biking Rowing)
kinds=(bounce orbit spin)
mkdir -p ucf/ucfTrainTestlist
mapfile -t kinds < <(cd toys/train && ls -d */ | tr -d /)
for c in 0 1 2; do
  printf '%d %s\r\n' $((c + 1)) "${names[c]}" >>ucf/ucfTrainTestlist/classInd.txt
  mkdir -p "ucf/UCF-101/${names[c]}"
  n=0
  for file in toys/*/"${kinds[c]}"/*.mp4; do
    n=$((n + 1))
    clip=${names[c]}/v_${names[c]}_g0${n}_c01.avi
    cp "$file" "ucf/UCF-101/$clip"
    for f in 1 2 3; do
      if [ $n -eq $f ] || [ $n -eq $((f + 1)) ]; then
        printf '%s\r\n' "$clip" >>ucf/ucfTrainTestlist/testlist0$f.txt
      else
        printf '%s %d\r\n' "$clip" $((c + 1)) >>ucf/ucfTrainTestlist/trainlist0$f.txt
      fi
    done
  done
done
evaluate() { try eval ucf101-svm --data ucf --model run --partial "$@"; }
small=(dataset.train.clips_per_video=3)

# ESC50: 5 folds of 2 files. A file is at several places of the folds' splits and is encoded once all the same: 10 of 40.
mkdir -p esc/meta esc/audio
printf 'filename,fold,target,category,esc10,src_file,take\n' >esc/meta/esc50.csv
for f in 1 2 3 4 5; do for c in 0 1; do
  printf '%d-1-A-%d.wav,%d,%d,kind%d,True,1,A\n' $f $c $f $c $c >>esc/meta/esc50.csv
  cp "$(ls toys/*/"${kinds[c]}"/*.mp4 | sed -n ${f}p)" esc/audio/$f-1-A-$c.wav
done; done
sounds() { try eval esc50-svm --data esc --model run --partial "${small[@]}" "$@"; }
sounds --out esc-all
check "esc50: every fold is done" [ "$rc" -eq 0 -a "$(grep -c '^fold [1-5] ' <<<"$out")" -ge 5 ]
check "esc50: a file is encoded once for all folds" \
  [ "$(sed -n 's/ files are taken over from .*train-3.*//p' <<<"$err" | awk '{n += $1} END {print n}')" = 30 ]
sounds --out esc-4 --fold 4
check "esc50: a fold alone makes the same bytes" cmp -s esc-all/fold-4/train-3.safetensors esc-4/fold-4/train-3.safetensors
try embed run esc-all/fold-1/manifest.jsonl --protocol train --clips 3 --modality audio --split train-1 --out one.safetensors
check "esc50: the first fold has the draws of its split alone" grep -q '^0 tensors differ' <<<"$("$xkd" diff one.safetensors esc-all/fold-1/train-3.safetensors)"

# The other two forms of the model; MATS has one teacher for both modalities.
for form in XKD_MAS XKD_MATS; do
  "$xkd" pretrain -c "$tiny" --data toys --out $form --max-steps 2 -q dataset.train.split= model.name=$form >/dev/null 2>&1
  try embed $form toys --split test --out $form.safetensors
  stdout_has "$form: features" 0 "3 files, 0 unreadable"
  try embed $form toys --split test --student --out student.safetensors
  stdout_has "$form: of the student" 0 "3 files, 0 unreadable"
  try diff $form.safetensors student.safetensors
  check "$form: which are others" [ "$rc" -eq 1 ]
  rm student.safetensors
  try eval ucf101-svm --data ucf --model $form --partial --fold 1 --out $form.row dataset.train.clips_per_video=1
  stdout_has "$form: the row" 0 "fold 1 "
done

evaluate --dry-run "${small[@]}"
stdout_has "a plan" 0 "fold 2: 9 training files, 27 clips; 6 test files, 18 clips; about"
check "writes nothing" [ ! -e fold-1 ]
evaluate --out e "${small[@]}"
stdout_has "from raw files to the table row" 0 "honest, 3 of 3 folds"
check "beside what the release would report" grep -q '^best, as released  *[0-9.]* +- [0-9.]*.*C chosen on the test split' <<<"$out"
check "and the paper" grep -q '^paper, XKD  *83.8' <<<"$out"
check "fold by fold with an interval" grep -q '^fold 3 .*C [0-9.e-]*, 95 % interval' <<<"$out"
check "and that it is of a part" grep -q '^fold 2: not the whole data set: 15 of 13320 files, 6 of 3734 listed for testing, 3 of 101 classes$' <<<"$out"
first=$out
stamp=$(stat -c %Y.%i e/*/*)
evaluate --out e "${small[@]}"
check "a second run gives the same" [ "$out" = "$first" ]
check "and does nothing" [ "$stamp" = "$(stat -c %Y.%i e/*/*)" ]
check "but say so" [ "$(grep -c 'done already' <<<"$err")" = 3 ]
evaluate --out e "${small[@]}" run.threads=2 --json
stdout_has "as JSON" 0 '"folds_of_set": 3, "honest": {"top1": {"mean": '
check "15 of 13320 files are not complete" grep -q '"complete": false, .*"files_official": \[15, 13320\], "tests_official": \[6, 3783\], "classes_official": \[3, 101\]' <<<"$out"
evaluate --out e "${small[@]}" --markdown
stdout_has "as Markdown" 0 '| paper, XKD-MAS | 81.7 |'
evaluate --out e --fold 2 "${small[@]}"
stdout_has "one fold says that it is one" 0 "not all folds: 1 of 3"
try svm run e/fold-1/manifest.jsonl --out s --train trainlist01 --test testlist01 --subsample 3 --modality video
honest=$(sed -n 's/^honest: top-1 \([0-9.]*\),.*/\1/p' <<<"$out")
check "a fold is what xkd svm gives" [ -n "$honest" -a "$(sed -n 's/^fold 1  *\([0-9.]*\) .*/\1/p' <<<"$first")" = "$honest" ]

# A released file is one fold's; the row's folds are all of them, each with its own lists.
printf 'dataset:\n  fold: 1\n  train:\n    split: "trainlist{fold:02d}"\n  test:\n    split: "testlist{fold:02d}"\n' >f1.yaml
evaluate --out e "${small[@]}" -c f1.yaml
check "a file of fold 1 gives the same row" [ "$out" = "$first" ]
evaluate --out e "${small[@]}" -c f1.yaml --fold 2 dataset.fold=3
check "and the same fold 2" [ "$rc" -eq 0 -a "$(grep '^fold 2 ' <<<"$out")" = "$(grep '^fold 2 ' <<<"$first")" ]
{ cat f1.yaml && echo 'num_workers: 4'; } >named.yaml
evaluate --out e "${small[@]}" -c named.yaml
check "keys without effect are named once" [ "$rc" -eq 0 -a "$(grep -c 'named.yaml: without effect here: num_workers$' <<<"$err")" = 1 ]
mv ucf/ucfTrainTestlist/testlist03.txt .
evaluate --out early "${small[@]}"
stderr_has "a list that a later fold lacks" 3 "testlist03.txt: is not there"
check "is found before the first one works" [ ! -e early ]
mv testlist03.txt ucf/ucfTrainTestlist

# Killed in between: finished folds and features stay.
"$xkd" eval ucf101-svm --data ucf --model run --partial --out k "${small[@]}" >/dev/null 2>&1 &
pid=$!
for _ in $(seq 1000); do [ -s k/fold-1/result.json ] && break; sleep 0.01; done
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
rm -f k/fold-3/result.json
check "a fold was finished" [ -s k/fold-1/result.json ]
evaluate --out k "${small[@]}"
check "a killed evaluation goes on to the same row" [ "$out" = "$first" ]
check "without doing the first fold again" grep -q 'k/fold-1: done already' <<<"$err"

# A training file has the draws of the first fold in which it trains, so later folds take it from there.
evaluate --out shared "${small[@]}"
check "a fold takes over what another has made" [ "$(sed -n 's/ files are taken over from .*train-3.*//p' <<<"$err" | tr '\n' ' ')" = "6 3 3 " ]
evaluate --out alone --fold 2 "${small[@]}"
check "which alone it makes itself" [ -z "$(grep 'taken over' <<<"$err")" ]
check "to the same bytes" cmp -s shared/fold-2/train-3.safetensors alone/fold-2/train-3.safetensors
rm -r shared/fold-3 && cp -r ucf touched && find touched -name '*.avi' -exec touch {} +
try eval ucf101-svm --data touched --model run --partial --out shared --fold 3 "${small[@]}"
check "but not of files that have changed" [ "$rc" -eq 0 -a -z "$(grep 'taken over' <<<"$err")" ]
rm -r touched

# Other figures are never mixed in.
evaluate --out e dataset.train.clips_per_video=2
stderr_has "other settings" 2 "e/fold-1/result.json: is of another model, other files or other settings"
evaluate --out e "${small[@]}" --student
stderr_has "another model" 2 "is of another model"
evaluate --out e -n dataset.train.clips_per_video=2
stderr_has "a plan refuses what the work would" 2 "e/fold-1/result.json: is of another model"
evaluate --out e -n --fold 2 "${small[@]}"
stdout_has "and knows what is done" 0 "fold 2: done already"
cd e && "$xkd" eval ucf101-svm --data ../ucf --model ../run --partial -n --fold 2 "${small[@]}" >../plan 2>&1; cd ..
check "of its folder alone" grep -q "^fold 2: 9 training files" plan
cp -r ucf ucf-again && find ucf-again -name '*.avi' -exec touch {} +
try eval ucf101-svm --data ucf-again --model run --partial --out e "${small[@]}"
stderr_has "other files of the same names" 2 "e/fold-1/result.json: is of another model, other files or other settings"
cp -a ucf/. ucf-again/
try eval ucf101-svm --data ucf-again --model run --partial --out e "${small[@]}"
check "the same files elsewhere" grep -q 'e/fold-1: done already' <<<"$err"
rm -r ucf-again
cp -r e other
sed -i 's/"xkd_fold_result": [0-9]*/"xkd_fold_result": 1/' other/fold-1/result.json
evaluate --out other "${small[@]}"
stderr_has "a result of another version" 2 "other/fold-1/result.json: is of another version of this program: take another --out"
rm other/fold-1/result.json && sed -i 's/.* //' other/fold-1/settings
evaluate --out other "${small[@]}"
stderr_has "a fold that another version began" 2 "other/fold-1: was begun by another version of this program: take another --out"
evaluate --out other -n --fold 1 "${small[@]}"
stderr_has "of a single fold too, and in a plan" 2 "was begun by another version"
rm -r other
rm e/fold-2/result.json
evaluate --out e "${small[@]}" train.seed=5
check "features of other settings" [ "$rc" -eq 2 ]
echo '{"xkd_fold_result": 1' >e/fold-2/result.json
evaluate --out e "${small[@]}"
stderr_has "a result that is none" 3 "e/fold-2/result.json: is no result of a fold"

# Videos on another disk.
mkdir linked && cp -r ucf/ucfTrainTestlist linked && ln -s "$PWD/ucf/UCF-101" linked/UCF-101
linked() { try eval ucf101-svm --data linked --model run --partial --out l --fold 1 "${small[@]}" "$@"; }
linked -n
stderr_has "a plan knows that links are refused" 3 "15 of 15 files are reached through links that lead out of this folder"
linked --follow-links
check "and follows them where it is allowed" code 0
try data import UCF101 linked --fold 1 --partial --out linked.jsonl
stderr_has "so are they by an import" 3 "allow it with --follow-links"
try data import UCF101 linked --fold 1 --partial --out linked.jsonl --follow-links
check "which notes that it followed them" [ "$rc" -eq 0 -a -n "$(head -n 1 linked.jsonl | grep '"follow_links":true')" ]
try embed run linked.jsonl --split testlist01 --out linked.npz
stderr_has "embed asks for the option again" 3 "linked.jsonl: names files that are reached through links"
try embed run linked.jsonl --split testlist01 --out linked.npz --follow-links
stdout_has "and takes it" 0 "6 files, 0 unreadable"
linked data.follow_links=true
check "either way of saying it is the same evaluation" grep -q 'l/fold-1: done already' <<<"$err"

# What does not fit the data set.
try eval ucf101-svm --data ucf --model run --out x
stderr_has "counts are checked" 3 "15 samples, the official set has 13320"
check "nothing is left behind" [ ! -e x ]
evaluate --out x --fold 4
stderr_has "a fold that is not there" 2 "UCF101 has no fold 4: 1 .. 3"
try eval kinetics400-svm --data ucf --model run --out x --fold 1
stderr_has "a set without folds" 2 "Kinetics400 has no folds"
try eval ucf101-svn --data ucf --model run --out x
stderr_has "an unknown evaluation" 2 "did you mean 'ucf101-svm'?"
try eval ucf101-svm --data ucf --out x
stderr_has "no model" 2 "want --data ROOT and --model MODEL"
try eval ucf101-svm --data toys --model run --out x --partial
stderr_has "the wrong tree" 3 "ROOT/ucfTrainTestlist/classInd.txt"
evaluate --out x nonsense=1
check "an unknown key" [ "$rc" -eq 2 ]
try eval esc50-svm --data ucf --model run/backbones/vid_teacher.safetensors --out x --partial
check "the wrong data for the wrong model" [ "$rc" -eq 3 ]
try eval ucf101-svm --data ucf --model run/backbones/aud_teacher.safetensors --out x --partial
stderr_has "a model of the other modality" 4 "has no video encoder"
mv ucf/UCF-101/Rowing ucf/Rowing
evaluate --out part "${small[@]}"
stdout_has "absent files: figures of a part say so" 0 "fold 1: not the whole data set: 10 of 13320 files, 6 of 3783 listed for testing, 3 of 101 classes, 5 of 15 listed files are absent"
check "they are counted" grep -q -A1 "^5 of 15 listed files are not there:$" <<<"$err"
check "and all are named" [ "$(sort part/fold-1/manifest.jsonl.missing | head -n 1)" = UCF-101/Rowing/v_Rowing_g01_c01.avi ]
evaluate --out part "${small[@]}" data.max_absent_fraction=0.4
check "the budget for them is no other evaluation" grep -q "part/fold-1: done already" <<<"$err"
try eval ucf101-svm --data ucf --model run --out gone
stderr_has "without --partial they are refused" 3 "That is more than data.max_absent_fraction=0.01 allows"
check "before anything is written" [ ! -e gone ]
try eval ucf101-svm --data ucf --model run --out gone data.max_absent_fraction=0.5
stderr_has "unless the budget is larger" 3 "15 samples, the official set has 13320"
mv ucf/Rowing ucf/UCF-101/Rowing
sed -i 's/^Rowing.*//' ucf/ucfTrainTestlist/trainlist01.txt
evaluate --out empty "${small[@]}" --fold 1
stderr_has "a class without training files" 3 "Rowing) has videos to test on but none to train on"
check "is found before anything is encoded" [ ! -e empty/fold-1/train-3.safetensors -a ! -e empty/fold-1/train-3.safetensors.partial ]
evaluate --out empty "${small[@]}" --fold 1 -n
stderr_has "in a plan too" 3 "Rowing) has videos to test on but none to train on"
printf 'Swimming/a.avi 4\r\n' >>ucf/ucfTrainTestlist/trainlist01.txt
evaluate --out empty "${small[@]}" --fold 1
stderr_has "a list of other classes" 3 'trainlist01.txt:10: "Swimming" is not the class of that line'

# Fine-tuning: the same tree, two epochs, one fold; stopped by a signal it goes on to the same figures.
quick=(dataset.crop_size=32 dataset.batch_size=4 hyperparams.num_epochs=2 eval_freq=1 hyperparams.lr.warmup_epochs=0 run.threads=1)
tune() { try eval ucf101-finetune --data ucf --model run --partial --fold 2 "${quick[@]}" "$@"; }
tune --dry-run
stdout_has "fine-tuning: a plan" 0 "fold 2: 9 training files, 6 test files of 3 clips; 2 epochs of 2 steps of 4 clips; "
check "with time and memory" grep -Eq 'parameters trained; about [0-9:.hmsd ]+ in training steps \(tests come on top\), [0-9.]+ ?[kMG]B$' <<<"$out"
tune --dry-run dataset.train.drop_last=false
stdout_has "a smaller last batch is a step" 0 "2 epochs of 3 steps of 4 clips"
tune --dry-run dataset.batch_size=100
stderr_has "a batch that the files do not fill becomes smaller" 0 "9 clips of 9 training files do not fill a batch of 100: batches of 9 are taken (dataset.batch_size)"
stdout_has "and the plan says so" 0 "2 epochs of 1 steps of 9 clips"
check "once" [ "$(grep -c 'do not fill' <<<"$err")" -eq 1 ]
tune --dry-run dataset.batch_size=100 train.accumulate=4
stdout_has "micro-batches divide it" 0 "2 epochs of 1 steps of 8 clips"
tune --dry-run dataset.batch_size=100 train.accumulate=20
stderr_has "fewer than the micro-batches are refused" 3 "9 samples do not fill one batch of 100"
check "and nothing is printed" [ -z "$out" ]
# A batch that no machine holds: the plan says what it takes, and takes none of it.
tune --dry-run dataset.batch_size=1000000 dataset.train.drop_last=false
stdout_has "a batch that no memory holds is planned" 0 "2 epochs of 1 steps of 1000000 clips"
check "with what it takes" grep -qE 'in training steps \(tests come on top\), [0-9]{3}[.][0-9] ?GB$' <<<"$out"
stderr_has "and a warning" 0 "GB are free: lower dataset.batch_size, or raise train.accumulate"
tune --dry-run dataset.batch_size=100 dataset.train.drop_last=false
stdout_has "or is the only step" 0 "2 epochs of 1 steps of 100 clips"
tune --out tuned
stdout_has "fine-tuning: the row" 0 "paper, XKD              94.1"
check "the last epoch is the honest one" grep -q '^honest, 1 of 3 folds .*last epoch' <<<"$out"
first=$out
tune --out tuned
check "a second run does nothing" [ "$out" = "$first" -a "$(grep -c 'done already' <<<"$err")" = 1 ]
tune --out stopped run.max_steps=2
stderr_has "a training that is not finished has no figure" 2 "ended at step 2 of 4, so there is no figure yet"
check "and no result" [ ! -e stopped/fold-2/result.json ]
tune --out stopped hyperparams.lr.base_lr=0.1
stderr_has "it does not go on with other settings" 2 "stopped/fold-2: was begun with another model"
tune --out stopped
check "it goes on to the same figures" [ "$out" = "$first" ]
try eval ucf101-finetune --data ucf --model run/backbones/aud_teacher.safetensors --out x --partial --fold 2
stderr_has "a model of the other modality" 4 "has no video encoder"

cp -r ucf junk
for n in 1 3; do echo junk >junk/UCF-101/Biking/v_Biking_g0${n}_c01.avi; done
try eval ucf101-finetune --data junk --model run --partial --fold 2 "${quick[@]}" --out bad data.max_bad_fraction=0.3
stdout_has "fine-tuning: unreadable files of both splits" 0 ", 1 + 1 files unreadable"
check "are counted at the end" grep -q "1 of 9 training files are unreadable, 1 of 6 test files are unreadable$" <<<"$out"
try eval ucf101-finetune --data junk --model run --partial --fold 2 "${quick[@]}" --out bad data.max_bad_fraction=0.3 --json
stdout_has "and in JSON" 0 '"unreadable": [1, 1]'

# FSD50K: several labels a file, mean average precision of a linear classifier. The sounds are those of the toys.
mkdir -p fsd/FSD50K.ground_truth fsd/FSD50K.dev_audio fsd/FSD50K.eval_audio
printf '0,Bark,/m/a\n1,Bell,/m/b\n2,Horn,/m/c\n' >fsd/FSD50K.ground_truth/vocabulary.csv
echo 'fname,labels,mids,split' >fsd/FSD50K.ground_truth/dev.csv
echo 'fname,labels,mids' >fsd/FSD50K.ground_truth/eval.csv
labels=('Bark,Bell' Bell 'Horn,Bell')
for c in 0 1 2; do
  n=0
  for file in toys/*/"${kinds[c]}"/*.mp4; do
    n=$((n + 1))
    if [ $n -gt 3 ]; then
      cp "$file" "fsd/FSD50K.eval_audio/$c$n.wav"
      echo "$c$n,\"${labels[c]}\",\"/m/a\"" >>fsd/FSD50K.ground_truth/eval.csv
    else
      cp "$file" "fsd/FSD50K.dev_audio/$c$n.wav"
      echo "$c$n,\"${labels[c]}\",\"/m/a\",train" >>fsd/FSD50K.ground_truth/dev.csv
    fi
  done
done
try eval fsd50k-linear --data fsd --model run --partial --out fsd-linear dataset.batch_size=4 dataset.train.clips_per_video=2 hyperparams.num_epochs=2
stdout_has "FSD50K: mean average precision" 0 "paper, XKD              45.8"
check "and nothing but it" [ -z "$(grep top-1 <<<"$out")" ]

# Kinetics-Sound: both modalities; classes that one split lacks.
mkdir -p ks/train/bowling ks/train/tap_dancing ks/val/bowling ks/val/tap_dancing
for c in 0 1; do
  class=$([ $c = 0 ] && echo bowling || echo tap_dancing)
  n=0
  for file in toys/*/"${kinds[c]}"/*.mp4; do
    n=$((n + 1))
    cp "$file" "ks/$([ $n -gt 3 ] && echo val || echo train)/$class/id${n}_000001_000011.mp4"
  done
done
try eval kinetics-sound-svm --data ks --model run --partial --out both dataset.train.clips_per_video=2
stdout_has "both modalities" 0 "paper, XKD              81.2"
# A file of sound alone: a WAV header and silence.
{
  printf 'RIFF\044\372\000\000WAVEfmt \020\000\000\000\001\000\001\000\200\076\000\000\000\175\000\000\002\000\020\000data\000\372\000\000'
  head -c 64000 /dev/zero
} >ks/train/bowling/id9_000001_000011.mp4
try eval kinetics-sound-svm --data ks --model run --partial --out half dataset.train.clips_per_video=2
stderr_has "half a pair is as good as unreadable" 3 "1 of 7 files could not be read"
check "and named" grep -q "train/bowling/id9_000001_000011.mp4: " <<<"$err"
check "no result" [ ! -e half/all/result.json ]
half=(eval kinetics-sound-svm --data ks --model run --partial --out half dataset.train.clips_per_video=2)
try "${half[@]}" data.max_bad_fraction=0.2 data.file_memory=8 data.decode_seconds=60 run.threads=2
stdout_has "with another budget the same folder goes on, and the figure says so" 0 "1 + 0 files unreadable"
check "with what was done" grep -q "going on: 7 of 7 files are done" <<<"$err"
check "and the end too" grep -q "^not the whole data set: 2 of 32 classes, 1 of 7 training files are unreadable, no list: not known what is absent$" <<<"$out"
rm ks/train/bowling/id9_000001_000011.mp4
try eval kinetics-sound-audio-svm --data ks --model run --partial --out sound dataset.train.clips_per_video=2
stdout_has "sound alone" 0 "paper, XKD              64.6"
rm -r ks/val/bowling
try eval kinetics-sound-svm --data ks --model run --out x
stderr_has "classes are counted" 3 "2 classes, the official set has 32"
mkdir -p k4 && cp -r ks/train ks/val k4/
try eval kinetics400-svm --data k4 --model run --out x
stderr_has "Kinetics400 too" 3 "2 classes, the official set has 400"
finish
