"""Train one ResNet-18 on several GPUs with DistributedDataParallel, in one process per GPU. Start it with

    torchrun --standalone --nproc-per-node 2 examples/train_on_several_gpus.py

and the number of your GPUs in place of 2. Without a GPU, the processes share the CPU. If a run stops, the same command
continues after the last finished epoch, with any number of processes.
"""

import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from cnnlesson.data import Batches, shapes, split
from cnnlesson.models import resnet18
from cnnlesson.runtime.atomic import atomic_write
from cnnlesson.training import evaluate, train_one_epoch

EPOCHS = 5
BATCH_SIZE = 64  # of all processes together: each takes an equal part of every batch
CHECKPOINT = Path("results/several_gpus.pt")

# Each process finds the others through the environment variables that torchrun has set, and takes a GPU of its own.
if "LOCAL_RANK" not in os.environ:
    raise SystemExit("this script runs in several processes: start it with torchrun, as its first lines show")
if torch.cuda.is_available():
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    dist.init_process_group("nccl")
else:
    device = torch.device("cpu")
    dist.init_process_group("gloo")
rank, world_size = dist.get_rank(), dist.get_world_size()
torch.manual_seed(rank)  # dropout differs between processes

# DistributedDataParallel copies the weights of process 0 to the others. In each backward pass it averages the gradients
# over all processes, so that all of them take the same step.
model = resnet18(num_classes=10).to(device, memory_format=torch.channels_last)
parallel_model = DistributedDataParallel(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)

num_finished = 0
if CHECKPOINT.exists():
    state = torch.load(CHECKPOINT, map_location=device, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    num_finished = state["num_finished"]

# Each process evaluates its own part of the validation images.
train_set, val_set = split(shapes(seed=0).train, (0.9, 0.1), seed=0)
val_part = val_set[torch.arange(rank, len(val_set), world_size)]
val_batches = Batches(val_part, min(BATCH_SIZE, len(val_part)), image_size=64, device=device)

for epoch in range(num_finished, EPOCHS):
    # All processes shuffle the images in the same way. Then each takes every world_size-th one. Up to world_size - 1
    # images are left out, because all processes must have the same number of batches: they wait for each other.
    order = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(epoch))
    order = order[: len(order) // world_size * world_size]
    part = train_set[order[rank::world_size]]
    train_batches = Batches(part, BATCH_SIZE // world_size, image_size=64, device=device)
    train_one_epoch(parallel_model, train_batches, optimizer)

    # Batch norm's running statistics come from each process's own images: all continue with those of process 0.
    for buffer in model.buffers():
        dist.broadcast(buffer, src=0)

    # Sums over images can be added up over processes. Means cannot, because the parts may differ in size.
    score = evaluate(model, val_batches)
    sums = torch.tensor([score.loss, score.accuracy, 1], dtype=torch.float64, device=device) * score.num_images
    dist.all_reduce(sums)
    loss, accuracy = (sums[:2] / sums[2]).tolist()

    # All processes have the same weights and figures: one of them prints and saves.
    if rank == 0:
        print(f"epoch {epoch + 1}: validation loss {loss:.3f}, accuracy {accuracy:.1%}", flush=True)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "num_finished": epoch + 1}
        CHECKPOINT.parent.mkdir(exist_ok=True)
        with atomic_write(CHECKPOINT) as unfinished:
            torch.save(state, unfinished)

# End together: the others wait until process 0 has saved, and the reducer is gone before its connections close.
dist.barrier()
del parallel_model
dist.destroy_process_group()
