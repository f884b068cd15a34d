"""An `.npz` file with the inputs in `x` and their classes in `y`.

The inputs are unpacked into a file of their own and read from there row by row, so that they never fill the memory.
"""

import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.cli.importing.picture import png
from app.cli.importing.source import Kind, Unreadable
from app.errors import Invalid

NAMES = "expected arrays `x` and `y`, or `x_train`, `y_train` and `x_test`, `y_test`"


class Arrays:
    """Pictures as uint8 (count, height, width) or (count, height, width, 1 or 3); vectors as (count, size) numbers.

    Where the file has `class_names`, a class is named by its place there.
    """

    def __init__(self, file: Path, part: str = "") -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="perennial-import-")
        try:
            self._x, self._y = _unpacked(file, part, Path(self._folder.name))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            self._folder.cleanup()
            raise Invalid(f"{str(file)!r} cannot be read: {error}.") from error
        except Invalid:
            self._folder.cleanup()
            raise
        self.kind: Kind = "features" if self._x.ndim == 2 else "image"

    def __len__(self) -> int:
        return len(self._y)

    def label(self, index: int) -> str:
        return self._y[index]

    def read(self, index: int) -> bytes:
        row = self._x[index]
        if self.kind == "image":
            return png(row)
        if not np.isfinite(row).all():
            raise Unreadable("it holds numbers that are not finite")
        return np.asarray(row, "<f8").tobytes()

    def place(self, index: int) -> str:
        return f"row {index}"

    def close(self) -> None:
        self._folder.cleanup()


def parts(file: Path) -> tuple[str, str | None]:
    """What the names of the arrays to learn and to test end with; None without a test part. Raises Invalid."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = set(archive.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise Invalid(f"{str(file)!r} is no .npz file: {error}.") from error
    if {"x_train.npy", "y_train.npy"} <= names:
        return "_train", "_test" if {"x_test.npy", "y_test.npy"} <= names else None
    if {"x.npy", "y.npy"} <= names:
        return "", None
    raise Invalid(f"{str(file)!r} holds {', '.join(sorted(names)) or 'nothing'}; {NAMES}.")


def _unpacked(file: Path, part: str, folder: Path) -> tuple[npt.NDArray[Any], list[str]]:
    with zipfile.ZipFile(file) as archive, archive.open(f"x{part}.npy") as packed, (folder / "x.npy").open("wb") as out:
        shutil.copyfileobj(packed, out)
    x = np.load(folder / "x.npy", mmap_mode="r", allow_pickle=False)
    with np.load(file, allow_pickle=False) as archive:
        y = archive[f"y{part}"]
        class_names = [str(name) for name in archive["class_names"]] if "class_names" in archive.files else None
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or len(x) != len(y):
        raise Invalid(f"x has the shape {x.shape} and y {y.shape}; expected one y for each x.")
    picture = x.dtype == np.uint8 and (x.ndim == 3 or (x.ndim == 4 and x.shape[3] in {1, 3}))
    vector = x.ndim == 2 and x.dtype.kind in "iufb"
    if not picture and not vector:
        raise Invalid(
            f"x is {x.dtype} of the shape {x.shape}; expected uint8 pictures (count, height, width[, 1 or 3]) "
            "or vectors of numbers (count, size)."
        )
    if y.dtype.kind == "f" and (y != np.floor(y)).any():
        raise Invalid("y holds numbers with fractions; expected classes.")
    values = y.astype(np.int64).tolist() if y.dtype.kind == "f" else y.tolist()
    if class_names is not None and y.dtype.kind in "iuf":
        if min(values) < 0 or max(values) >= len(class_names):
            raise Invalid(f"y names a class beyond the {len(class_names)} of class_names.")
        return x, [class_names[value] for value in values]
    known = {value: str(value) for value in set(values)}
    return x, [known[value] for value in values]
