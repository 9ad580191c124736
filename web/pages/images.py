"""Serve pictures by id only: `/images/tiles/<rotated tile>.jpg`, `/images/results/<snapshot>.jpg` and
`/images/frames/<flight>/<frame>.jpg`.

An address carries the content's mark (`?v=`), so what it names never changes and is kept by the browser for ever.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from threading import Condition, Lock
from typing import Any

import numpy as np
from flask import Blueprint, Response, request, send_file, url_for
from PIL import Image

from coarseloc.core import files, geo
from coarseloc.core.errors import CoarselocError, ImageryError
from coarseloc.core.types import Frame, TileFacts, UInt8
from coarseloc.imagery.decode import (
    THUMBNAIL_PX,
    decode_image,
    picture_size,
    read_image,
    thumbnail_path,
    write_thumbnail,
)
from coarseloc.imagery.windows import OrthophotoWindows
from coarseloc.store import embeddings, gallery, references, snapshots
from web.language import _
from web.problems import Problem
from web.state import current_state

SIZES = {"thumb": 256, "view": 800, "full": 1600}  # the longer side, in pixels
_FOR_EVER_S = 31_536_000
_SAME_GROUND = 8.0  # levels of 255 that JPEG and another resolution may cost, and another year's picture exceeds

MAX_PIXELS = 60_000_000  # of an upload; one takes half a gigabyte at most while it is decoded
AT_ONCE_PX = 40_000_000  # a WebP takes 18 bytes a pixel, others 5 to 8: three quarters of a gigabyte at most
MAX_RENDITION_BYTES = 2 * 2**30
_LOOK_EVERY = 100  # renditions, from one look at how much they take to the next
_renditions_written = count(1)

routes = Blueprint("images", __name__, url_prefix="/images")


class PixelBudget:
    """How many pixels are decoded at once, of uploads, frames and references together. What is larger than all of it
    is decoded alone. Whoever comes first is next."""

    def __init__(self, pixels: int) -> None:
        self._pixels, self._held = pixels, 0
        self._turn, self._room = Lock(), Condition()

    @contextmanager
    def hold(self, size: tuple[int, int] | None) -> Iterator[None]:
        """Wait until a picture of this size has room. None: its header cannot be read, nor will its pixels be."""
        pixels = 0 if size is None else min(size[0] * size[1], self._pixels)
        with self._turn, self._room:
            self._room.wait_for(lambda: self._held + pixels <= self._pixels)
            self._held += pixels
        try:
            yield
        finally:
            with self._room:
                self._held -= pixels
                self._room.notify_all()


DECODING = PixelBudget(AT_ONCE_PX)


def tile_url(rotated_tile: int, content_digest: str, size: str = "thumb") -> str:
    return _address("images.tile", rotated_tile=rotated_tile, size=size, v=content_digest[:12])


def result_url(snapshot: int, content_digest: str, size: str = "thumb") -> str:
    """Of a tile as a search saw it, whatever has become of it since."""
    return _address("images.result", snapshot=snapshot, size=size, v=content_digest[:12])


def frame_url(flight_id: str, frame: Frame, size: str = "thumb") -> str:
    return frame_file_url(flight_id, frame.index, frame.path, size)


def frame_file_url(flight_id: str, index: int, path: Path, size: str = "thumb") -> str:
    """The mark is of the file's size and time: nothing of its content is read."""
    return _address("images.frame", flight_id=flight_id, frame=index, size=size, v=_mark(path))


def _address(endpoint: str, size: str, **values: Any) -> str:
    return url_for(endpoint, size=None if size == "thumb" else size, **values)


@routes.get("/tiles/<int:rotated_tile>.jpg")
def tile(rotated_tile: int) -> Response:
    """The tile at its heading. `thumb` is what ingest left; `full` is read from the capture's file where there
    is one, since a cut tile has no more than its thumbnail."""
    with current_state().database.read() as session:
        picture = gallery.picture(session, rotated_tile)
        facts = embeddings.facts_by_key(session, [rotated_tile])[rotated_tile][0] if picture else None
    if picture is None:
        raise Problem(404, _("There is no tile {n}.", n=rotated_tile))
    return _tile_picture(picture.path, picture.content_digest, rotated_tile, facts)


@routes.get("/results/<int:snapshot>.jpg")
def result(snapshot: int) -> Response:
    """The same of a tile as a search saw it."""
    with current_state().database.read() as session:
        picture = snapshots.snapshots(session, [snapshot]).get(snapshot)
    if picture is None:
        raise Problem(404, _("There is no tile {n}.", n=snapshot))
    return _tile_picture(picture.path, picture.content_digest, snapshot, picture.tile)


def _tile_picture(path: str | None, content_digest: str, number: int, facts: TileFacts | None) -> Response:
    state, size = current_state(), _size()
    thumbnail = thumbnail_path(state.settings.thumbnails, content_digest)
    source = Path(path) if path else None
    if source and size == "full":
        return send_picture(_rendition(source, SIZES["full"], content_digest))
    if size == "full" and facts and (sharp := _sharp_cut(facts, content_digest, thumbnail)):
        return send_picture(sharp)
    if not thumbnail.exists():
        if source is None:
            raise Problem(404, _("The thumbnail of tile {n} is gone. Ingest its orthophoto again.", n=number))
        _write_rendition(source, thumbnail)
    return send_picture(thumbnail)


def _sharp_cut(facts: TileFacts, content_digest: str, thumbnail: Path) -> Path | None:
    """A cut tile at its orthophoto's own resolution; None where the file is gone, or shows something else by now."""
    state = current_state()
    path = thumbnail_path(state.settings.thumbnails / "renditions", f"{content_digest}{SIZES['full']}")
    if path.exists():
        return path
    with state.database.read() as session:
        sets = {stored.name: stored.reference_set for stored in references.reference_sets(session)}
    reference_set = sets.get(facts.reference_set)
    if reference_set is None or reference_set.kind != "orthophoto" or not thumbnail.exists():
        return None
    source, crs = Path(reference_set.source), reference_set.parameters.get("crs")
    try:
        windows = state.memory.recall(
            ("orthophoto", source, crs, _mark(source)), lambda: OrthophotoWindows(source, crs)
        )
        side_m = reference_set.footprint_m or geo.box_size_m(facts.bbox)[0]
        side_px = min(SIZES["full"], max(SIZES["thumb"], round(side_m / windows.gsd_m)))
        pixels = windows.view(facts.center, side_m, facts.angle_deg, side_px)
    except CoarselocError:
        return None
    if _difference(pixels, read_image(thumbnail)) > _SAME_GROUND:
        return None
    write_thumbnail(pixels, path, SIZES["full"])
    return path


def _difference(pixels: UInt8, thumbnail: UInt8) -> float:
    """Of two pictures of one square, the mean of levels that their small copies differ by."""
    small = [np.asarray(Image.fromarray(picture).convert("L").resize((24, 24), Image.Resampling.BOX), np.float64)
             for picture in (pixels, thumbnail)]  # fmt: skip
    return float(np.abs(small[0] - small[1]).mean())


@routes.get("/frames/<flight_id>/<int:frame>.jpg")
def frame(flight_id: str, frame: int) -> Response:
    with current_state().database.read() as session:
        path = gallery.frame_path(session, flight_id, frame)
    if path is None:
        raise Problem(404, _("There is no frame {index} in flight {name}.", index=frame, name=flight_id))
    return send_picture(_rendition(Path(path), SIZES[_size()]))


@routes.get("/uploads/<name>.jpg")
def upload(name: str) -> Response:
    side = SIZES["full" if _size() == "full" else "view"]
    source = find_upload(current_state().uploads, name)
    rendition = source.with_name(f"{name}-{side}.jpg")  # beside it, to go with it
    if not rendition.exists():
        _write_rendition(source, rendition, side)
    return send_picture(rendition)


def _size() -> str:
    size = request.args.get("size", "thumb")
    if size not in SIZES:
        raise Problem(400, _("Size {size} is not known: ask for {known}.", size=size, known=", ".join(SIZES)))
    return size


def _mark(path: Path) -> str | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return f"{stat.st_mtime_ns:x}{stat.st_size:x}"


def _rendition(source: Path, side: int, mark: str | None = None) -> Path:
    """A JPEG of `source` at most `side` px long, made at the first request and kept with the thumbnails.

    Named by the file's path, size and time: a changed file gets a rendition of its own.
    """
    if mark is None:
        mark = _mark(source)
    if mark is None:
        raise Problem(404, _("The image file {name} is no longer where it was.", name=source.name))
    name = hashlib.sha256(f"{source}\0{mark}\0{side}".encode()).hexdigest()
    folder = current_state().settings.thumbnails / "renditions"
    rendition = thumbnail_path(folder, name)
    if not rendition.exists():
        _write_rendition(source, rendition, side)
        if next(_renditions_written) % _LOOK_EVERY == 0:
            drop_renditions(folder)
    return rendition


def drop_renditions(folder: Path, most_bytes: int = MAX_RENDITION_BYTES) -> None:
    """Delete those made first where all take more than `most_bytes`: they are made again when they are asked for."""
    with suppress(OSError):  # another thread or process drops them as well
        renditions = [(path.stat(), path) for path in folder.glob("??/*.jpg")]
        excess = sum(stat.st_size for stat, _ in renditions) - most_bytes
        for stat, path in sorted(renditions, key=lambda entry: entry[0].st_mtime_ns):
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= stat.st_size


def _write_rendition(source: Path, path: Path, side: int = THUMBNAIL_PX) -> None:
    try:
        with DECODING.hold(picture_size(source)):
            write_thumbnail(read_image(source), path, side)
    except ImageryError as error:
        status = 404 if error.kind == "missing-file" else 422
        detail = _("The image file {name} cannot be shown: {reason}.", name=source.name, reason=error.kind)
        raise Problem(status, detail) from None


@contextmanager
def decoded_file(path: Path) -> Iterator[UInt8]:
    """An image file as `read_image` gives it, for as long as it is open."""
    with DECODING.hold(picture_size(path)):
        yield read_image(path)


def send_picture(path: Path) -> Response:
    response = send_file(path, mimetype="image/jpeg", conditional=True, max_age=0)
    if "v" in request.args:
        response.headers["Cache-Control"] = f"private, max-age={_FOR_EVER_S}, immutable"
    else:
        response.headers["Cache-Control"] = "private, max-age=300"
    return response


# --- images that readers send -------------------------------------------------------------------


MAX_UPLOADS = 100
_CUT_OFF_S = 3600
_ID = re.compile(r"[0-9a-f]{32}")


def save_upload(folder: Path, data: bytes) -> str:
    """Keep an image; returns its id. Raises Problem 400 (nothing sent), 413 (too many pixels) or 415 (no image)."""
    if not data:
        raise Problem(400, _("No image was sent. Choose, drop or paste one."))
    with decoded_upload(data):
        pass
    name = hashlib.sha256(data).hexdigest()[:32]
    folder.mkdir(parents=True, exist_ok=True)
    _drop_cut_off(folder)
    # Written anew even where it is there: another process may just be dropping it.
    files.write_bytes(folder / name, data)
    _drop_oldest(folder)
    return name


def _drop_cut_off(folder: Path) -> None:
    """Delete what a server that was killed had begun to write an hour ago and more."""
    for partial in folder.glob(f".*{files.PARTIAL}"):
        with suppress(OSError):
            if time.time() - partial.stat().st_mtime > _CUT_OFF_S:
                partial.unlink()


@contextmanager
def decoded_upload(data: bytes) -> Iterator[UInt8]:
    """uint8 [H, W, 3], for as long as it is open; the pixel count is looked at before a pixel is decoded."""
    with DECODING.hold(picture_size(data)):
        yield _decode(data)


def _decode(data: bytes) -> UInt8:
    try:
        return decode_image(data, _("The image"), MAX_PIXELS)
    except ImageryError as error:
        status = 413 if error.kind == "too-large" else 415
        details = {
            "too-large": _("The image has too many pixels: at most {n} million are decoded.", n=MAX_PIXELS // 10**6),
            "not-an-image": _("This is not a JPEG, PNG, TIFF or WebP image."),
        }
        damaged = _("The image is damaged or of a kind that is not read here.")
        raise Problem(status, details.get(error.kind, damaged)) from None


def find_upload(folder: Path, name: str) -> Path:
    """Raises Problem 404 for what is no id, and for what has been dropped since."""
    path = folder / name
    if not _ID.fullmatch(name) or not path.is_file():
        raise _upload_gone()
    return path


def read_upload(folder: Path, name: str) -> bytes:
    """Raises Problem 404 as `find_upload` does."""
    try:
        return find_upload(folder, name).read_bytes()
    except FileNotFoundError:  # dropped between the look and the reading
        raise _upload_gone() from None


def _upload_gone() -> Problem:
    return Problem(404, _("This image is no longer kept. Send it again."))


def _drop_oldest(folder: Path) -> None:
    uploads = [path for path in folder.iterdir() if _ID.fullmatch(path.name)]
    with suppress(OSError):  # another thread drops them as well
        uploads.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in uploads[MAX_UPLOADS:]:
            path.unlink(missing_ok=True)
            for rendition in folder.glob(f"{path.name}-*.jpg"):
                rendition.unlink(missing_ok=True)
