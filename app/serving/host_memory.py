"""Giving memory back to the machine after a version was let go: the allocator keeps it otherwise."""

import ctypes
from collections.abc import Callable
from functools import cache

import torch


def give_back() -> None:
    """Return what is free to the system, and on CUDA to the device's other users. Takes a millisecond or so."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)
    torch.cuda.empty_cache()  # does nothing where CUDA was not used


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """Find glibc's `malloc_trim`; other libraries have none."""
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
    return trim
