"""A bounded queue of byte strings in memory that two processes share: one puts, the other one takes.

Made by the server, for what it hands to its scribe. Putting is a copy: no call to the system, no lock, nobody is woken.
What was put is there until it was let go, whichever of the two dies meanwhile. Knows nothing of what it holds.
"""

import mmap
import os
import struct
import tempfile
from collections.abc import Sequence
from contextlib import suppress

HEADER_BYTES = 4096
SOFT_BYTES = 8 << 20
"""Beyond so many bytes it goes on from the beginning as soon as there is room: it takes memory for more only while the
taker is behind."""

_LENGTH = struct.Struct("<I")
# Words of the header. The putter's: how many were put, where the next one goes, where the lap before this one ended.
_PUT, _TAIL, _LAP_END = 0, 1, 2
# The taker's: how many it let go, where the next one begins; both as they will be after the group that it has taken, up
# to where it is through with that; and how many it had to give up.
_DONE, _HEAD, _NEXT_DONE, _NEXT_HEAD, _THROUGH, _LOST = 8, 9, 10, 11, 12, 13


class Spool:
    """Byte strings end to end in a ring that none of them straddles. One putter and one taker at a time.

    A group that is taken is let go by `let_go`. A taker that comes after one that died in between gets the very same
    group first, so that what it does with it can be found done already.
    """

    def __init__(self, file: int) -> None:
        """Share the queue that lies in the open file; it may be closed then."""
        self._memory = mmap.mmap(file, 0)
        self._words = memoryview(self._memory)[:HEADER_BYTES].cast("q")
        self._size = len(self._memory) - HEADER_BYTES
        if self._words[_THROUGH] == self._words[_NEXT_DONE]:
            self._step()  # in the middle of which the taker before may have died

    def close(self) -> None:
        """Share it no longer."""
        self._words.release()
        self._memory.close()

    @property
    def done(self) -> int:
        """How many were let go since the beginning."""
        return self._words[_DONE]

    @property
    def depth(self) -> int:
        """How many were put and not let go."""
        return self._words[_PUT] - self._words[_DONE]

    @property
    def lost(self) -> int:
        """How many of those that were let go the taker had given up."""
        return self._words[_LOST]

    def put(self, one: bytes) -> bool:
        """Append it; False where there is no room."""
        need = _LENGTH.size + len(one)
        words = self._words
        head, tail = words[_HEAD], words[_TAIL]
        at = tail
        if tail < head:
            if head - tail <= need:
                return False
        elif need < head and (tail >= SOFT_BYTES or self._size - tail < need):
            at, words[_LAP_END] = 0, tail
        elif self._size - tail < need:
            return False
        start = HEADER_BYTES + at
        self._memory[start : start + need] = _LENGTH.pack(len(one)) + one
        words[_TAIL] = at + need
        words[_PUT] += 1
        return True

    def take(self, most: int, nbytes: int) -> Sequence[bytes]:
        """Give the oldest ones, not more than `most` of them, and none after `nbytes` together; empty if none is there.

        The same again until they are let go, by whoever takes.
        """
        words = self._words
        again = words[_NEXT_DONE] - words[_DONE]
        if again:
            most, nbytes = again, self._size
        tail, at = words[_TAIL], words[_HEAD]
        taken: list[bytes] = []
        while at != tail and len(taken) < most and nbytes > 0:
            if tail < at and at == words[_LAP_END]:
                at = 0
                continue
            start = HEADER_BYTES + at + _LENGTH.size
            (length,) = _LENGTH.unpack_from(self._memory, start - _LENGTH.size)
            taken.append(self._memory[start : start + length])
            nbytes -= length
            at += _LENGTH.size + length
        words[_NEXT_DONE] = words[_DONE] + len(taken)
        words[_NEXT_HEAD] = at
        return taken

    def let_go(self, *, lost: bool = False) -> None:
        """Let go of the group that was taken last; `lost` counts it as given up."""
        words = self._words
        if lost:
            words[_LOST] += words[_NEXT_DONE] - words[_DONE]
        words[_THROUGH] = words[_NEXT_DONE]
        self._give_back()
        self._step()

    def _step(self) -> None:
        self._words[_HEAD] = self._words[_NEXT_HEAD]
        self._words[_DONE] = self._words[_NEXT_DONE]

    def _give_back(self) -> None:
        """Return the group's memory to the system, of what is beyond that which it keeps."""
        begin, end = self._words[_HEAD], self._words[_NEXT_HEAD]
        if end < begin:  # the group's first part; the other one lies in what is kept, or is small
            end = self._words[_LAP_END]
        begin, end = (HEADER_BYTES + max(begin, SOFT_BYTES), HEADER_BYTES + end)
        begin, end = (-(-begin // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE)
        if begin < end and hasattr(mmap, "MADV_REMOVE"):
            with suppress(OSError):  # a file system that cannot
                self._memory.madvise(mmap.MADV_REMOVE, begin, end - begin)


def spool_file(nbytes: int) -> int:
    """Make an open file for a queue of so many bytes, in memory where the system can; it is not inherited."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("perennial-spool", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as unnamed:
            file = os.dup(unnamed.fileno())
    os.truncate(file, HEADER_BYTES + nbytes)
    return file
