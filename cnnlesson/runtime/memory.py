"""The memory of the machine: reuse it, measure it, and say what to do when it runs out."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # the numbers in glibc's malloc.h


def reuse_freed_memory() -> bool:
    """Let the process keep the memory that a training step frees, for the next step; True where that can be set.

    glibc hands each freed block of some size back to the system, which clears it page by page when the next step
    asks for it again. AlexNet's gradients alone are 244 MB a step: benchmarks/memory.py measures the difference. Call
    it once, before training on a processor; memory then stays with the process until it ends. It does nothing where
    the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    largest = 2**31 - 1
    return bool(mallopt(_M_MMAP_THRESHOLD, largest)) and bool(mallopt(_M_TRIM_THRESHOLD, largest))


def reset_peak_memory() -> None:
    """Let `peak_memory` count from now on."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # see proc(5): the peak resident set size starts anew


def peak_memory() -> int | None:
    """The most memory, in bytes, since `reset_peak_memory`: of the GPU, or of the whole process on a processor.

    None where the system does not tell.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])  # "VmHWM:   123456 kB"
    return None


@contextmanager
def memory_advice(images: torch.Tensor) -> Iterator[None]:
    """Says which batch was too large, and what to lower, where a step runs out of memory."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError on a GPU, a plain RuntimeError on a processor
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        batch_size, _, height, width = images.shape
        raise torch.OutOfMemoryError(
            f"out of memory on {images.device} with a batch of {batch_size} images of {height}×{width} pixels: "
            f"lower batch_size (to {max(1, batch_size // 2)}, say) or image_size, or end other notebooks on this device"
        ) from error
