"""One trial: its epochs, with whatever goes wrong told in one line, and what it will cost, from a few real steps."""

import gc
import inspect
import math
import os
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from cnnlesson.data.batches import Batches, watch_batches
from cnnlesson.runtime.checkpoint import CheckpointError
from cnnlesson.runtime.display import one_line
from cnnlesson.runtime.memory import peak_memory, reset_peak_memory
from cnnlesson.training import Epoch

STEPS = 8  # of each pass; the first is not counted, as memory is allocated and kernels are chosen in it


class TrialError(ValueError):
    """A trial cannot be finished; the text is the reason in one line."""


# Points, each with what has become of its trial: an epoch, None at its end, or why it failed.
Outcomes = Generator[tuple[dict, Epoch | TrialError | None], None, None]


def epochs_of(run: Callable, point: Mapping[str, float], checkpoint: str | os.PathLike) -> Generator[Epoch, None, None]:
    """The epochs of one trial, `run(**point)`, called with `checkpoint` too if `run` takes it.

    Raises:
        TrialError: `run` has raised, or has yielded something else.
        CheckpointError: the disk is full, which is not the trial's fault.
    """
    num_epochs = 0
    try:
        parameters = inspect.signature(run).parameters
        takes_checkpoint = "checkpoint" in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())
        for epoch in run(**point, checkpoint=checkpoint) if takes_checkpoint else run(**point):
            if not isinstance(epoch, Epoch):
                raise TypeError(f"run must yield each Epoch, as train does, but it yields a {type(epoch).__name__}")
            num_epochs += 1
            yield epoch
    except CheckpointError:
        raise
    except (Exception, SystemExit) as error:
        raise TrialError(one_line(error)) from error
    if num_epochs == 0:
        raise TrialError("run has yielded no Epoch")


class Cost(NamedTuple):
    """What one trial takes: seconds, and the peak memory in GB of the GPU or the process (nan if it is unknown)."""

    start: float  # until the first step: the network is built, the images are moved to the device
    epoch: float
    epochs: int
    memory_gb: float

    @property
    def seconds(self) -> float:
        return self.start + self.epochs * self.epoch


def measure(run: Callable, point: Mapping[str, float], device: torch.device) -> Cost:
    """Run a few steps of one trial, and write one checkpoint, to see what the whole will cost.

    `run` must use `cnnlesson.data.Batches`; with other batches the whole first epoch is run.

    Raises:
        TrialError: as `epochs_of` does.
    """
    passes: list[tuple[Batches, list[float]]] = []  # each with the times before its steps

    def watch(batches: Batches, number: int) -> bool:
        if batches.device.type == "cuda":
            torch.cuda.synchronize(batches.device)
        if number == 0:
            passes.append((batches, []))
        passes[-1][1].append(time.perf_counter())
        return number < STEPS

    reset_peak_memory(device)
    start = last_step = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, watch_batches(watch):
        epochs = epochs_of(run, point, Path(folder) / "checkpoint.pt")
        first = next(epochs)
        end = time.perf_counter()
        epochs.close()
    memory_gb = (peak_memory(device) or math.nan) / 1e9
    del epochs
    gc.collect()  # the network goes before the next one comes
    seconds_per_epoch, first_step = 0.0, start
    for batches, times in passes:
        steps = [after - before for before, after in pairwise(times)]
        num_steps = len(batches.image_set) / batches.batch_size  # the last batch may be a part of one
        seconds_per_epoch += num_steps * median(steps[1:] or steps)
        first_step, last_step = passes[0][1][0], times[-1]
    seconds_per_epoch += end - last_step  # the checkpoint, or an epoch without steps that can be watched
    return Cost(first_step - start, seconds_per_epoch, first.epochs, memory_gb)
