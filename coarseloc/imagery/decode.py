"""Image files and uploads as uint8 RGB, and the thumbnails made of them."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from coarseloc.core import files
from coarseloc.core.errors import ImageryError
from coarseloc.core.types import UInt8

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP")  # MPO, as drones write it, is opened as JPEG
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")
MAX_PIXELS = 200_000_000
THUMBNAIL_PX = 192
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")

# Pillow's own guard raises at twice this; `_checked` refuses at it, before a pixel is decoded.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS


class DecodedImage(NamedTuple):
    """An image's pixels and how much of it is opaque."""

    pixels: UInt8  # [H, W, 3], RGB
    ground_fraction: float  # 1.0 for pictures without alpha


def read_image(path: Path) -> UInt8:
    """Read an image file as uint8 [H, W, 3] RGB, upright by its EXIF orientation, alpha dropped.

    JPEG, PNG, TIFF (its first page) or WebP; grey, palette, CMYK and 16-bit pictures are converted, 16 bits
    by their full range (65535 → 255). Colour profiles are not applied. Raises ImageryError of kind
    "missing-file", "empty", "not-an-image", "unreadable", "too-large" or "unsupported".
    """
    return read_with_ground(path).pixels


def read_with_ground(path: Path) -> DecodedImage:
    """Read as `read_image`, with the share of opaque pixels (alpha ≥ 128)."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ImageryError("missing-file", f"{path} does not exist") from None
    except OSError as error:
        raise ImageryError("unreadable", f"{path} cannot be read: {error.strerror}") from error
    return _decode(data, str(path), MAX_PIXELS)


def decode_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> UInt8:
    """Decode bytes, such as an upload, as `read_image`; `name` is for messages, `max_pixels` the limit."""
    return _decode(data, name, max_pixels).pixels


def content_digest(pixels: UInt8) -> str:
    """Return the SHA-256 of an image's shape and pixels, 64 hex digits."""
    state = hashlib.sha256(repr(pixels.shape).encode())
    state.update(np.ascontiguousarray(pixels).data)
    return state.hexdigest()


def thumbnail_path(root: Path, digest: str) -> Path:
    """Return the path of an image's thumbnail: `root/ab/abcdef….jpg`, named by its content."""
    return root / digest[:2] / f"{digest}.jpg"


def thumbnail_digests(root: Path) -> set[str]:
    """List the digests of images whose thumbnails exist, by file names alone."""
    return {file.stem for folder in root.glob("[0-9a-f][0-9a-f]") for file in folder.glob("*.jpg")}


def write_thumbnail(pixels: UInt8, path: Path, side: int = THUMBNAIL_PX) -> None:
    """Write a JPEG (quality 85) of at most `side` pixels a side; whole or not at all."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=1.0)  # halves the time
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as partial:
        picture.save(partial, "JPEG", quality=85)


def _decode(data: bytes, name: str, max_pixels: int) -> DecodedImage:
    if not data:
        raise ImageryError("empty", f"{name} is empty (0 bytes): expected an image")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image, name, max_pixels)
            return _as_rgb(ImageOps.exif_transpose(image), name)
    except ImageryError:
        raise
    except UnidentifiedImageError:
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
        grey = ((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8)
        return DecodedImage(np.repeat(grey[..., None], 3, axis=2), 1.0)
    if image.mode in ("I", "F"):
        value_type = {"I": "32-bit integer", "F": "floating point"}[image.mode]
        raise ImageryError("unsupported", f"{name} holds {value_type} values: expected 8 or 16 bits a channel")
    if not image.has_transparency_data:
        return DecodedImage(np.array(image.convert("RGB")), 1.0)
    rgba = np.array(image.convert("RGBA"))
    return DecodedImage(np.ascontiguousarray(rgba[..., :3]), float((rgba[..., 3] >= 128).mean()))
