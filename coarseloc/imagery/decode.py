"""Image files and uploads as uint8 RGB, and the thumbnails made of them."""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from coarseloc.core import files
from coarseloc.core.errors import ImageryError
from coarseloc.core.types import Frame, UInt8
from coarseloc.imagery.collars import seen_share

HEIF_SUFFIXES = (".heic", ".heif")
READS_HEIF = find_spec("pillow_heif") is not None  # the extra `heic`
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", *(HEIF_SUFFIXES if READS_HEIF else ()))
_FORMATS = ["JPEG", "PNG", "TIFF", "WEBP"]  # MPO, as drones write it, is opened as JPEG
MAX_PIXELS = 200_000_000
THUMBNAIL_PX = 192
_CAMERA_BITS = (8, 10, 12, 14, 16)
MIN_SEEN = 0.5  # of a picture: one that shows less ground is none of it
_SPARSE = 16  # of so many pixels one is looked at first
_BLANK_LEVELS = 2  # between the pixels of a picture of one colour
_HOT_SHARE = 5e-4  # of a picture: pixels that a sensor has lost or a lamp has burnt out
_FEW_LEVELS = 16  # of 256 that a colour picture of 12 bits in 16 has
_SAMPLED_PX, _MANY_VALUES = 256, 64  # a side, of 16-bit grey that is looked at; of a picture with contrast
_STRIP_PX = 65_536  # of a picture, converted at a time: more leave the cache
_warned: set[str] = set()
_log = logging.getLogger("coarseloc")
_TURNED = (5, 6, 7, 8)  # EXIF orientations of a picture that lies on its side
_TIFF_HEADS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")

# Pillow's own guard raises at twice this; `_checked` refuses at it, before a pixel is decoded.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS


class DecodedImage(NamedTuple):
    """An image's pixels and how much of it is opaque."""

    pixels: UInt8  # [H, W, 3], RGB
    ground_fraction: float  # 1.0 for pictures without alpha


class SeenGround(NamedTuple):
    """The share of a picture that shows ground, and the reason where that is too little to use it."""

    share: float
    too_little: str | None


def read_image(path: Path) -> UInt8:
    """Read an image file as uint8 [H, W, 3] RGB, upright by its EXIF orientation, alpha dropped.

    JPEG, PNG, TIFF (its first page), WebP, or HEIC where the extra is installed; grey, palette, CMYK and 16-bit
    pictures are converted, 16 bits by their full range (65535 → 255). Colour profiles are not applied. Raises
    ImageryError of kind "missing-file", "empty", "not-an-image", "unreadable", "too-large" or "unsupported".
    """
    return read_with_ground(path).pixels


def read_frame(frame: Frame) -> UInt8:
    """Read a flight's frame from its file, as `read_image`."""
    return read_image(frame.path)


def read_with_ground(path: Path) -> DecodedImage:
    """Read as `read_image`, with the share of opaque pixels (alpha ≥ 128)."""
    try:
        files.refuse_special(path)
        data = path.read_bytes()
    except FileNotFoundError:
        raise ImageryError("missing-file", f"{path} does not exist") from None
    except OSError as error:
        raise ImageryError("unreadable", f"{path} cannot be read: {error.strerror}") from error
    return _decode(data, str(path), MAX_PIXELS)


def decode_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> UInt8:
    """Decode bytes, such as an upload, as `read_image`; `name` is for messages, `max_pixels` the limit."""
    return _decode(data, name, max_pixels).pixels


def open_picture(source: Path | bytes) -> Image.Image:
    """Open a picture with Pillow: its header is read, no pixel. Only formats that are read here are recognised; HEIC
    where the extra `heic` is installed. Raises what Pillow raises."""
    if isinstance(source, Path):
        files.refuse_special(source)
    head = source[:12] if isinstance(source, bytes) else _head(source)
    is_heif = READS_HEIF and head[4:8] == b"ftyp"
    if is_heif:
        _register_heif()
    formats = ["HEIF"] if is_heif else _FORMATS
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats)


def _head(path: Path) -> bytes:
    if not path.name.lower().endswith(HEIF_SUFFIXES):
        return b""  # one opening less of most files
    with path.open("rb") as file:
        return file.read(12)


@cache
def _register_heif() -> None:
    import pillow_heif  # a tenth of a second: only where there is such a file

    pillow_heif.register_heif_opener(thumbnails=False)


def picture_size(source: Path | bytes) -> tuple[int, int] | None:
    """Read (width, height) in pixels, upright by its EXIF orientation, from an image's header; None where it cannot be
    read, which decoding it explains."""
    try:
        with open_picture(source) as image:
            return upright_size(image)
    except Exception:  # damaged headers raise anything
        return None


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) in pixels of an opened picture, upright by its EXIF orientation."""
    width, height = image.size
    return (height, width) if image.getexif().get(ExifTags.Base.Orientation) in _TURNED else (width, height)


def content_digest(pixels: UInt8) -> str:
    """Return the SHA-256 of an image's shape and pixels, 64 hex digits."""
    state = hashlib.sha256(repr(pixels.shape).encode())
    state.update(np.ascontiguousarray(pixels).data)
    return state.hexdigest()


def blank_colour(pictures: Sequence[UInt8]) -> tuple[int, int, int] | None:
    """The colour (r, g, b) of pictures uint8 [H, W, 3] that are all of one, but for a level or two; else None."""
    low = np.min([picture.min(axis=(0, 1)) for picture in pictures], axis=0)
    high = np.max([picture.max(axis=(0, 1)) for picture in pictures], axis=0)
    if (high - low > _BLANK_LEVELS).any():
        return None
    red, green, blue = (int(level) for level in np.where(high == 255, high, low))
    return red, green, blue


def seen_ground(picture: UInt8) -> SeenGround:
    """How much of a picture uint8 [H, W, 3] shows ground, and why that is too little for a reference or a frame: it is
    of one colour, or a border that is so takes more than half of it."""
    colour = blank_colour([picture]) if blank_colour([picture[::_SPARSE, ::_SPARSE]]) else None
    if colour is not None:
        return SeenGround(0.0, f"it is one colour {colour}: no ground is seen in it")
    share = seen_share(picture)
    if share < MIN_SEEN:
        return SeenGround(share, f"{1 - share:.0%} of it is a border of one colour: less than half shows ground")
    return SeenGround(share, None)


def thumbnail_path(root: Path, digest: str) -> Path:
    """Return the path of an image's thumbnail: `root/ab/abcdef….jpg`, named by its content."""
    return root / digest[:2] / f"{digest}.jpg"


def thumbnail_digests(root: Path) -> set[str]:
    """List the digests of images whose thumbnails exist, by file names alone."""
    folders = root.glob("[0-9a-f][0-9a-f]")
    return {name[:-4] for folder in folders for name in os.listdir(folder) if name.endswith(".jpg")}  # noqa: PTH208


def thumbnail_jpeg(pixels: UInt8, side: int = THUMBNAIL_PX) -> bytes:
    """Encode a JPEG (quality 85) of at most `side` pixels a side."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=1.0)  # halves the time
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def write_thumbnail(pixels: UInt8, path: Path, side: int = THUMBNAIL_PX) -> None:
    """Write `thumbnail_jpeg`; whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(path, thumbnail_jpeg(pixels, side))


def _decode(data: bytes, name: str, max_pixels: int) -> DecodedImage:
    if not data:
        raise ImageryError("empty", f"{name} is empty (0 bytes): expected an image")
    try:
        with open_picture(data) as image:
            _check_size(image, name, max_pixels)
            has_sixteen_bits = any(";16" in str(tile[-1]) for tile in getattr(image, "tile", ()))
            ImageOps.exif_transpose(image, in_place=True)
            decoded = _as_rgb(image, name)
            if has_sixteen_bits and image.mode not in _SIXTEEN_BIT and 1 < decoded.pixels.max() < _FEW_LEVELS:
                raise ImageryError(
                    "unsupported",
                    f"{name} holds colours of 16 bits that fill 12 at most: too dark to be read as they are. Convert "
                    "it to 8 bits (gdal_translate -ot Byte -scale …)",
                )
            return decoded
    except ImageryError:
        raise
    except UnidentifiedImageError:
        if data[:4] in _TIFF_HEADS:
            raise ImageryError(
                "unsupported",
                f"{name} is a TIFF whose bands or compression make no picture: expected grey, or red, green and blue "
                "(gdal_translate -b 1 -b 2 -b 3 …)",
            ) from None
        raise ImageryError("not-an-image", f"{name} is not a JPEG, PNG, TIFF or WebP image") from None
    except Image.DecompressionBombError as error:
        raise ImageryError("too-large", f"{name}: {error}") from None
    except Exception as error:  # decoders of hostile bytes raise anything: struct.error, SyntaxError, KeyError …
        raise ImageryError("unreadable", f"{name} is damaged or cut short: {error}") from error


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageryError(
            "too-large", f"{name} is {width} x {height} px: at most {max_pixels / 1e6:.0f} million pixels are decoded"
        )
    if width * height == 0:
        raise ImageryError("empty", f"{name} is {width} x {height} px: expected at least one pixel")


def _as_rgb(image: Image.Image, name: str) -> DecodedImage:
    if image.mode in _SIXTEEN_BIT:
        grey = _eight_bits(np.asarray(image), name)
        return DecodedImage(np.repeat(grey[..., None], 3, axis=2), 1.0)
    if image.mode in ("I", "F"):
        value_type = {"I": "32-bit integer", "F": "floating point"}[image.mode]
        raise ImageryError("unsupported", f"{name} holds {value_type} values: expected 8 or 16 bits a channel")
    mode = "RGBA" if image.has_transparency_data else "RGB"
    pixels, opaque = np.empty((image.height, image.width, 3), np.uint8), 0
    rows = max(1, _STRIP_PX // image.width)
    for top in range(0, image.height, rows):  # converted as a whole it would be in memory five times
        strip = image.crop((0, top, image.width, min(top + rows, image.height))) if rows < image.height else image
        values = np.asarray(strip if strip.mode == mode else strip.convert(mode))
        pixels[top : top + rows] = values[..., :3]
        opaque += int((values[..., 3] >= 128).sum()) if mode == "RGBA" else 0
    return DecodedImage(pixels, opaque / (image.width * image.height) if mode == "RGBA" else 1.0)


def _eight_bits(values: NDArray[np.uint16], name: str) -> UInt8:
    """16-bit grey values by the bits that a camera filled: 10, 12 or 14 where none but a few hot pixels is above.

    Values of a narrow range, such as a thermal camera's hundredths of a kelvin, are stretched by it.
    """
    if (limits := _narrow_range(values)) is not None:
        low, high = limits
        _warn_once(
            "narrow",
            f"{name}: its 16-bit values lie within {low:.0f} and {high:.0f} (thermal?): they are stretched to 0 … 255, "
            "picture by picture, here and in its like",
        )
        stretched: UInt8 = np.clip((values - low) * (255 / (high - low)), 0, 255).round().astype(np.uint8)
        return stretched
    hot = _HOT_SHARE * values.size
    bits = next((bits for bits in _CAMERA_BITS[:-1] if (values >= 2**bits).sum() <= hot), 16)
    if bits < 16:
        text = f"{name}: its 16-bit values fill {bits} bits: {2**bits - 1} becomes white, here and in its like"
        _warn_once(str(bits), text)
    full = 2**bits - 1
    levels: UInt8 = ((np.arange(1 << 16).clip(max=full) * 255 + full // 2) // full).astype(np.uint8)
    scaled: UInt8 = levels[values]
    return scaled


def _narrow_range(values: NDArray[np.uint16]) -> tuple[float, float] | None:
    """The percentiles 0.5 and 99.5 of 16-bit values that would come to fewer than 16 of 256 levels, though they are
    many; else None."""
    sample = values[:: max(1, values.shape[0] // _SAMPLED_PX), :: max(1, values.shape[1] // _SAMPLED_PX)]
    low, high = (float(value) for value in np.percentile(sample, (0.5, 99.5)))
    if low < _FEW_LEVELS * 256 or high - low >= _FEW_LEVELS * 256:
        return None
    return (low, high) if len(np.unique(sample)) >= _MANY_VALUES else None


def _warn_once(cause: str, text: str) -> None:
    """Once a process and cause: a flight has thousands of such pictures."""
    if cause not in _warned:
        _warned.add(cause)
        _log.warning("%s", text)
