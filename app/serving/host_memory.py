"""Giving memory back to the machine after a version was let go: the allocator keeps it otherwise."""

import ctypes
from functools import cache

import torch


def give_back() -> None:
    """Return what is free to the system, and on CUDA to the device's other users. Takes about a millisecond."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@cache
def _malloc_trim() -> ctypes._NamedFuncPointer | None:
    """Find glibc's `malloc_trim`; other libraries have none."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
