"""What a labelled set is to the importer: a row of samples, each read only when it is needed.

The kinds of sets (`folder`, `table`, `arrays`) have this form; `sets` opens them.
"""

from typing import Literal, Protocol

from app.errors import Invalid

Kind = Literal["image", "features"]


class Unreadable(Invalid):
    """One sample of a set cannot be read; the others can."""


class Source(Protocol):
    """Labelled samples in an order that is the same every time."""

    kind: Kind

    def __len__(self) -> int: ...

    def label(self, index: int) -> str:
        """Its class."""

    def read(self, index: int) -> bytes:
        """Its payload: a picture file, or float64 numbers, little-endian. Raises Unreadable."""

    def place(self, index: int) -> str:
        """Where it stands, for a person."""

    def close(self) -> None:
        """Let go of files."""
