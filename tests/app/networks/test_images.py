"""Pictures of every form become the same tensors, and what cannot be one is refused with a stable code."""

import random
import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from app.errors import InvalidItem
from app.networks import jpeg
from app.networks.images import MAX_PIXELS, ImagePreprocessor
from app.recipe import ImageInput

COLOUR = ImagePreprocessor(ImageInput(size=16, channels=3), pretrained=False)
GREY = ImagePreprocessor(ImageInput(size=16, channels=1), pretrained=False)
FORMATS = ("PNG", "JPEG", "WEBP")


def picture(width: int = 24, height: int = 16) -> Image.Image:
    """A smooth picture whose four corners differ."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 255 / (width - 1), y * 255 / (height - 1), (x + y) * 255 / (width + height - 2)]
    return Image.fromarray(np.stack(planes, -1).astype(np.uint8))


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format=form, **options)
    return file.getvalue()


def code(content: bytes, preprocessor: ImagePreprocessor = COLOUR) -> str:
    with pytest.raises(InvalidItem) as caught:
        preprocessor.check(content)
    with pytest.raises(InvalidItem):
        preprocessor.decode(content)
    return caught.value.code


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, raw: bytes, *, depth: int = 8, colour: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(raw, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def near(one: torch.Tensor, other: torch.Tensor, most: float) -> bool:
    return float((one.float() - other.float()).abs().mean()) <= most


@pytest.mark.parametrize(
    ("form", "mode"),
    [
        *[("PNG", mode) for mode in ("RGB", "L", "RGBA", "P", "1", "LA")],
        *[("JPEG", mode) for mode in ("RGB", "L", "1", "CMYK")],
        *[("WEBP", mode) for mode in ("RGB", "L", "RGBA", "P", "1", "LA")],
    ],
)
def test_every_form_and_mode_decodes_to_the_same_picture(form: str, mode: str) -> None:
    image = picture().convert(mode)
    options = {"quality": 95} if form == "JPEG" else {"lossless": True} if form == "WEBP" else {}
    content = encoded(image, form, **options)

    for preprocessor, target in ((COLOUR, "RGB"), (GREY, "L")):
        preprocessor.check(content)
        item = preprocessor.decode(content)
        expected = torch.from_numpy(
            np.array(image.convert("RGB").convert(target).resize((16, 16), Image.Resampling.BILINEAR))
        )
        expected = expected.permute(2, 0, 1) if target == "RGB" else expected[None]
        assert item.shape == expected.shape
        assert item.dtype == torch.uint8
        assert item.is_contiguous()
        assert near(item, expected, 4)


def test_sixteen_bits_a_channel_are_scaled_and_not_cut() -> None:
    values = np.linspace(0, 65535, 16 * 16).astype(np.uint16).reshape(16, 16)
    content = encoded(Image.fromarray(values))
    expected = torch.from_numpy(np.rint(values / 257).astype(np.uint8))

    assert near(GREY.decode(content)[0], expected, 0.01)
    assert near(COLOUR.decode(content)[2], expected, 0.01)


def test_transparent_ground_is_white() -> None:
    drawing = np.zeros((16, 16, 4), np.uint8)
    drawing[4:12, 4:12, 3] = 255  # black on nothing
    for form in ("PNG", "WEBP"):
        options = {"lossless": True} if form == "WEBP" else {}
        for image in (Image.fromarray(drawing), Image.fromarray(drawing).convert("LA")):
            for preprocessor in (COLOUR, GREY):
                item = preprocessor.decode(encoded(image, form, **options))
                assert item[:, 0, 0].eq(255).all()
                assert item[:, 8, 8].eq(0).all()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright_by_their_exif(form: str, orientation: int) -> None:
    turns = {2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}
    upright = picture(32, 16)
    stored = upright
    for turn in turns.get(orientation, []):
        stored = stored.transpose(Image.Transpose(turn))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if form == "WEBP" else {"quality": 95} if form == "JPEG" else {}
    content = encoded(stored, form, exif=exif, **options)

    plain = COLOUR.decode(encoded(upright))

    assert near(COLOUR.decode(content), plain, 4)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_is_no_reason_to_refuse() -> None:
    for form in FORMATS:
        COLOUR.check(encoded(picture(), form, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff broken"))


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_cut_anywhere_is_truncated(form: str) -> None:
    content = encoded(picture(), form)
    for cut in (1, 2, 4, 8, 11, 12, 13, 16, 20, 40, len(content) // 2, len(content) - 16):
        assert code(content[:-cut]) == "truncated_image"


def test_a_photo_cut_short_is_truncated_though_its_thumbnail_is_whole() -> None:
    content = encoded(picture(640, 480), "JPEG", quality=95)
    thumbnail = encoded(picture(), "JPEG")
    segment = b"\xff\xef" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    with_thumbnail = content[:2] + segment + content[2:]

    COLOUR.check(with_thumbnail)
    for cut in (100, len(content) // 2, len(content) - 700):
        assert code(with_thumbnail[:-cut]) == "truncated_image"


@pytest.mark.parametrize("content", [b"GIF89a" + b"\0" * 50, b"hello", b"<svg/>", b"\0", encoded(picture(), "BMP")])
def test_other_files_are_no_images(content: bytes) -> None:
    assert code(content) == "not_an_image"


def test_no_bytes_are_empty() -> None:
    assert code(b"") == "empty"


@pytest.mark.parametrize("side", [5001, 10_000, 20_000, 2**31 - 1])
def test_bombs_are_refused_by_their_header_alone(side: int) -> None:
    bomb = png(side, side, b"\0" * 100)
    assert len(bomb) < 200
    assert code(bomb) == "image_too_large"


def test_a_jpeg_above_the_limit_is_refused_however_flat_it_is() -> None:
    wide = ImagePreprocessor(ImageInput(size=256, channels=1), pretrained=False)

    for size in ((65_000, 400), (400, 65_000)):  # nothing of it would be decoded small
        assert code(encoded(Image.new("L", size), "JPEG"), wide) == "image_too_large"


def test_a_header_that_claims_more_pixels_than_come_is_truncated() -> None:
    assert code(png(4000, 4000, b"\0" * 100)) == "truncated_image"


def test_a_picture_at_the_limit_is_taken() -> None:
    side = int(MAX_PIXELS**0.5)
    GREY.check(png(side, side, b"\0" * (side * (side // 8 + 1)), depth=1))


def test_a_text_chunk_bomb_is_refused() -> None:
    text = chunk(b"zTXt", b"note\0\0" + zlib.compress(b"a" * (1 << 26), 9))
    whole = encoded(picture())
    assert code(whole[:33] + text + whole[33:]) == "truncated_image"


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    content = encoded(picture(), "JPEG", progressive=True)
    scan = content.index(b"\xff\xda")
    assert code(content[:scan] + content[scan:-2] * 200 + content[-2:]) == "image_too_large"


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_moving_pictures_are_refused(form: str) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue", "green")]
    assert code(encoded(frames[0], form, save_all=True, append_images=frames[1:])) == "animated_image"


def test_a_photo_with_a_second_picture_inside_is_the_photo() -> None:
    content = encoded(picture(), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    assert near(COLOUR.decode(content), COLOUR.decode(encoded(picture())), 8)


@pytest.mark.parametrize("form", FORMATS)
def test_damaged_bytes_never_raise_anything_else(form: str) -> None:
    chance = random.Random(4)
    content = encoded(picture(), form)
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 6)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            COLOUR.check(bytes(damaged))
        except InvalidItem:
            continue
        assert COLOUR.decode(bytes(damaged)).shape == (3, 16, 16)


def test_extreme_proportions_are_squeezed_to_the_square() -> None:
    for size in ((1, 1), (3000, 1), (1, 3000)):
        assert COLOUR.decode(encoded(Image.new("RGB", size, "red")))[:, 3, 3].tolist() == [255, 0, 0]


def test_normalisation_is_imagenet_s_only_for_pretrained_weights() -> None:
    white = torch.full((3, 4, 4), 255, dtype=torch.uint8)
    shape = ImageInput(size=4, channels=3)

    plain = ImagePreprocessor(shape, pretrained=False).batch([white, white * 0])
    imagenet = ImagePreprocessor(shape, pretrained=True).batch([white])

    assert plain.shape == (2, 3, 4, 4)
    assert plain.dtype == torch.float32
    torch.testing.assert_close(plain[:, 0, 0, 0], torch.tensor([1.0, -1.0]))
    torch.testing.assert_close(imagenet[0, :, 0, 0], torch.tensor([2.2489, 2.4286, 2.6400]), atol=1e-3, rtol=0)
    assert COLOUR.batch([]).shape == (0, 3, 16, 16)


def test_transparency_of_a_palette_is_white_too() -> None:
    image = Image.new("P", (16, 16), 0)
    image.putpalette([0, 0, 0, 0, 0, 0])
    image.paste(1, (4, 4, 12, 12))
    item = COLOUR.decode(encoded(image, transparency=0))
    assert item[:, 0, 0].tolist() == [255, 255, 255]
    assert item[:, 8, 8].tolist() == [0, 0, 0]


def test_a_large_photo_is_decoded_small_and_is_the_same_picture() -> None:
    large = picture(1600, 1200)
    item = COLOUR.decode(encoded(large, "JPEG", quality=95))
    assert near(item, COLOUR.decode(encoded(large)), 3)


def test_bytes_after_the_picture_do_no_harm() -> None:
    for form in ("PNG", "JPEG"):
        content = encoded(picture(), form)
        assert torch.equal(COLOUR.decode(content + b"trailer" * 9), COLOUR.decode(content))


@pytest.mark.parametrize("size", [(16, 16), (24, 16), (40, 61), (1, 1), (200, 9), (500, 375)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "options",
    [{}, {"quality": 95, "subsampling": 0}, {"progressive": True}, {"restart_marker_blocks": 2}, {"comment": b"hello"}],
)
def test_a_plain_jpeg_has_the_pixels_that_pillow_gives(
    size: tuple[int, int], mode: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = encoded(picture(64, 48).resize(size).convert(mode), "JPEG", **options)
    ours = [preprocessor.decode(content) for preprocessor in (COLOUR, GREY)]

    monkeypatch.setattr(jpeg, "decoded", lambda *_: None)

    for item, preprocessor in zip(ours, (COLOUR, GREY), strict=True):
        assert torch.equal(item, preprocessor.decode(content))


def test_plain_jpegs_need_no_pillow_and_others_do() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = encoded(picture(16, 16), "JPEG")

    assert jpeg.decoded(plain, 16, MAX_PIXELS) is not None
    for other in (
        encoded(picture(16, 16), "JPEG", exif=exif),
        encoded(picture(16, 16), "JPEG", progressive=True),
        encoded(picture(16, 16).convert("CMYK"), "JPEG"),
        encoded(picture(64, 64), "JPEG"),  # decoded at half the size
        encoded(picture(16, 16), "PNG"),
        plain[:-2],
        plain + b"trailer",
        plain[:100],
        b"",
    ):
        assert jpeg.decoded(other, 16, MAX_PIXELS) is None


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_jpeg_is_the_same_with_and_without_pillow(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    content = encoded(picture(16, 16), "JPEG", **({"restart_marker_blocks": 1} if seed % 2 else {}))
    damaged = []
    for _ in range(100):
        one = bytearray(content)
        for _ in range(chance.randint(1, 5)):
            one[chance.randrange(len(one))] = chance.randrange(256)
        damaged.append(bytes(one))
    ours = COLOUR.decode_many(damaged)

    monkeypatch.setattr(jpeg, "decoded", lambda *_: None)

    for item, pillow in zip(ours, COLOUR.decode_many(damaged), strict=True):
        if isinstance(item, InvalidItem) or isinstance(pillow, InvalidItem):
            assert isinstance(item, InvalidItem)
            assert isinstance(pillow, InvalidItem)
            assert item.code == pillow.code
        else:
            assert torch.equal(item, pillow)
