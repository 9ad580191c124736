"""Every kind of picture becomes uint8 RGB, or is refused by name."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from PIL import ExifTags, Image

from coarseloc.core.errors import ImageryError
from coarseloc.imagery import decode
from coarseloc.imagery.flights import open_flight

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's and rasterio's remarks on odd files

COLUMNS, ROWS = np.meshgrid(np.arange(48), np.arange(32))
RGB = np.stack([COLUMNS * 5, ROWS * 7, 255 - COLUMNS * 4], axis=-1).astype(np.uint8)  # smooth, no symmetry
GREY = np.asarray(Image.fromarray(RGB).convert("L"))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def as_file(values: np.ndarray, driver: str) -> bytes:
    """[B, H, W] written by GDAL, which writes the 16-bit colour that Pillow does not."""
    with rasterio.MemoryFile() as memory:
        count, height, width = values.shape
        profile = {"photometric": "RGB"} if driver == "GTiff" else {}
        with memory.open(driver=driver, count=count, height=height, width=width, dtype=values.dtype, **profile) as file:
            file.write(values)
        return bytes(memory.read())


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("JPEG", {"quality": 98, "subsampling": 0}, 6),
    ],
)
def test_each_format_gives_its_pixels(kind: str, options: dict[str, Any], tolerance: int) -> None:
    pixels = decode.decode_image(encoded(Image.fromarray(RGB), kind, **options), "x")
    assert pixels.dtype == np.uint8 and pixels.flags.writeable and pixels.flags.c_contiguous
    assert_allclose(pixels.astype(int), RGB, atol=tolerance)


@pytest.mark.parametrize(
    ("mode", "kind", "tolerance"),
    [("CMYK", "TIFF", 1), ("CMYK", "JPEG", 25), ("YCbCr", "JPEG", 25), ("LAB", "TIFF", 40), ("RGBA", "PNG", 0)],
)
def test_each_colour_mode_becomes_rgb(mode: str, kind: str, tolerance: int) -> None:
    pixels = decode.decode_image(encoded(Image.fromarray(RGB).convert(mode), kind), "x")
    assert np.abs(pixels.astype(int) - RGB).mean() <= tolerance / 4
    assert_allclose(pixels.astype(int), RGB, atol=tolerance)


def test_grey_becomes_three_equal_channels() -> None:
    pixels = decode.decode_image(encoded(Image.fromarray(GREY), "PNG"), "x")
    assert_array_equal(pixels, np.repeat(GREY[..., None], 3, axis=2))


def test_one_bit_becomes_black_and_white() -> None:
    pixels = decode.decode_image(encoded(Image.fromarray(GREY > 100), "PNG"), "x")
    assert_array_equal(pixels[..., 1], np.where(GREY > 100, 255, 0))


def test_a_palette_is_looked_up() -> None:
    image = Image.fromarray(RGB).quantize(256)
    assert_array_equal(decode.decode_image(encoded(image, "PNG"), "x"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_by_its_full_range(kind: str) -> None:
    values = np.array([[0, 128, 129, 257, 32896, 65535]], np.uint16)
    pixels = decode.decode_image(encoded(Image.fromarray(values), kind), "x")
    assert_array_equal(pixels[0, :, 0], [0, 0, 1, 1, 128, 255])


def test_a_hot_pixel_does_not_darken_a_picture_of_twelve_bits() -> None:
    values = np.tile(np.array([0, 2048, 4095], np.uint16), (64, 32))
    values[5, 5] = 65535
    pixels = decode.decode_image(encoded(Image.fromarray(values), "PNG"), "x")
    assert_array_equal(pixels[0, :3, 0], [0, 128, 255])
    assert pixels[5, 5, 0] == 255


@pytest.mark.parametrize("driver", ["PNG", "GTiff"])
def test_colours_of_twelve_bits_in_sixteen_are_refused_with_a_reason(driver: str) -> None:
    data = as_file(np.moveaxis(RGB, -1, 0).astype(np.uint16) * 16, driver)
    with pytest.raises(ImageryError, match="16 bits that fill 12"):
        decode.decode_image(data, "x")


@pytest.mark.parametrize("driver", ["PNG", "GTiff"])
def test_sixteen_bit_colour_is_scaled_by_its_full_range(driver: str) -> None:
    data = as_file(np.moveaxis(RGB, -1, 0).astype(np.uint16) * 257, driver)
    assert_allclose(decode.decode_image(data, "x").astype(int), RGB, atol=1)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_floats_and_32_bits_have_no_known_range_and_are_refused(mode: str) -> None:
    with pytest.raises(ImageryError, match="expected 8 or 16 bits") as error:
        decode.decode_image(encoded(Image.fromarray(GREY).convert(mode), "TIFF"), "x")
    assert error.value.kind == "unsupported"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_put_upright(kind: str, orientation: int) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = Image.fromarray(RGB)
    if orientation in undo:
        stored = stored.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    pixels = decode.decode_image(encoded(stored, kind, exif=exif, **options), "x")
    assert pixels.shape == RGB.shape
    assert_allclose(pixels.astype(int), RGB, atol=8)


def test_heic_is_read_with_its_position_and_size(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="HEIC is an extra: pip install pillow-heif")
    pillow_heif.register_heif_opener(thumbnails=False)
    exif = Image.Exif()
    exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (37.0, 30.0, 0.0), 3: "E", 4: (127.0, 1.0, 48.0)}
    pixels = np.kron(np.arange(64, dtype=np.uint8).reshape(8, 8, 1) * 3, np.ones((16, 8, 3), np.uint8))
    Image.fromarray(pixels).save(tmp_path / "a.HEIC", quality=100, exif=exif)
    read = decode.read_image(tmp_path / "a.HEIC")
    assert read.shape == (128, 64, 3) and np.abs(read.astype(int) - pixels).mean() < 3
    assert decode.picture_size(tmp_path / "a.HEIC") == (64, 128)
    (frame,) = open_flight(tmp_path).frames
    assert frame.truth.location == pytest.approx((127.03, 37.5))


def test_alpha_is_dropped_and_its_opaque_share_told(tmp_path: Path) -> None:
    alpha = np.full(GREY.shape, 255, np.uint8)
    alpha[:, :12] = 0
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(np.dstack([RGB, alpha])), "PNG"))
    pixels, ground = decode.read_with_ground(tmp_path / "a.png")
    assert_array_equal(pixels, RGB)
    assert ground == pytest.approx(0.75)
    assert_array_equal(decode.read_image(tmp_path / "a.png"), RGB)


def test_a_transparent_colour_of_a_palette_counts_as_no_ground() -> None:
    image = Image.fromarray(np.repeat([[0, 1]], 4, axis=0).astype(np.uint8), mode="P")
    image.putpalette([255, 0, 0, 0, 255, 0])
    data = encoded(image, "PNG", transparency=0)
    assert decode._decode(data, "x", 100).ground_fraction == 0.5


def test_the_first_page_of_a_tiff_is_read() -> None:
    data = encoded(Image.fromarray(RGB), "TIFF", save_all=True, append_images=[Image.fromarray(255 - RGB)])
    assert_array_equal(decode.decode_image(data, "x"), RGB)


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty"),
        (b"hello, I am a text", "not-an-image"),
        (encoded(Image.fromarray(RGB), "GIF"), "not-an-image"),
        (encoded(Image.fromarray(RGB), "BMP"), "not-an-image"),
        (encoded(Image.fromarray(RGB), "JPEG")[:700], "unreadable"),
        (encoded(Image.fromarray(RGB), "PNG")[:80], "unreadable"),
        (encoded(Image.fromarray(RGB), "TIFF")[:900], "unreadable"),
        (encoded(Image.fromarray(RGB), "WEBP")[:100], "unreadable"),
    ],
)
def test_what_is_no_whole_image_is_refused_by_kind(data: bytes, kind: str) -> None:
    with pytest.raises(ImageryError, match=r"photo\.jpg") as error:
        decode.decode_image(data, "photo.jpg")
    assert error.value.kind in {kind, "not-an-image"} if kind == "unreadable" else error.value.kind == kind


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be this large."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(20_000, 10_001), (60_000, 60_000)])
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    with pytest.raises(ImageryError) as error:
        decode.decode_image(bomb(*size), "bomb.png")
    assert error.value.kind == "too-large"


def test_a_stricter_limit_can_be_asked_for() -> None:
    with pytest.raises(ImageryError, match="48 x 32 px"):
        decode.decode_image(encoded(Image.fromarray(RGB), "PNG"), "x", max_pixels=1000)


def test_a_file_that_is_not_there_or_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageryError) as error:
        decode.read_image(tmp_path / "none.jpg")
    assert error.value.kind == "missing-file"
    with pytest.raises(ImageryError) as error:
        decode.read_image(tmp_path)
    assert error.value.kind == "unreadable"


@given(st.sampled_from(["JPEG", "PNG", "TIFF", "WEBP"]), st.data())
@settings(max_examples=150)
def test_damaged_bytes_give_an_image_or_an_imagery_error(kind: str, data: st.DataObject) -> None:
    damaged = bytearray(encoded(Image.fromarray(RGB[:8, :8]), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        pixels = decode.decode_image(bytes(damaged), "x", max_pixels=1_000_000)
    except ImageryError:
        return
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3


# --- digests and thumbnails ---------------------------------------------------------------------


def test_a_digest_tells_pixels_and_shapes_apart() -> None:
    turned = np.ascontiguousarray(np.rot90(RGB))
    assert decode.content_digest(RGB) == decode.content_digest(RGB.copy())
    assert len({decode.content_digest(p) for p in (RGB, turned, RGB.reshape(48, 32, 3), RGB ^ 1)}) == 4


def test_a_digest_does_not_depend_on_memory_layout() -> None:
    assert decode.content_digest(np.rot90(RGB)) == decode.content_digest(np.ascontiguousarray(np.rot90(RGB)))


def test_a_thumbnail_is_a_small_jpeg_named_by_content(tmp_path: Path) -> None:
    path = decode.thumbnail_path(tmp_path, "abcdef")
    assert path == tmp_path / "ab" / "abcdef.jpg"
    decode.write_thumbnail(np.full((400, 800, 3), 90, np.uint8), path)
    with Image.open(path) as image:
        assert image.format == "JPEG" and image.size == (192, 96)
    assert [p.name for p in path.parent.iterdir()] == ["abcdef.jpg"]


def test_a_thumbnail_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space"):
        decode.write_thumbnail(RGB, tmp_path / "t" / "x.jpg")
    assert list((tmp_path / "t").iterdir()) == []


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
def test_a_picture_is_converted_strip_by_strip_to_the_same_pixels(monkeypatch, mode):
    colours = np.random.default_rng(4).integers(0, 256, (61, 37, 4), np.uint8)
    picture = Image.fromarray(colours, "RGBA").convert(mode)
    data = io.BytesIO()
    picture.save(data, "TIFF" if mode == "CMYK" else "PNG")
    whole = decode._decode(data.getvalue(), "it", 10**6)
    monkeypatch.setattr(decode, "_STRIP_PX", 100)
    strips = decode._decode(data.getvalue(), "it", 10**6)
    assert np.array_equal(whole.pixels, strips.pixels) and whole.ground_fraction == strips.ground_fraction
    alpha = np.asarray(picture.convert("RGBA"))[..., 3]
    assert whole.ground_fraction == pytest.approx((alpha >= 128).mean())
