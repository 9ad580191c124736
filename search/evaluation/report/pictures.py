"""Thumbnails inside a page: frames and their hits."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from coarseloc.core import geo
from coarseloc.core.errors import ImageryError
from coarseloc.core.types import Frame, RankedTile
from coarseloc.i18n import Translator
from coarseloc.imagery.decode import read_image, thumbnail_path
from coarseloc.store.runs import FrameResult
from search.evaluation.report import style
from search.evaluation.report.plotted_run import PlottedRun
from search.evaluation.summary import frame_errors_m, typical_frame

SIDE = 112


def hit_strips(frame: Frame, runs: Sequence[PlottedRun], thumbnails: Path, k: int, translate: Translator) -> str:
    """HTML of a frame at the left, one row per run with its first k hits beside it."""
    labelled = [(run.label, result) for run, result in _results_with_hits(frame, runs)]
    return labelled_strips(frame, labelled, thumbnails, k, translate)


def labelled_strips(
    frame: Frame, labelled: Sequence[tuple[str, FrameResult]], thumbnails: Path, k: int, translate: Translator
) -> str:
    """`hit_strips` of results that have hits, each with its label."""
    rows = []
    for label, result in labelled:
        tiles = "".join(_tile(hit, result, thumbnails, translate) for hit in result.hits[:k])
        head = f'<div class="name">{html.escape(label)}<span>{_score_range(result, k)}</span></div>'
        rows.append(f'<div class="strip">{head}{tiles}</div>')
    return f'<div class="frame">{query(frame, translate)}<div>{"".join(rows)}</div></div>'


def best_hits(frame: Frame, runs: Sequence[PlottedRun], thumbnails: Path, translate: Translator) -> str:
    """HTML of a frame at the left, the best hit of each run beside it."""
    tiles = [
        f'<div><div class="name">{html.escape(run.label)}</div>{_tile(result.hits[0], result, thumbnails, translate)}</div>'
        for run, result in _results_with_hits(frame, runs)
    ]
    return f'<div class="frame">{query(frame, translate)}<div class="firsts">{"".join(tiles)}</div></div>'


def _results_with_hits(frame: Frame, runs: Sequence[PlottedRun]) -> list[tuple[PlottedRun, FrameResult]]:
    return [(run, r) for run in runs for r in run.evaluation.results if r.frame.index == frame.index and r.hits]


def query(frame: Frame, translate: Translator) -> str:
    """HTML of a frame: its number, picture, file name and yaw."""
    alt = html.escape(translate("frame {index}").format(index=frame.index))
    yaw = "" if frame.truth.yaw_deg is None else f"<br>{translate('yaw')} {frame.truth.yaw_deg:.0f}°"
    picture = f'<figure class="tile">{_image(_frame_uri(frame.path), alt)}</figure>'
    return (
        f'<div><div class="name">{alt}</div>{picture}<div class="tile">{html.escape(frame.filename)}{yaw}</div></div>'
    )


def _tile(hit: RankedTile, result: FrameResult, thumbnails: Path, translate: Translator) -> str:
    truth = result.frame.truth.location
    metres = None if truth is None else float(geo.distance_m(*truth, *hit.tile.center))
    state = ""
    if truth is not None:
        state = " right" if geo.inside(*truth, hit.tile.bbox) else " wrong"
    alt = translate("rank {rank}, score {score}, heading {angle}").format(
        rank=hit.rank, score=f"{hit.score:.4f}", angle=hit.tile.angle_deg
    )
    distance = "" if metres is None else f"<br>{metres:,.0f} m"
    uri = _tile_uri(str(thumbnail_path(thumbnails, hit.content_digest)), hit.path)
    text = f"<b>{hit.rank}</b> {hit.score:.4f}<br>{hit.tile.angle_deg:03d}°{distance}"
    return f'<figure class="tile{state}">{_image(uri, html.escape(alt))}<figcaption>{text}</figcaption></figure>'


def _score_range(result: FrameResult, k: int) -> str:
    return f"{result.hits[0].score:.4f} … {result.hits[:k][-1].score:.4f}"


def _image(uri: str | None, alt: str) -> str:
    return f'<img src="{uri or _GREY}" alt="{alt}">'


def worst_frames(runs: Sequence[PlottedRun], count: int) -> list[Frame]:
    """The frames whose errors, as the median over runs, are the largest; frames off the map are left out."""
    errors = frame_errors_m(run.evaluation.answers for run in runs)
    frames = {r.frame.index: r.frame for run in runs for r in run.evaluation.results}
    return [frames[index] for index in sorted(errors, key=lambda index: -errors[index])[:count]]


def median_frame(runs: Sequence[PlottedRun]) -> Frame | None:
    """The frame of median error: see `summary.typical_frame`."""
    index = typical_frame(run.evaluation.answers for run in runs)
    return next((r.frame for run in runs for r in run.evaluation.results if r.frame.index == index), None)


def contact_sheet(frame: Frame, runs: Sequence[PlottedRun], thumbnails: Path, k: int) -> Figure:
    """Plot `hit_strips` as a figure, for files."""
    figure, axes = style.new_figure(len(runs), k + 1, 0.95 * len(runs) + 0.2)
    cells = iter(axes)
    for run in runs:
        result = next((r for r in run.evaluation.results if r.frame.index == frame.index), None)
        hits = result.hits[:k] if result else ()
        pictures = [_pixels(frame.path), *(_hit_pixels(hit, thumbnails) for hit in hits)]
        titles = [run.label, *(f"{hit.score:.3f}" for hit in hits)]
        for column in range(k + 1):
            ax = next(cells)
            ax.axis("off")
            if column < len(pictures):
                ax.imshow(pictures[column])
                ax.set_title(titles[column], fontsize=6, loc="center")
    return figure


# --- bytes --------------------------------------------------------------------------------------


def _pixels(path: Path) -> Image.Image:
    try:
        picture = Image.fromarray(read_image(path))
    except ImageryError:
        return Image.new("RGB", (SIDE, SIDE), (128, 128, 128))
    picture.thumbnail((SIDE, SIDE))
    return picture


def _hit_pixels(hit: RankedTile, thumbnails: Path) -> Image.Image:
    small = thumbnail_path(thumbnails, hit.content_digest)
    return _pixels(small if small.is_file() or not hit.path else Path(hit.path))


@lru_cache(maxsize=4096)
def _frame_uri(path: Path) -> str | None:
    return _uri(path)


@lru_cache(maxsize=4096)
def _tile_uri(thumbnail: str, path: str | None) -> str | None:
    """The thumbnail, else the capture itself, scaled down."""
    for candidate in (thumbnail, path):
        if candidate and Path(candidate).is_file():
            return _uri(Path(candidate))
    return None


def _uri(path: Path) -> str | None:
    """A small JPEG as a data URI; None for a picture that is missing or cannot be read."""
    try:
        picture = Image.fromarray(read_image(path))
    except ImageryError:
        return None
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


_GREY = "data:image/gif;base64,R0lGODlhAQABAIAAAICAgAAAACH5BAAAAAAALAAAAAABAAEAAAICRAEAOw=="


def count_missing(runs: Sequence[PlottedRun], frames: Sequence[Frame], thumbnails: Path, k: int) -> Mapping[str, int]:
    """{"frames": n, "tiles": n} whose picture is missing, for a note beside the thumbnails."""
    indices = {frame.index for frame in frames}
    hits = [h for run in runs for r in run.evaluation.results if r.frame.index in indices for h in r.hits[:k]]
    return {
        "frames": sum(_frame_uri(frame.path) is None for frame in frames),
        "tiles": sum(_tile_uri(str(thumbnail_path(thumbnails, h.content_digest)), h.path) is None for h in hits),
    }
