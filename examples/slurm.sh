#!/bin/bash
# A pre-training on two machines of eight processors each, with two ranks a machine. Shortly before the time is up SLURM sends
# a signal. The ranks save and exit with 75, and this script queues the job again, which then continues.
#SBATCH --job-name=xkd
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=4
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
run=runs/first
videos=videos.jsonl # in a folder that all machines see; 'xkd data index' makes it
how=()
[ -e "$run/config.yaml" ] && how=(--resume)
# Since SLURM 22.05 srun does not take the processors of a rank from the job. A rank that ends must not end the others: they
# save, or say who was lost.
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=0 \
  xkd pretrain --data "$videos" --out "$run" num_node=2 dataset.batch_size=128 "${how[@]}"
code=$?
if [ $code -eq 75 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit $code
