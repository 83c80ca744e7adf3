"""One setting of the C library that makes training on a processor faster."""

import ctypes
import sys

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
