"""One network on several GPUs: a process for each GPU, started by torchrun, and each takes its part of every batch.

Where a process trains alone, as is usual, `sum_over_processes`, `from_all_processes` and `wait_for_all` do nothing.
"""

import os
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


def join_processes() -> tuple[int, int]:
    """Join the processes that torchrun has started; returns this one's number, from 0, and how many there are.

    Each takes a GPU of its own, which is what "cuda" means there from then on. On a machine without a GPU all train on
    the processor.

    Raises:
        RuntimeError: torchrun has not started this process, or has started more than there are GPUs.
    """
    if "LOCAL_RANK" not in os.environ:
        raise RuntimeError(
            "this script is for several processes: start it with torchrun --standalone --nproc-per-node 2 SCRIPT.py, "
            "with the number of your GPUs in place of 2"
        )
    place = int(os.environ["LOCAL_RANK"])  # among the processes of this machine
    num_gpus = torch.cuda.device_count()
    if num_gpus:
        if place >= num_gpus:
            raise RuntimeError(
                f"there are more processes than GPUs on this machine ({num_gpus}): start it with torchrun "
                f"--nproc-per-node {num_gpus}"
            )
        torch.cuda.set_device(place)
    distributed.init_process_group("nccl" if num_gpus else "gloo")
    return distributed.get_rank(), distributed.get_world_size()


def data_parallel(model: nn.Module, train_batches) -> DistributedDataParallel:
    """`model` for several processes: all start with the weights of process 0, and each step is one of the joint batch.

    Args:
        model: on this process's device.
        train_batches: the `Batches` that it will be trained on, with `part=join_processes()`. Their `share` weights
            the gradients, so that parts of unequal size count for as many images as they have.
    """
    part = distributed.get_rank(), distributed.get_world_size()
    if train_batches.part != part:
        raise ValueError(
            f"the training batches are for part {train_batches.part}, but this is process {part[0]} of {part[1]}: "
            "give them part=join_processes()"
        )
    model.to(memory_format=torch.channels_last)  # as `train` wants it, before the gradients get their places
    parallel = DistributedDataParallel(model)
    parallel.register_comm_hook(train_batches, _joint_mean)
    return parallel


def _joint_mean(train_batches, bucket) -> torch.futures.Future[torch.Tensor]:
    """Make some of the gradients those of the mean loss over the joint batch, while the others are still computed.

    DistributedDataParallel's own mean over the processes would give an image of a smaller part more weight.
    """
    weighted = bucket.buffer().mul_(train_batches.share)
    return distributed.all_reduce(weighted, async_op=True).get_future().then(lambda future: future.value()[0])


def rank_and_world_size() -> tuple[int, int]:
    """This process's number, from 0, and how many train together: (0, 1) for one alone."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def sum_over_processes(numbers: tuple[float, ...], device: torch.device) -> tuple[float, ...]:
    """The sum of each number over all processes; every process must call it, and gets the same."""
    if rank_and_world_size()[1] == 1:
        return numbers
    sums = torch.tensor(numbers, dtype=torch.float64, device=device)
    distributed.all_reduce(sums)
    return tuple(sums.tolist())


def from_all_processes(value: Any) -> list:
    """The values of all processes, in their order; every process must call it, and gets all."""
    world_size = rank_and_world_size()[1]
    if world_size == 1:
        return [value]
    values = [None] * world_size
    distributed.all_gather_object(values, value)
    return values


def wait_for_all() -> None:
    """Return when every process has come here."""
    if rank_and_world_size()[1] > 1:
        distributed.barrier()
