#!/bin/sh
# The command of one machine of a Slurm allocation:
#     srun --nodes 2 --ntasks-per-node 1 --gpus-per-node 8 --kill-on-bad-exit=1 node.sh ARGUMENTS
# starts `torchrun ARGUMENTS` on each machine with a common rendezvous. See docs/guides/gpus.md for the setting.
set -eu
leader=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
exec torchrun \
  --nnodes "$SLURM_NNODES" --node-rank "$SLURM_NODEID" --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" \
  --master-addr "$leader" --master-port "$((20000 + SLURM_JOB_ID % 10000))" \
  "$@"
