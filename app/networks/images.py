"""Pictures: what is accepted, how it is decoded, resized and normalised.

PNG, JPEG and WebP of any size, upright by their EXIF orientation, on white where they are transparent, resized to
size × size. Size and format are read before a pixel is decoded, so a bomb costs nothing.

Pillow decodes, and `jpeg.decoded` the plain JPEGs for it: the same pixels sooner. Decision record 0006 says why not
torchvision alone.
"""

import struct
import zlib
from collections.abc import Sequence
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from app.errors import InvalidItem
from app.networks import jpeg
from app.recipe import ImageInput

MAX_PIXELS = 25_000_000
MAX_SCANS = 100
"""Scans of a progressive JPEG; real ones have about ten, and each costs a pass over all pixels."""

_FORMATS = ("PNG", "JPEG", "WEBP")
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")
_DAMAGE = (OSError, ValueError, EOFError, SyntaxError, TypeError, LookupError, struct.error, zlib.error, Warning)
"""What Pillow raises on bytes that are not what they claim, and its warnings where these are errors."""

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Mean and deviation that torchvision's classifiers were trained with, and for grey their averages.
_IMAGENET = {3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), 1: ((0.449,), (0.226,))}


class ImagePreprocessor:
    """`pretrained` says whose normalisation: ImageNet's, or [0, 1] brought to mean 0.5 and deviation 0.5."""

    def __init__(self, shape: ImageInput, *, pretrained: bool) -> None:
        self._size = shape.size
        self._channels = shape.channels
        mean, std = _IMAGENET[shape.channels] if pretrained else ((0.5,), (0.5,))
        self._scale = torch.tensor((mean, std)).view(2, -1, 1, 1) * 255  # (mean and deviation, channels or 1, 1, 1)

    def check(self, content: bytes) -> None:
        """Decode the picture and drop it: nothing less tells a whole file from a damaged one.

        Codes: empty, not_an_image, image_too_large, animated_image, truncated_image.
        """
        self.decode(content)

    def decode(self, content: bytes) -> Tensor:
        """Give (channels, size, size) uint8; raises what `check` raises."""
        plain = jpeg.decoded(content, self._size, MAX_PIXELS)  # (colours, height, width), or None
        if plain is not None and plain.shape == (self._channels, self._size, self._size):
            return plain.contiguous()
        image = _opened(content) if plain is None else _image(plain)
        try:
            small = self._square(image)
        except (Image.DecompressionBombError, *_DAMAGE) as error:
            raise _damaged() from error
        pixels = torch.from_numpy(np.array(small))  # (size, size) or (size, size, 3)
        return pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1).contiguous()

    def decode_many(self, contents: Sequence[bytes]) -> list[Tensor | InvalidItem]:
        """Decode one after the other: pictures cost what they cost."""
        return [self._decoded(content) for content in contents]

    def stacked(self, items: Sequence[Tensor]) -> Tensor:
        """Stack to (batch, channels, size, size) uint8."""
        if len(items) == 0:
            return torch.empty((0, self._channels, self._size, self._size), dtype=torch.uint8)
        return torch.stack(list(items))

    def normalised(self, stacked: Tensor) -> Tensor:
        """Give (batch, channels, size, size) float32 of mean 0 and deviation 1."""
        mean, std = self._scale.to(stacked.device)
        return stacked.to(torch.float32).sub_(mean).div_(std)

    def batch(self, items: Sequence[Tensor]) -> Tensor:
        """Stack to (batch, channels, size, size) float32, normalised."""
        return self.normalised(self.stacked(items))

    def _decoded(self, content: bytes) -> Tensor | InvalidItem:
        try:
            return self.decode(content)
        except InvalidItem as error:
            return error

    def _square(self, image: Image.Image) -> Image.Image:
        """Decode, and make it size × size, upright, opaque, grey or in colour."""
        # A JPEG can be decoded at 1/2, 1/4 or 1/8 at a fraction of the cost; twice the target loses nothing seen.
        image.draft(None, (2 * self._size, 2 * self._size))
        image.load()
        if image.mode.startswith("I"):  # a PNG of 16 bits a channel; Pillow would cut, not scale
            wide = np.asarray(image).astype(np.int32)
            eight = Image.fromarray(((wide + 128) // 257).clip(0, 255).astype(np.uint8))
        else:
            eight = image.convert("RGBA" if image.has_transparency_data else "RGB" if image.mode != "L" else "L")
        # Bilinear over the area that a pixel covers, opacity-weighted: Pillow's own antialiasing.
        small = eight.resize((self._size, self._size), Image.Resampling.BILINEAR)
        orientation = _orientation(image)
        if orientation in _TURNS:
            small = small.transpose(_TURNS[orientation])
        if small.mode == "RGBA":
            small = Image.alpha_composite(Image.new("RGBA", small.size, "white"), small)
        return small.convert("L" if self._channels == 1 else "RGB")


def _image(pixels: Tensor) -> Image.Image:
    """Give decoded pixels, (1 or 3, height, width) uint8, as a picture."""
    rows = pixels.permute(1, 2, 0).contiguous().numpy()  # (height, width, 1 or 3)
    return Image.fromarray(rows[:, :, 0] if rows.shape[2] == 1 else rows)


def _opened(content: bytes) -> Image.Image:
    """Read the headers alone; InvalidItem if the pixels are not to be decoded.

    Pillow's warnings are left alone, since filters of warnings are shared by all threads: the one that matters
    speaks of pictures above our own limit, which are refused here in any case.
    """
    if not content:
        raise InvalidItem("empty", "Got no bytes; expected a PNG, JPEG or WebP picture.")
    try:
        image = Image.open(BytesIO(content), formats=_FORMATS)
        width, height = image.size
        # A JPEG may carry a second picture for depth or brightness, as phones write it; the first is the photo.
        frames = getattr(image, "n_frames", 1) if image.format in {"PNG", "WEBP"} else 1
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large("this is far larger") from error
    except _DAMAGE as error:
        if content.startswith(_SIGNATURES):
            raise _damaged() from error
        raise InvalidItem("not_an_image", "Expected a PNG, JPEG or WebP picture; these bytes are none.") from error
    if width * height > MAX_PIXELS:
        raise _too_large(f"this is {width} × {height}")
    if frames > 1:
        raise InvalidItem("animated_image", f"Expected one picture, got {frames} frames. Send one frame an item.")
    if image.format == "PNG":
        if not _png_is_whole(content):
            raise _damaged()
    elif image.format != "WEBP":
        if content.count(b"\xff\xda") > MAX_SCANS:
            raise _too_large("this JPEG has too many scans")
        if not jpeg.has_end(content):
            raise _damaged()
    return image


def _png_is_whole(content: bytes) -> bool:
    """Walk the chunks to IEND: decoders are content without the file's last bytes."""
    at = 8
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        if content[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + length
    return False


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except _DAMAGE:
        return 1  # the picture is whole, only what is said about it is not


def _damaged() -> InvalidItem:
    return InvalidItem("truncated_image", "The picture is cut short or damaged. Send the whole file again.")


def _too_large(what: str) -> InvalidItem:
    limit = f"{MAX_PIXELS // 1_000_000} million pixels"
    return InvalidItem("image_too_large", f"Expected at most {limit}; {what}. Send it scaled down.")
