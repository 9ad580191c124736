"""What turns do to embeddings, and the ways to be robust to them. Pure but for the searches it times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from coarseloc.core import geo
from coarseloc.core.rotation import HEADINGS
from coarseloc.core.types import Bools, Float32, Floats
from coarseloc.store.studies import CurvePoint
from search.evaluation.intervals import median, share
from search.evaluation.studies.study import curve_point
from search.evaluation.studies.timing import search_ms
from search.evaluation.studies.truth import Truth
from search.evaluation.studies.ways import Tried, Way, tried, with_gains


@dataclass(frozen=True, slots=True)
class Vectors:
    """What one backbone made of the scene."""

    queries: Float32  # [Q, H, D]
    references: Float32  # [R, 8, D]
    truth: Truth  # right where the reference's footprint holds the frame's centre
    step: int


# --- the global token ---------------------------------------------------------------------------


def curves(backbone: str, vectors: Vectors) -> list[CurvePoint]:
    """Cosine of a place with itself, and with another, against the turn between them; margin and recall against the
    frame's heading for an index of one, four and eight headings."""
    step = vectors.step
    turns = list(range(0, 360, step))
    same, other = own_cosine(vectors.queries), other_cosine(vectors.queries)
    here = partial(curve_point, backbone, correlation=vectors.truth.correlation)
    points = [here("cosine", turn, same[:, i]) for i, turn in enumerate(turns)]
    points += [here("cosine_other", turn, other[:, i]) for i, turn in enumerate(turns)]
    for count in (1, 4, 8):
        scores = _scores(vectors, HEADINGS[:: 8 // count])
        hits, error = vectors.truth.of(scores.argmax(axis=2))
        margins = margin_over_wrong(scores, vectors.truth.right)
        for i, turn in enumerate(turns):
            points.append(here(f"recall@{count}", turn, hits[:, i], estimator=share))
            points.append(here(f"margin@{count}", turn, margins[:, i]))
            if not np.isnan(error).all():
                points.append(here(f"error@{count}", turn, error[:, i], estimator=median))
    return points


def own_cosine(queries: Float32) -> Floats:
    """[Q, H]: mean cosine of a place at two headings so far apart, over all pairs of that turn."""
    gram = np.einsum("qhd,qgd->qhg", queries, queries, dtype=np.float64)
    count = queries.shape[1]
    rows = np.arange(count)
    return np.stack([gram[:, rows, (rows + turn) % count].mean(axis=1) for turn in range(count)], axis=1)


def other_cosine(queries: Float32) -> Floats:
    """[Q, H]: mean cosine of a place with the other places so far turned."""
    q, count, _ = queries.shape
    if q < 2:
        return np.full((q, count), np.nan)
    rows = np.arange(count)
    total = queries.sum(axis=0, dtype=np.float64)
    gram: Floats = np.einsum("qhd,gd->qhg", queries, total)
    gram -= np.einsum("qhd,qgd->qhg", queries, queries, dtype=np.float64)
    by_turn = [gram[:, rows, (rows + turn) % count].mean(axis=1) for turn in range(count)]
    return np.asarray(np.stack(by_turn, axis=1) / (q - 1), np.float64)


def margin_over_wrong(scores: Floats, right: Bools) -> Floats:
    """[Q, H]: the best score of a right reference less the best of a wrong one; nan where there is none of either."""
    best_right = np.where(right[:, None, :], scores, -np.inf).max(axis=2)
    best_wrong = np.where(right[:, None, :], -np.inf, scores).max(axis=2)
    with np.errstate(invalid="ignore"):
        found = best_right - best_wrong
    return np.where(np.isfinite(found), found, np.nan)


def _scores(vectors: Vectors, headings: Sequence[int]) -> Floats:
    """[Q, H, R]: each frame against each place, by its best heading of those the index holds."""
    held = vectors.references[:, [HEADINGS.index(heading) for heading in headings]]
    best = np.full((*vectors.queries.shape[:2], len(held)), -np.inf)
    for i in range(held.shape[1]):
        best = np.maximum(best, np.einsum("qhd,rd->qhr", vectors.queries, held[:, i]))
    return best


# --- the ways to be robust ----------------------------------------------------------------------

PLAIN, FOUR, EIGHT_REFERENCES = (
    "one heading, nothing known",
    "four headings in the index",
    "eight headings in the index",
)
EIGHT_QUERIES, KNOWN_YAW = "frame turned eight times", "yaw known"


def compare(vectors: Vectors, taken: Mapping[str, float]) -> list[Way]:
    """The ways on the same frames: recall, metres, headings, milliseconds, bytes; gains are over eight references.
    `taken`: the milliseconds of `EMBED_TIMES`."""
    ways = [
        _indexed(name, held, vectors, taken["embed_1"])
        for name, held in ((PLAIN, (0,)), (FOUR, HEADINGS[::2]), (EIGHT_REFERENCES, HEADINGS))
    ]
    north = np.einsum("qhd,rd->qhr", vectors.queries, vectors.references[:, 0])
    ways += [_turned(north, vectors, taken["embed_8"]), _yaw_known(north, vectors, taken["embed_1"])]
    return with_gains(ways, EIGHT_REFERENCES)


def _indexed(name: str, held: Sequence[int], vectors: Vectors, embed_ms: float) -> Tried:
    """An index of references at the headings `held`; of one alone the answer tells no heading."""
    index = vectors.references[:, [HEADINGS.index(heading) for heading in held]]
    q, h, dim = vectors.queries.shape
    scores = np.einsum("qhd,rad->qhra", vectors.queries, index).reshape(q, h, -1)
    found, angle = np.divmod(scores.argmax(axis=2), len(held))
    off = _off(np.array(held)[angle], vectors.step) if len(held) > 1 else None
    cost = search_ms(index.reshape(-1, dim), vectors.queries[0, :1])
    return tried(name, vectors.truth, found, embed_ms=embed_ms, search_ms=cost, index_bytes=index.nbytes, off_deg=off)


def _turned(north: Floats, vectors: Vectors, embed_ms: float) -> Tried:
    """Each frame is turned to eight headings, and the best of eight searches counts; `north` [Q, H, R]: scores
    against references at heading 0."""
    q, h, _ = north.shape
    step, single = vectors.step, vectors.references[:, 0]
    turned = np.stack([np.roll(north, -k * 45 // step, axis=1) for k in range(8)], axis=3)  # [Q, H, R, 8]
    found, k = np.divmod(turned.reshape(q, h, -1).argmax(axis=2), 8)
    return tried(
        EIGHT_QUERIES, vectors.truth, found, embed_ms=embed_ms,
        search_ms=search_ms(single, vectors.queries[0, :: 45 // step]), index_bytes=single.nbytes,
        off_deg=_off(-45 * k, step),
    )  # fmt: skip


def _yaw_known(north: Floats, vectors: Vectors, embed_ms: float) -> Tried:
    """Each frame is turned to north before it is searched."""
    single = vectors.references[:, 0]
    return tried(
        KNOWN_YAW, vectors.truth, north[:, :1].argmax(axis=2), embed_ms=embed_ms,
        search_ms=search_ms(single, vectors.queries[0, :1]), index_bytes=single.nbytes,
    )  # fmt: skip


def _off(told_deg: NDArray[np.int64], step: int) -> Floats:
    """[Q, H]: how far the headings told for each frame at each of its headings are off, in [0, 180]."""
    return np.abs(geo.short_way(np.arange(0, 360, step), told_deg))
