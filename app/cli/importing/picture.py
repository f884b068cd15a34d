"""Pictures on their way to the server: made from arrays, brought into a form it takes, and seen as fingerprints."""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from app.cli.importing.source import Unreadable

THUMB_SIDE = 6
THUMB_BYTES = THUMB_SIDE * THUMB_SIDE * 3

_TAKEN = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")
_DAMAGE = (OSError, ValueError, EOFError, SyntaxError, TypeError, LookupError, Image.DecompressionBombError)


@dataclass(frozen=True, slots=True)
class Look:
    """What a picture looks like from afar."""

    bits: int  # 64: whether each of 8 × 8 places is brighter than the one left of it
    thumb: bytes  # (THUMB_SIDE, THUMB_SIDE, 3) uint8
    side: int  # the longer one, in pixels
    grey: bool


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Write (height, width), (height, width, 1) or (height, width, 3) as a PNG file."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    return _png(Image.fromarray(np.ascontiguousarray(pixels)))


def accepted(content: bytes) -> bytes:
    """Give PNG, JPEG and WebP files as they are, other pictures as PNG. Raises Unreadable."""
    if content.startswith(_TAKEN):
        return content
    try:
        with Image.open(BytesIO(content)) as image:
            return _png(image if image.mode in {"L", "RGB", "RGBA", "I;16"} else image.convert("RGBA"))
    except _DAMAGE as error:
        raise Unreadable("it is no picture that can be read") from error


def look(content: bytes) -> Look:
    """See a picture from afar. Raises Unreadable.

    The bits are a difference hash: of the grey picture shrunk to 9 × 8, each pixel against its left neighbour
    (Krawetz 2013, "Kind of Like That").
    """
    try:
        with Image.open(BytesIO(content)) as image:
            side = max(image.size)
            grey = image.mode in {"1", "L", "LA", "I;16", "I"}
            image.draft("RGB", (64, 64))  # a JPEG decodes at an eighth for an eighth of the time
            colour = image.convert("RGB")
        small = np.asarray(colour.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)  # (8, 9)
        bits = np.packbits(small[:, 1:] > small[:, :-1]).tobytes()
        thumb = colour.resize((THUMB_SIDE, THUMB_SIDE), Image.Resampling.BOX).tobytes()
    except _DAMAGE as error:
        raise Unreadable("it is no picture that can be read") from error
    return Look(int.from_bytes(bits, "big"), thumb, side, grey)


def _png(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()
