"""How well a confidence tells right answers from wrong ones. Pure.

Every frame is answered; an answer whose confidence is below a threshold is withheld. Over all thresholds:
precision = right answers given / answers given, recall = right answers given / frames on the map, as visual place
recognition counts them (Schubert et al., "Visual Place Recognition: A Tutorial", IEEE RAM 2023): a frame whose place
no reference shows can only be answered wrongly, so it lowers precision and is no part of recall.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coarseloc.core.types import Bools, Floats

CONFIDENCE, RIGHT, ON_MAP = 0, 1, 2  # columns of a sample


class Curve(NamedTuple):
    """One row per distinct threshold, the strictest first."""

    threshold: Floats
    precision: Floats
    recall: Floats


def sample(confidence: Floats, right: Bools, on_map: Bools) -> Floats:
    """float64 [n, 3] of n answered frames: what `area` and `recall_at_full_precision` reduce."""
    return np.stack([confidence, right & on_map, on_map], axis=1).astype(np.float64)


def curve(answers: Floats) -> Curve:
    """The precision-recall curve of a sample [n, 3]; equal confidences pass a threshold together."""
    kept = answers[~np.isnan(answers).any(axis=1)]
    confidence, right, ends, positives = _sorted(kept[None])
    last = ends[0] == np.arange(len(kept))
    given = np.flatnonzero(last) + 1
    hits = np.cumsum(right[0])[last]
    recall = hits / positives[0] if positives[0] else np.full(len(hits), np.nan)
    return Curve(confidence[0][last], hits / given, recall)


def area(samples: Floats) -> Floats:
    """[B, n, 3] → [B]: the area under precision-recall as the step-wise sum of precision x recall gained
    (average precision). It is at most the share of frames answered rightly."""
    _, right, ends, positives = _sorted(samples)
    hits = np.cumsum(right, axis=1)
    precision = np.take_along_axis(hits, ends, 1) / (ends + 1)
    return _per(positives, (right * precision).sum(axis=1))


def recall_at_full_precision(samples: Floats) -> Floats:
    """[B, n, 3] → [B]: the largest recall at which no answer given is wrong. The surest wrong one of n answers decides
    it, so it falls as n grows: compare runs of the same frames only."""
    _, right, ends, positives = _sorted(samples)
    hits = np.cumsum(right, axis=1)
    at_end = np.take_along_axis(hits, ends, 1)
    return _per(positives, np.where(at_end == ends + 1, at_end, 0).max(axis=1, initial=0))


def _sorted(samples: Floats) -> tuple[Floats, Floats, NDArray[np.int64], Floats]:
    """(confidence, right) [B, n] from the surest on; the index [B, n] of the last frame as sure as each; [B] the
    frames on the map."""
    order = np.argsort(-samples[:, :, CONFIDENCE], axis=1, kind="stable")
    confidence, right = (np.take_along_axis(samples[:, :, c], order, 1) for c in (CONFIDENCE, RIGHT))
    n = samples.shape[1]
    is_end = np.ones(confidence.shape, np.bool_)
    is_end[:, :-1] = confidence[:, :-1] != confidence[:, 1:]
    ends = np.where(is_end, np.arange(n), n)
    ends = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    return confidence, right, ends, samples[:, :, ON_MAP].sum(axis=1)


def _per(positives: Floats, hits: Floats) -> Floats:
    shares: Floats = np.divide(hits, positives, out=np.full(len(hits), np.nan), where=positives > 0)
    return shares
