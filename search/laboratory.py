"""What the laboratories share: embedding piece by piece so that a stop loses little, and honest times."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from coarseloc.errors import BackboneError
from coarseloc.scoring.bootstrap import Reduce, estimate, mean
from coarseloc.store import Database, studies
from coarseloc.store.studies import CurvePoint, StoredStudy
from coarseloc.types import Backbone, EmbeddingSpec, Float32, Floats, Progress, UInt8
from search.facts import WARM_UP
from search.index import ExactIndex

Load = Callable[[EmbeddingSpec], Backbone]
Arrays = Mapping[str, NDArray[Any]]
REPEATS = 15  # of each timed call; the median is told


class Step(NamedTuple):
    """A piece of work that is kept as soon as it is done."""

    name: str
    work: Callable[[Backbone], Arrays]


class Way(NamedTuple):
    """One way to be robust, and what it gives and costs. nan where it cannot be said."""

    name: str
    recall: float  # share of answers whose place is right
    low: float
    high: float
    error_m: float  # median over frames and headings
    heading_error_deg: float  # median where the place is right
    embed_ms: float
    search_ms: float
    index_bytes: int
    n: int
    gain: float = math.nan  # recall above the usual way's on the same frames, and its interval
    gain_low: float = math.nan
    gain_high: float = math.nan


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished study with its curves."""

    study: StoredStudy
    points: Sequence[CurvePoint]

    def curve(self, backbone: str, name: str) -> list[CurvePoint]:
        return [p for p in self.points if p.backbone == backbone and p.curve == name]

    @property
    def backbones(self) -> list[str]:
        return list(self.study.parameters["backbones"])


def gather(
    db: Database,
    study: StoredStudy,
    specs: Sequence[EmbeddingSpec],
    steps: Sequence[Step],
    load: Load,
    progress: Progress | None,
) -> None:
    """Do every step with every backbone that is not done yet; a stop at any moment loses one step."""
    with db.read() as session:
        done = studies.parts(session, study.id)
    total, count = len(specs) * len(steps), 0
    for spec in specs:
        missing = [step for step in steps if part_name(spec, step.name) not in done]
        count += len(steps) - len(missing)
        if not missing:
            continue
        backbone = load(spec)
        for step in missing:
            arrays = step.work(backbone)
            with db.write() as session:
                studies.save_part(session, study.id, part_name(spec, step.name), arrays)
            count += 1
            if progress:
                progress(count, total, "steps")


def part_name(spec: EmbeddingSpec, step: str) -> str:
    return f"{spec.digest[:16]}/{step}"


def collected(db: Database, study: StoredStudy, spec: EmbeddingSpec, names: Sequence[str], array: str) -> NDArray[Any]:
    """One array of several parts, stacked in the order of `names`."""
    with db.read() as session:
        return np.stack([studies.load_part(session, study.id, part_name(spec, name))[array] for name in names])


def answer_of(db: Database, study_id: int) -> Answer:
    with db.read() as session:
        return Answer(studies.find_study(session, study_id), studies.curves(session, study_id))


def patch_tokens(backbone: Backbone, images: UInt8) -> Float32:
    """float32 [B, G, G, D]; BackboneError for an encoder that has none."""
    tokens = getattr(backbone, "patch_tokens", None)
    if tokens is None:
        raise BackboneError(f"backbone {backbone.spec.backbone} has no patch tokens: leave them out with --patches 0")
    found: Float32 = tokens(images)
    return found


def point(backbone: str, curve: str, x: float, values: Floats, reduce: Reduce = mean) -> CurvePoint:
    """A point of a curve from a figure of each frame [n], with its 95 % interval."""
    return CurvePoint(backbone, curve, float(x), *estimate(np.asarray(values, float), reduce))


def with_gains(ways: Sequence[Way], recalls: Mapping[str, Floats], usual: str) -> list[Way]:
    """The ways with what each finds more than the usual one. `recalls`: {way: share found of each frame [n]}; paired by
    frame, so that what all ways find hard does not widen the interval."""
    found = []
    for way in ways:
        gain = estimate(recalls[way.name] - recalls[usual], mean)
        if way.name != usual:
            way = way._replace(gain=gain.value, gain_low=gain.low, gain_high=gain.high)
        found.append(way)
    return found


def plain(ways: Mapping[str, Sequence[Way]]) -> dict[str, list[dict[str, Any]]]:
    """Ways by backbone as JSON: None where there is no number."""

    def told(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {
        name: [{key: told(value) for key, value in way._asdict().items()} for way in rows]
        for name, rows in ways.items()
    }


# --- times --------------------------------------------------------------------------------------


def times(backbone: Backbone, pictures: UInt8) -> dict[str, Floats]:
    """Milliseconds to embed one picture, and eight at once (all of the same frame): medians after a warm-up."""
    eight = np.stack([pictures[i % len(pictures)] for i in range(8)])
    return {
        "embed_1": np.array(median_ms(lambda: backbone.embed(eight[:1]))),
        "embed_8": np.array(median_ms(lambda: backbone.embed(eight))),
    }


def search_ms(vectors: Float32, queries: Float32) -> float:
    """Median milliseconds of one exact search of these queries at once, k = 10."""
    index = ExactIndex.of(np.ascontiguousarray(vectors, np.float32))
    k = min(10, len(vectors))
    return median_ms(lambda: index.search(np.ascontiguousarray(queries, np.float32), k))


def median_ms(call: Callable[[], object]) -> float:
    for _ in range(WARM_UP):
        call()
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        call()
        taken.append((time.perf_counter() - started) * 1e3)
    return float(np.median(taken))
