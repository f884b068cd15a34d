"""Opens what a path names: the set to learn and, where there is one, the set to test with."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.cli.importing.arrays import Arrays, parts
from app.cli.importing.folder import PictureFolder
from app.cli.importing.source import Source
from app.cli.importing.table import Table
from app.errors import Invalid

TABLES = frozenset({".csv", ".tsv", ".tab", ".txt"})


@dataclass(frozen=True)
class Columns:
    """What the columns of a table mean."""

    label: str | None = None
    image: str | None = None
    ignored: Sequence[str] = ()


@contextmanager
def opened(path: Path, test: Path | None, columns: Columns) -> Iterator[tuple[Source, Source | None]]:
    """Open a set and its test set, closed after the block. Raises Invalid where a path is none of the known kinds."""
    with ExitStack() as stack:

        def kept(source: Source) -> Source:
            stack.callback(source.close)
            return source

        learn, beside = _halves(path, columns)
        train = kept(learn)
        if test is not None:
            if beside is not None:
                kept(beside)
            tested: Source | None = kept(_halves(test, columns)[0])
        else:
            tested = None if beside is None else kept(beside)
        if tested is not None and tested.kind != train.kind:
            raise Invalid(f"The set holds {train.kind}, and the test set {tested.kind}; both must be of one kind.")
        yield train, tested


def _halves(path: Path, columns: Columns) -> tuple[Source, Source | None]:
    """What a path holds to learn, and what it holds to test with."""
    if path.is_dir():
        if not (path / "train").is_dir():
            return PictureFolder(path), None
        test = path / "test"
        return PictureFolder(path / "train"), PictureFolder(test) if test.is_dir() else None
    if not path.is_file():
        raise Invalid(f"There is no file or folder {str(path)!r}.")
    if path.suffix.lower() == ".npz":
        train_part, test_part = parts(path)
        return Arrays(path, train_part), None if test_part is None else Arrays(path, test_part)
    if path.suffix.lower() in TABLES:
        return Table(path, columns.label, columns.image, columns.ignored), None
    raise Invalid(
        f"{str(path)!r} is neither a folder with a folder of pictures for each class, nor a .csv, .tsv or .npz file."
    )
