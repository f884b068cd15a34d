"""A folder with one subfolder for each class, holding pictures."""

from pathlib import Path

from app.cli.importing.picture import accepted
from app.cli.importing.source import Kind, Unreadable
from app.errors import Invalid

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})


class PictureFolder:
    """Pictures below `root`; the first folder on the way is the class. Hidden files and other files are passed over."""

    kind: Kind = "image"

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: list[tuple[str, str]] = []  # label, path below the root
        for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
            files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
            self._files += [
                (folder.name, str(file.relative_to(root))) for file in files if not file.name.startswith(".")
            ]
        if not self._files:
            raise Invalid(
                f"{str(root)!r} holds no pictures in folders; expected one folder for each class, "
                "as in cats/1.png, dogs/1.png."
            )

    def __len__(self) -> int:
        return len(self._files)

    def label(self, index: int) -> str:
        return self._files[index][0]

    def read(self, index: int) -> bytes:
        return read_picture(self._root / self._files[index][1])

    def place(self, index: int) -> str:
        return self._files[index][1]

    def close(self) -> None:
        """Nothing is open between two reads."""


def read_picture(file: Path) -> bytes:
    """Give a picture file as the server takes it. Raises Unreadable."""
    try:
        return accepted(file.read_bytes())
    except OSError as error:
        raise Unreadable(f"{file.name}: {error.strerror or error}") from error
