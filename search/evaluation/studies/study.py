"""A study: frames and references embedded in resumable steps, evaluated, and stored with its curves."""

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
from search.evaluation.studies.strategies import Strategy, to_json

LoadBackbone = Callable[[EmbeddingSpec], Backbone]
StepArrays = Callable[[Sequence[str], str], NDArray[Any]]
"""(names of steps, name of an array) → that array of each step, stacked in their order."""


class StudyStep(NamedTuple):
    """A piece of work with a backbone whose arrays are stored as soon as it is done."""

    name: str
    work: Callable[[Backbone, StepArrays], Arrays]  # which may read the arrays of the steps before it


class Experiment(Protocol):
    """The frames and references of a study, and how its curves follow from their embeddings."""

    @property
    def counts(self) -> Mapping[str, Any]:
        """Numbers of frames, references and what else is embedded: at least `frames` and `references`."""
        ...

    def limits(self) -> Mapping[str, Any]:
        """What bounds the results whatever the backbone, for `limits.sentences`: at least `own_pixels`, `matched` (as
        `ground.shared_pixels` counts them) and `floor_m`, the median metres to the nearest reference."""
        ...

    def steps(self) -> Sequence[StudyStep]:
        """The embedding work, in small pieces."""
        ...

    def evaluate(self, backbone: str, arrays: StepArrays) -> tuple[Sequence[CurvePoint], Sequence[Strategy]]:
        """The curves and the strategies of one backbone, from the arrays of all steps."""
        ...


@dataclass(frozen=True, slots=True)
class StudyResult:
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
    parameters: Mapping[str, Any],
    environment: Mapping[str, Any],
    specs: Sequence[EmbeddingSpec],
    load: LoadBackbone,
    make_experiment: Callable[[], Experiment],
    progress: Progress | None = None,
) -> StudyResult:
    """Run a study, resume it, or read its stored result.

    `parameters` and the specs identify it; `make_experiment` is called only where there is no result yet.
    """
    parameters = {**parameters, "backbones": {spec.backbone: spec.digest for spec in specs}}
    with db.write() as session:
        study = studies.start_study(session, kind, parameters, environment)
    if study.finished_at is None:
        experiment = make_experiment()
        _run_steps(db, study, specs, experiment.steps(), load, progress)
        points: list[CurvePoint] = []
        strategies: dict[str, Sequence[Strategy]] = {}
        for spec in specs:
            arrays = partial(_stacked_arrays, db, study, spec)
            curves, strategies[spec.backbone] = experiment.evaluate(spec.backbone, arrays)
            points += curves
        limits = dict(experiment.limits())
        with db.write() as session:
            findings = {"ways": to_json(strategies), **experiment.counts, "limits": limits}
            studies.finish_study(session, study.id, points, findings)
    return load_result(db, study.id)


def load_result(db: Database, study_id: int) -> StudyResult:
    """Raises StoreError for an unknown study."""
    with db.read() as session:
        return StudyResult(studies.find_study(session, study_id), studies.curves(session, study_id))


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


def _run_steps(
    db: Database,
    study: StoredStudy,
    specs: Sequence[EmbeddingSpec],
    steps: Sequence[StudyStep],
    load: LoadBackbone,
    progress: Progress | None,
) -> None:
    """Run every step that is not stored yet with every backbone; a stop at any moment loses one step."""
    with db.read() as session:
        stored = studies.parts(session, study.id)
    total, count = len(specs) * len(steps), 0
    for spec in specs:
        missing = [step for step in steps if _part_name(spec, step.name) not in stored]
        count += len(steps) - len(missing)
        if not missing:
            continue
        backbone = load(spec)
        for step in missing:
            arrays = step.work(backbone, partial(_stacked_arrays, db, study, spec))
            with db.write() as session:
                studies.save_part(session, study.id, _part_name(spec, step.name), arrays)
            count += 1
            if progress:
                progress(count, total, "steps")


def _stacked_arrays(
    db: Database, study: StoredStudy, spec: EmbeddingSpec, names: Sequence[str], array: str
) -> NDArray[Any]:
    """`StepArrays` of one backbone."""
    with db.read() as session:
        return np.stack([studies.load_part(session, study.id, _part_name(spec, name))[array] for name in names])


def _part_name(spec: EmbeddingSpec, step: str) -> str:
    return f"{spec.digest[:16]}/{step}"
