"""A study: embedded step by step so that a stop loses little, judged when all is there, and kept with its curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from coarseloc.core.types import Backbone, Bools, EmbeddingSpec, Floats, Progress
from coarseloc.store import Database, studies
from coarseloc.store.studies import Arrays, CurvePoint, StoredStudy
from search.evaluation.intervals import Estimator, mean
from search.evaluation.studies.ways import Way, plain

Load = Callable[[EmbeddingSpec], Backbone]
Parts = Callable[[Sequence[str], str], NDArray[Any]]
"""(names of steps, name of an array) → that array of each step, stacked in their order."""


class Step(NamedTuple):
    """A piece of work that is kept as soon as it is done."""

    name: str
    work: Callable[[Backbone], Arrays]


class Experiment(Protocol):
    """What is looked at, and what it comes to."""

    @property
    def counts(self) -> Mapping[str, Any]:
        """How much is looked at: at least `frames` and `references`."""
        ...

    def limits(self) -> Mapping[str, Any]:
        """What bounds its figures whatever the backbone, for `limits.sentences`: at least `own_pixels`, `matched` (as
        `ground.shared_pixels` counts them) and `floor_m`, the median metres to the nearest reference."""
        ...

    def steps(self) -> Sequence[Step]:
        """What embeds it, in small pieces."""
        ...

    def judged(self, backbone: str, parts: Parts) -> tuple[Sequence[CurvePoint], Sequence[Way]]:
        """The curves of one backbone, and its ways to be robust, from what all steps gave."""
        ...


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


def run_study(
    db: Database,
    kind: str,
    asked: Mapping[str, Any],
    environment: Mapping[str, Any],
    specs: Sequence[EmbeddingSpec],
    load: Load,
    set_up: Callable[[], Experiment],
    progress: Progress | None = None,
) -> Answer:
    """Answer, or go on answering, or look up what was answered before.

    `asked` and the specs are the question; `set_up` makes its experiment, and is called only where the answer is not
    there yet.
    """
    question = {**asked, "backbones": {spec.backbone: spec.digest for spec in specs}}
    with db.write() as session:
        study = studies.start_study(session, kind, question, environment)
    if study.finished_at is None:
        experiment = set_up()
        _gather(db, study, specs, experiment.steps(), load, progress)
        points: list[CurvePoint] = []
        ways: dict[str, Sequence[Way]] = {}
        for spec in specs:
            curves, ways[spec.backbone] = experiment.judged(spec.backbone, partial(_collected, db, study, spec))
            points += curves
        limits = dict(experiment.limits())
        with db.write() as session:
            findings = {"ways": plain(ways), **experiment.counts, "limits": limits}
            studies.finish_study(session, study.id, points, findings)
    return answer_of(db, study.id)


def answer_of(db: Database, study_id: int) -> Answer:
    """Raises StoreError for a study that is not known."""
    with db.read() as session:
        return Answer(studies.find_study(session, study_id), studies.curves(session, study_id))


def curve_point(
    backbone: str,
    curve: str,
    x: float,
    values: Floats | Bools,
    estimator: Estimator = mean,
    correlation: float | None = None,
) -> CurvePoint:
    """A point of a curve from a value of each frame [n], with its 95 % interval where n_eff allows one."""
    estimate = estimator(np.asarray(values, float), correlation)
    return CurvePoint(backbone, curve, float(x), estimate.value, estimate.low, estimate.high, estimate.n)


# --- step by step -------------------------------------------------------------------------------


def _gather(
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
        missing = [step for step in steps if _part(spec, step.name) not in done]
        count += len(steps) - len(missing)
        if not missing:
            continue
        backbone = load(spec)
        for step in missing:
            arrays = step.work(backbone)
            with db.write() as session:
                studies.save_part(session, study.id, _part(spec, step.name), arrays)
            count += 1
            if progress:
                progress(count, total, "steps")


def _collected(db: Database, study: StoredStudy, spec: EmbeddingSpec, names: Sequence[str], array: str) -> NDArray[Any]:
    """`Parts` of one backbone."""
    with db.read() as session:
        return np.stack([studies.load_part(session, study.id, _part(spec, name))[array] for name in names])


def _part(spec: EmbeddingSpec, step: str) -> str:
    return f"{spec.digest[:16]}/{step}"
