"""How long a search will take, from a few real steps."""

import gc
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch

from cnnlesson.data.batches import Batches, watch_batches
from cnnlesson.runtime.memory import peak_memory, reset_peak_memory
from cnnlesson.search.trial import epochs_of

STEPS = 8  # of each pass; the first is not counted, as memory is allocated and kernels are chosen in it


@dataclass(frozen=True)
class Cost:
    """What one trial takes, in seconds, and the most memory that its process had, in bytes (None where unknown)."""

    start: float  # until the first step: the network is built, the images are moved to the device
    epoch: float
    epochs: int
    peak_bytes: int | None

    @property
    def seconds(self) -> float:
        return self.start + self.epochs * self.epoch


def measure(run: Callable, point: dict) -> Cost:
    """Make a few steps of one trial, and write one checkpoint, to see what the whole will cost.

    `run` must use `cnnlesson.data.Batches`; with other batches the whole first epoch is made.

    Raises:
        TrialError: as `epochs_of` does.
    """
    passes = []

    def watch(batches: Batches, number: int) -> bool:
        if batches.device.type == "cuda":
            torch.cuda.synchronize(batches.device)
        if number == 0:
            passes.append((batches, []))
        passes[-1][1].append(time.perf_counter())
        return number < STEPS

    reset_peak_memory()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, watch_batches(watch):
        epochs = epochs_of(run, point, Path(folder) / "checkpoint.pt")
        first = next(epochs)
        end = time.perf_counter()
        epochs.close()
    peak = peak_memory()
    del epochs
    gc.collect()  # the network goes before the next one comes
    if not passes:
        return Cost(0, end - start, first.epochs, peak)
    steps = sum(_seconds_of_pass(batches, times) for batches, times in passes)
    after = end - passes[-1][1][-1]  # the checkpoint
    return Cost(passes[0][1][0] - start, steps + after, first.epochs, peak)


def _seconds_of_pass(batches: Batches, times: Sequence[float]) -> float:
    seconds = [after - before for before, after in pairwise(times)]
    num_steps = len(batches.image_set) / batches.batch_size  # the last batch may be a part of one
    return num_steps * median(seconds[1:] or seconds)
