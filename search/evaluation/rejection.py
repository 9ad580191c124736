"""Precision and recall of answers over a threshold of confidence. Pure.

Every frame is answered; an answer whose confidence is below a threshold is withheld. Over all thresholds:
precision = right answers / answers not withheld, recall = right answers not withheld / frames on the map, as visual
place recognition counts them (Schubert et al., "Visual Place Recognition: A Tutorial", IEEE RAM 2023): a frame whose
place no reference shows can only be answered wrongly, so it lowers precision and is no part of recall.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coarseloc.core.types import Bools, Floats

CONFIDENCE, RIGHT, ON_MAP = 0, 1, 2  # columns of a sample


class PrecisionRecallCurve(NamedTuple):
    """One row per distinct threshold, the strictest first, each [T]."""

    threshold: Floats
    precision: Floats
    recall: Floats


def sample(confidence: Floats, right: Bools, on_map: Bools) -> Floats:
    """float64 [n, 3] of n answered frames: the input of `curve`, `area` and `recall_at_full_precision`."""
    return np.stack([confidence, right & on_map, on_map], axis=1).astype(np.float64)


def curve(samples: Floats) -> PrecisionRecallCurve:
    """The precision-recall curve of a sample [n, 3]; equal confidences pass a threshold together."""
    samples = samples[~np.isnan(samples).any(axis=1)]
    confidence, right, last_index, on_map = _by_confidence(samples[None])
    is_last = last_index[0] == np.arange(len(samples))
    answered = np.flatnonzero(is_last) + 1
    hits = np.cumsum(right[0])[is_last]
    recall = hits / on_map[0] if on_map[0] else np.full(len(hits), np.nan)
    return PrecisionRecallCurve(confidence[0][is_last], hits / answered, recall)


def area(samples: Floats) -> Floats:
    """[B, n, 3] → [B]: the area under precision-recall as the step-wise sum of precision x recall gained
    (average precision). It is at most the share of frames answered rightly."""
    _, right, last_index, on_map = _by_confidence(samples)
    hits = np.cumsum(right, axis=1)
    precision = np.take_along_axis(hits, last_index, 1) / (last_index + 1)
    return _recall(on_map, (right * precision).sum(axis=1))


def recall_at_full_precision(samples: Floats) -> Floats:
    """[B, n, 3] → [B]: the largest recall at which no answer is wrong. The surest wrong one of n answers decides it,
    so it falls as n grows: compare runs of the same frames only."""
    _, right, last_index, on_map = _by_confidence(samples)
    hits = np.cumsum(right, axis=1)
    at_end = np.take_along_axis(hits, last_index, 1)
    return _recall(on_map, np.where(at_end == last_index + 1, at_end, 0).max(axis=1, initial=0))


def _by_confidence(samples: Floats) -> tuple[Floats, Floats, NDArray[np.int64], Floats]:
    """Sort by confidence, descending: (confidence, right) [B, n], the index [B, n] of the last frame of equal
    confidence, and the number of frames on the map [B]."""
    order = np.argsort(-samples[:, :, CONFIDENCE], axis=1, kind="stable")
    confidence, right = (np.take_along_axis(samples[:, :, c], order, 1) for c in (CONFIDENCE, RIGHT))
    n = samples.shape[1]
    is_end = np.ones(confidence.shape, np.bool_)
    is_end[:, :-1] = confidence[:, :-1] != confidence[:, 1:]
    last_index = np.where(is_end, np.arange(n), n)
    last_index = np.minimum.accumulate(last_index[:, ::-1], axis=1)[:, ::-1]
    return confidence, right, last_index, samples[:, :, ON_MAP].sum(axis=1)


def _recall(on_map: Floats, right: Floats) -> Floats:
    shares: Floats = np.divide(right, on_map, out=np.full(len(right), np.nan), where=on_map > 0)
    return shares
