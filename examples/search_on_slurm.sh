#!/bin/bash
# The exercise in eight parts on a SLURM cluster. Download the images once, by running the command below with --forecast
# in place of --part; then submit this file from the repository's folder with `sbatch examples/search_on_slurm.sh`.
# Each task trains every eighth point into a journal of its own in results/. A task that is killed continues after its
# last finished epoch when it is submitted again. When all have ended, run the command once more without --part: it
# trains what is missing, then the weight decays at the best point, and writes the report.
#SBATCH --job-name=cnnlesson
#SBATCH --array=1-8
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --requeue
source .venv/bin/activate
export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK
python -m cnnlesson exercise --model alexnet resnet18 --data tiny-imagenet --epochs 5 \
    --lr 0.1 0.001 0.0001 --batch-size 16 32 64 --weight-decay 0.0005 --decay-at-best 0 0.05 \
    --out results --part "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
