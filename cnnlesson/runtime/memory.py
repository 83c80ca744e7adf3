"""The memory of the machine: reuse it, measure it, and advise what to do when it runs out."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h


def reuse_freed_memory() -> bool:
    """Let the process keep the memory that a training step frees, for the next step. Return whether this succeeded.

    By default glibc returns large blocks to the system, which clears them page by page when the next step needs them
    again. AlexNet's gradients need 244 MB per step: benchmarks/memory.py measures the difference. Call this function
    once before you train on a CPU. The process then keeps its memory until it ends. With other C libraries the function
    does nothing.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    largest = 2**31 - 1
    return bool(mallopt(_M_MMAP_THRESHOLD, largest)) and bool(mallopt(_M_TRIM_THRESHOLD, largest))


def reset_peak_memory(device: torch.device) -> None:
    """Let `peak_memory` measure from now on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak resident set size, see proc(5)


def peak_memory(device: torch.device) -> int | None:
    """The peak memory in bytes since `reset_peak_memory`: that of a GPU, or for a CPU that of the whole process.

    None if the system does not report it.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])  # "VmHWM:   123456 kB"
    return None


@contextmanager
def memory_advice(images: torch.Tensor) -> Iterator[None]:
    """If a step on the batch `images` runs out of memory, name its size and what to lower in the error."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError on a GPU, only RuntimeError on a CPU
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        batch_size, _, height, width = images.shape
        raise torch.OutOfMemoryError(
            f"out of memory on {images.device} with a batch of {batch_size} images of {height}×{width} pixels: "
            f"lower batch_size (for example to {max(1, batch_size // 2)}) or image_size, or shut down other notebooks "
            "on this device"
        ) from error
