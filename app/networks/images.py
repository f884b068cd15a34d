"""Pictures: what is accepted, how it is decoded, resized and normalised.

PNG, JPEG and WebP of any size, upright by their EXIF orientation, on white where they are transparent, resized to
size × size. Size and format are read before a pixel is decoded, so a bomb costs nothing.
"""

import struct
from collections.abc import Sequence
from io import BytesIO

import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional

from app.errors import InvalidItem
from app.recipe import ImageInput

MAX_PIXELS = 25_000_000
MAX_SCANS = 100
"""Scans of a progressive JPEG; real ones have about ten, and each costs a pass over all pixels."""

_FORMATS = ("PNG", "JPEG", "WEBP")
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")
_ORIENTATION = 0x0112

# Mean and deviation that torchvision's classifiers were trained with, and for grey their averages.
_IMAGENET = {3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), 1: ((0.449,), (0.226,))}


class ImagePreprocessor:
    """`pretrained` says whose normalisation: ImageNet's, or [0, 1] brought to mean 0.5 and deviation 0.5."""

    def __init__(self, shape: ImageInput, *, pretrained: bool) -> None:
        self._size = shape.size
        self._channels = shape.channels
        mean, std = _IMAGENET[shape.channels] if pretrained else ((0.5,), (0.5,))
        self._mean = torch.tensor(mean).view(-1, 1, 1) * 255  # (channels or 1, 1, 1)
        self._std = torch.tensor(std).view(-1, 1, 1) * 255

    def check(self, content: bytes) -> None:
        """Decode the picture and drop it: nothing less tells a whole file from a damaged one.

        Codes: empty, not_an_image, image_too_large, animated_image, truncated_image.
        """
        self._pixels(content)

    def decode(self, content: bytes) -> Tensor:
        """Give (channels, size, size) uint8; raises what `check` raises."""
        pixels: Tensor = functional.resize(self._pixels(content), [self._size, self._size], antialias=True)
        return pixels.contiguous()

    def batch(self, items: Sequence[Tensor]) -> Tensor:
        """Stack to (batch, channels, size, size) float32, normalised."""
        if not items:
            return torch.empty(0, self._channels, self._size, self._size)
        return (torch.stack(list(items)).to(torch.float32) - self._mean) / self._std

    def _pixels(self, content: bytes) -> Tensor:
        form, transparent, orientation = _inspect(content)
        # torchvision knows no grey WebP: it is read in colour and turned grey here.
        grey = self._channels == 1 and form != "WEBP"
        if transparent:
            mode = ImageReadMode.GRAY_ALPHA if grey else ImageReadMode.RGB_ALPHA
        else:
            mode = ImageReadMode.GRAY if grey else ImageReadMode.RGB
        try:
            pixels: Tensor = decode_image(
                torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=mode, apply_exif_orientation=True
            )
        except RuntimeError as error:
            raise _damaged() from error
        if pixels.dtype == torch.uint16:  # a PNG of 16 bits a channel
            pixels = ((pixels.to(torch.int32) + 128) // 257).to(torch.uint8)
        if transparent:
            pixels = _on_white(pixels)
        if form == "WEBP":
            pixels = _upright(pixels, orientation)  # torchvision does so for the other two
        if pixels.shape[0] != self._channels:
            pixels = functional.rgb_to_grayscale(pixels)
        return pixels  # (channels, height, width) uint8


def _inspect(content: bytes) -> tuple[str, bool, int]:
    """Read format, transparency and orientation from the headers alone; InvalidItem if not to be decoded.

    Pillow's warnings are left alone, since filters of warnings are shared by all threads: the one that matters
    speaks of pictures above our own limit, which are refused here in any case.
    """
    if not content:
        raise InvalidItem("empty", "Got no bytes; expected a PNG, JPEG or WebP picture.")
    try:
        image = Image.open(BytesIO(content), formats=_FORMATS)
        width, height = image.size
        form = image.format or ""
        # A JPEG may carry a second picture for depth or brightness, as phones write it; the first is the photo.
        frames = getattr(image, "n_frames", 1) if form in {"PNG", "WEBP"} else 1
        transparent = image.has_transparency_data
        orientation = int(image.getexif().get(_ORIENTATION, 1)) if form == "WEBP" else 1
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large("the picture is far larger") from error
    except (OSError, ValueError, EOFError, SyntaxError, TypeError, KeyError, struct.error, Warning) as error:
        if content.startswith(_SIGNATURES):
            raise _damaged() from error
        raise InvalidItem("not_an_image", "Expected a PNG, JPEG or WebP picture; these bytes are none.") from error
    if width * height > MAX_PIXELS:
        raise _too_large(f"this is {width} × {height}")
    if frames > 1:
        raise InvalidItem("animated_image", f"Expected one picture, got {frames} frames. Send one frame an item.")
    if form == "PNG" and not _png_is_whole(content):
        raise _damaged()
    if form not in {"PNG", "WEBP"} and content.count(b"\xff\xda") > MAX_SCANS:
        raise _too_large("this JPEG has too many scans")
    return form, transparent, orientation


def _png_is_whole(content: bytes) -> bool:
    """Walk the chunks to IEND: decoders are content without the file's last bytes."""
    at = 8
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        if content[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + length
    return False


def _on_white(pixels: Tensor) -> Tensor:
    """Lay (channels + 1, height, width) uint8, the last being opacity, on a white ground."""
    if int(pixels[-1].min()) == 255:
        return pixels[:-1]
    opacity = pixels[-1:].to(torch.int32)
    over = pixels[:-1].to(torch.int32) * opacity + 255 * (255 - opacity)
    return ((over + 127) // 255).to(torch.uint8)


def _upright(pixels: Tensor, orientation: int) -> Tensor:
    """Turn (channels, height, width) as EXIF's orientation 1…8 says."""
    if orientation in {5, 6, 7, 8}:
        pixels = pixels.transpose(1, 2)
    flips = {2: [2], 3: [1, 2], 4: [1], 6: [2], 7: [1, 2], 8: [1]}.get(orientation)
    return pixels.flip(flips) if flips else pixels


def _damaged() -> InvalidItem:
    return InvalidItem("truncated_image", "The picture is cut short or damaged. Send the whole file again.")


def _too_large(what: str) -> InvalidItem:
    limit = f"{MAX_PIXELS // 1_000_000} million pixels"
    return InvalidItem("image_too_large", f"Expected at most {limit}; {what}. Send it scaled down.")
