"""Plain JPEGs decoded without Pillow's reading of the file: what cameras' extras do not touch, at a third of the cost.

Called by `ImagePreprocessor`. Both decode with libjpeg-turbo and give the same pixels; what is not plain, or damaged in
any way, is left to Pillow, which knows what to say of it. Knows nothing of resizing.
"""

import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

_END = b"\xff\xd9"
_BASELINE, _EXIF, _ADOBE, _SCAN = 0xC0, 0xE1, 0xEE, 0xDA
_SEGMENTS = 64  # before the pixels; real files have about ten
_LEAST_SHRINK = 2  # from where Pillow decodes at a fraction of the size


def has_end(content: bytes) -> bool:
    """Say whether the marker that ends a JPEG is in it: a decoder is content without the file's last bytes."""
    return content.endswith(_END) or _END in content


def decoded(content: bytes, size: int, most_pixels: int) -> Tensor | None:
    """Give (1 or 3, height, width) uint8 as a view that may be permuted; None where Pillow is to decode.

    Plain is: one scan of 8 bits, grey or in three colours, without EXIF and Adobe's colour marker, nothing after its
    end, at most `most_pixels`, and not so large that it is decoded at half the size or less on its way to `size`.
    """
    header = _plain_header(content)
    if header is None or not _decoder_is_there():
        return None
    width, height, colours = header
    if width * height > most_pixels or min(width, height) // (2 * size) >= _LEAST_SHRINK:
        return None
    if not content.endswith(_END):  # a photo cut short may still hold its thumbnail's end
        return None
    try:
        pixels: Tensor = torch.ops.image.decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), colours)
    except RuntimeError:
        return None
    return pixels if pixels.shape == (colours, height, width) else None


def _plain_header(content: bytes) -> tuple[int, int, int] | None:
    """Read the segments to the first scan: width, height and colours, or None if something in it is not plain."""
    if content[:2] != b"\xff\xd8":
        return None
    at, found = 2, None
    for _ in range(_SEGMENTS):
        if len(content) < at + 10 or content[at] != 0xFF:
            return None
        marker = content[at + 1]
        if marker == _SCAN:
            # All colours in one scan: then there is no other, and it is decoded in one pass.
            return found if found is not None and content[at + 4] == found[2] else None
        if marker == _BASELINE:
            if found is not None or content[at + 4] != 8:
                return None
            height = content[at + 5] << 8 | content[at + 6]
            width = content[at + 7] << 8 | content[at + 8]
            colours = content[at + 9]
            if colours not in {1, 3} or not width or not height:
                return None
            found = (width, height, colours)
        elif marker in {_EXIF, _ADOBE} or not (0xE0 <= marker <= 0xEF or marker in {0xC4, 0xDB, 0xDD, 0xFE}):
            return None
        at += 2 + (content[at + 2] << 8 | content[at + 3])
    return None


@cache
def _decoder_is_there() -> bool:
    """Load torchvision's decoder alone: the whole package takes seconds, and warns of its decoders from 0.29."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    if not hasattr(torch.ops.image, "decode_jpeg"):
        load: Callable[[Path], None] = torch.ops.load_library
        for library in Path(spec.origin).parent.glob("image*.so"):
            try:
                load(library)
            except OSError:
                return False
    return hasattr(torch.ops.image, "decode_jpeg")
