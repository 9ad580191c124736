"""What an ingest and a search would cost: embeddings, minutes, disk."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coarseloc.core.types import Backbone, EmbeddingSpec, TileSource, UInt8
from coarseloc.store import Database
from ingest.plan import count_missing
from ingest.worker import READERS
from search.preflight.findings import Finding, Level, duration_text
from search.preflight.map_facts import BLOCK_BYTES

THUMBNAIL_BYTES = 3 * BLOCK_BYTES  # of a view, where none was measured
TIMED_FRAMES = 3  # embedded alone, as a search does
_LONG_MINUTES = 720.0
# Beside its vector of 4 bytes a dimension, each view of the demonstration (1,040 of 160 dimensions) takes so many bytes
# in SQL, in Qdrant's files and in its mirror; a mirror of many has half precision beside it.
_SQL_BYTES, _QDRANT_BYTES, _MIRROR_BYTES, _MIRROR_VECTORS = 1300, 2300, 160, 1.5


@dataclass(frozen=True, slots=True)
class EncoderCost:
    """What one backbone has to do."""

    backbone: str
    dim: int
    embeddings: int  # to be made
    views: int
    embed_s: float | None  # of one view in a batch; None where it was not measured
    frame_s: float | None  # of one frame alone


def encoder_cost(
    db: Database,
    spec: EmbeddingSpec,
    sources: Sequence[TileSource],
    thumbnails: Path,
    pictures: Sequence[UInt8],
    frames: Sequence[UInt8],
    load: Callable[[EmbeddingSpec], Backbone],
) -> EncoderCost:
    """What one backbone has to do; measured where there are pictures of tiles and frames."""
    with db.read() as session:
        missing = sum(count_missing(session, source, spec, thumbnails) for source in sources)
    views = sum(len(source.angles_of(tile)) for source in sources for tile in source.tiles)
    embed_s = frame_s = None
    if pictures or frames:
        encoder = load(spec)
        embed_s = _seconds(lambda: encoder.embed_many(pictures)) / len(pictures) if pictures else None
        alone = [_seconds(lambda picture=picture: encoder.embed_many([picture])) for picture in frames]  # type: ignore[misc]
        frame_s = float(np.median(alone)) if alone else None
    return EncoderCost(spec.backbone, spec.dim, missing, views, embed_s, frame_s)


def _seconds(call: Callable[[], object]) -> float:
    """After a warm-up."""
    call()
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def cost_findings(costs: Sequence[EncoderCost], minutes: float | None, device: str, views: int) -> Iterator[Finding]:
    """How many embeddings, how long. minutes: of the ingest; views: that it was measured on."""
    for cost in costs:
        values = {"backbone": cost.backbone, "n": cost.embeddings, "views": cost.views}
        yield Finding("cost", "ok", "embeddings", values)
    if minutes is not None and any(cost.embeddings for cost in costs):
        is_long = minutes > _LONG_MINUTES
        values = {"ingest": duration_text(60 * minutes), "device": device, "n": views}
        yield Finding("cost", "doubtful" if is_long else "ok", "long" if is_long else "minutes", values)


def ingest_minutes(costs: Sequence[EncoderCost], read_s: float, is_gpu: bool) -> float | None:
    """None where a backbone was not measured. On a GPU reading hides behind embedding; a CPU's cores do both."""
    if not costs or any(cost.embed_s is None for cost in costs):
        return None
    embed = sum(cost.embeddings * (cost.embed_s or 0.0) for cost in costs)
    reading = max(cost.embeddings for cost in costs) * read_s / READERS
    return (max(embed, reading) if is_gpu else embed + reading) / 60


def disk_bytes(costs: Sequence[EncoderCost], thumbnail_bytes: int) -> int:
    """What the embeddings to be made and their thumbnails take: SQL, Qdrant and the mirrors."""
    embeddings = sum(
        cost.embeddings * (_SQL_BYTES + _QDRANT_BYTES + _MIRROR_BYTES + 4 * cost.dim * (2 + _MIRROR_VECTORS))
        for cost in costs
    )
    return int(embeddings) + max((cost.embeddings for cost in costs), default=0) * thumbnail_bytes


def disk_free(folder: Path) -> int:
    """Of the disk that a folder lies on, or will."""
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def disk_findings(needed: int, free: int) -> Iterator[Finding]:
    """Whether there is room."""
    key = "disk-full" if needed > free else "disk-tight" if 2 * needed > free else "disk"
    levels: dict[str, Level] = {"disk": "ok", "disk-tight": "doubtful", "disk-full": "no"}
    yield Finding("disk", levels[key], key, {"needed": _gigabytes(needed), "free": _gigabytes(free)})


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def search_finding(minutes: float) -> Finding:
    """How long a search takes beside its fixes."""
    return Finding("cost", "ok", "search-minutes", {"search": duration_text(60 * minutes)})
