"""Select the runs of a flight that a page shows, by its address, and reduce them to figures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from flask import request
from pydantic import Field

from coarseloc.core import geo, ids
from coarseloc.core.filters import WhereJson
from coarseloc.core.types import Bools
from coarseloc.store import Database, Session, columns, flights, localizations, references, runs, snapshots
from coarseloc.store.columns import Columns
from coarseloc.store.flights import StoredFlight
from coarseloc.store.localizations import BEST_PLACE, FIX
from coarseloc.store.references import StoredReferenceSet
from coarseloc.store.runs import StoredRun
from search.answer_columns import answer_columns, find_answer, median, no_answer, on_map, point_answer
from search.answers import FrameAnswer, frame_answers
from search.evaluation.summary import summarize
from web.language import _
from web.models import AnswerModel
from web.problems import Problem
from web.state import current_state


class FlightFacts(AnswerModel):
    id: str
    frames: int = Field(ge=0)
    started_at: str | None = Field(description="local time, no zone")
    truth_source: str = Field(description="labels, table, exif or none")


class NamedFlight(AnswerModel):
    id: str
    frames: int = Field(ge=0)


class RunParameters(AnswerModel):
    """What sets searches of one flight apart; `key` chooses one in an address (`?asked=`)."""

    key: str
    label: str
    angle_deg: int | None = Field(description="the one heading that was searched, null for all")
    where: WhereJson
    k: int | None


class RunView(AnswerModel):
    """One search of a flight, by its backbone; `key` chooses it in an address (`?model=`)."""

    key: str
    backbone: str
    title: str
    params_m: int | float | None = Field(description="millions of parameters")
    pretraining: str | None
    dim: int
    input_px: int
    precision: str
    run: int
    reference_set: str
    references: int = Field(ge=0, description="rotated tiles searched")
    parameters: dict[str, Any]
    environment: dict[str, Any]


class FixFigures(AnswerModel):
    """A run's fixes: how many frames were looked for on the map, and with what result. Medians of frames that match."""

    verified: int = Field(ge=0)
    matches: int = Field(ge=0)
    no_match: dict[str, int] = Field(description="frames by reason")
    not_verified: dict[str, int] = Field(description="frames by reason")
    median_ground_error_m: float | None
    median_aircraft_error_m: float | None
    median_heading_error_deg: float | None
    median_ellipse_95_m: float | None = Field(description="the larger semi-axis, of the aircraft where that is known")
    median_verify_ms: float | None


class RunFigures(RunView):
    """With medians over its frames; null where no frame has the figure."""

    done: int = Field(ge=0)
    failed: int = Field(ge=0)
    off_map: int = Field(ge=0, description="truth is known, and no reference shows it: no part of the median error")
    median_score: float | None
    median_margin: float | None
    median_error_m: float | None = Field(description="null where truth is not known")
    median_embed_ms: float | None
    median_search_ms: float | None
    median_total_ms: float | None
    fix: FixFigures | None = Field(description="null where the run was not verified")


@dataclass(frozen=True, slots=True)
class RunSelection:
    """The searches of one reference set with the same parameters, one per backbone; and what else may be chosen."""

    reference_sets: list[str]
    reference_set: str | None
    parameters: list[RunParameters]
    parameters_key: str | None
    runs: dict[str, StoredRun]  # {key in the address: run}, small backbones first
    methods: list[str] = field(default_factory=list)  # by which some of the runs have answered

    def choices(self) -> dict[str, Any]:
        """The keys of an answer that say which searches it is of, and which others there are."""
        return {
            "reference_sets": self.reference_sets,
            "reference_set": self.reference_set,
            "asked": self.parameters,
            "asked_key": self.parameters_key,
            "methods": self.methods,
            "method": chosen_method(),
        }


NO_RUNS = RunSelection([], None, [], None, {})


def stored_flight(database: Database, flight_id: str, frame_indices: Sequence[int] | None = None) -> StoredFlight:
    """Read a flight with its frames, all or some. Raises Problem 404 for an unknown one."""
    with database.read() as session:
        if ids.label(flight_id) not in flights.flight_ids(session):
            detail = _("There is no flight {name}. Go back to the flights to see those there are.", name=flight_id)
            raise Problem(404, detail)
        return flights.find_flight(session, flight_id, frame_indices)


def stored_set(database: Database, name: str) -> StoredReferenceSet:
    """Read a reference set by its exact name. Raises Problem 404 for an unknown one."""
    with database.read() as session:
        for stored in references.reference_sets(session):
            if stored.name == name:
                return stored
    raise Problem(404, _("There is no reference set {name}.", name=name))


def flight_facts(stored: StoredFlight, frames: int | None = None) -> FlightFacts:
    """frames: how many there are, where not all of them were read."""
    flight = stored.flight
    return FlightFacts(
        id=flight.flight_id,
        frames=len(flight.frames) if frames is None else frames,
        started_at=flight.started_at.isoformat(sep=" ", timespec="minutes") if flight.started_at else None,
        truth_source=flight.truth_source,
    )


def selected_runs(database: Database, flight_id: str, run_id: int | None = None) -> RunSelection:
    """Select of the flight's finished searches those that `?set=` and `?asked=` name, or those beside the run of that
    number; by default the newest reference set, and of the parameters the widest: all headings, no filter."""
    with database.read() as session:
        latest = runs.latest_runs(session, flight_id)
        methods = {run.id: localizations.methods(session, run.id) for run in latest}
    named = next((run for run in latest if run.id == run_id), None)
    reference_sets = list(dict.fromkeys(run.reference_set.name for run in reversed(latest)))
    reference_set = _choose(named.reference_set.name if named else request.args.get("set"), reference_sets)
    of_set = [run for run in latest if run.reference_set.name == reference_set]
    parameters = {parameters_key(run): _parameters(run) for run in of_set}
    parameters = dict(sorted(parameters.items(), key=lambda entry: _narrowness(entry[1])))
    key = _choose(parameters_key(named) if named else request.args.get("asked"), list(parameters))
    several_k = len({values["k"] for values in parameters.values()}) > 1
    views = [RunParameters(key=k, label=_label(values, several_k), **values) for k, values in parameters.items()]
    chosen = _runs_by_key([run for run in of_set if parameters_key(run) == key])
    of_chosen = list(dict.fromkeys(method for run in chosen.values() for method in methods[run.id]))
    return RunSelection(reference_sets, reference_set, views, key, chosen, of_chosen)


def _choose(name: str | None, names: Sequence[str]) -> str | None:
    return name if name in names else names[0] if names else None


def _parameters(run: StoredRun) -> dict[str, Any]:
    """What sets a search apart for its reader: the heading searched alone, the filters, k."""
    parameters = run.parameters
    return {"angle_deg": parameters.get("angle_deg"), "where": parameters.get("where") or {}, "k": parameters.get("k")}


def parameters_key(run: StoredRun) -> str:
    return ids.digest(_parameters(run))[:8]


def metres_of_address(text: str) -> float:
    """A number of metres; ValueError where it is none, so that the usual one stands."""
    if not math.isfinite(metres := float(text)):
        raise ValueError(text)
    return metres


def run_label(run: StoredRun) -> str:
    """What a run asked, in words: headings and filters."""
    return _label(_parameters(run), with_k=False)


def _narrowness(parameters: Mapping[str, Any]) -> tuple[int, int, int]:
    angle_deg = parameters["angle_deg"]
    return len(parameters["where"]), -1 if angle_deg is None else angle_deg, -(parameters["k"] or 0)


def _label(parameters: Mapping[str, Any], with_k: bool) -> str:
    angle = parameters["angle_deg"]
    parts = [_("all headings") if angle is None else _("heading {angle} only", angle=f"{angle:03d}°")]
    parts += [f"{name} {_condition_text(condition)}" for name, condition in parameters["where"].items()]
    return " · ".join([*parts, f"k {parameters['k']}"] if with_k else parts)


def _condition_text(condition: Any) -> str:
    if isinstance(condition, dict):
        return ", ".join(f"{name} {_condition_text(part)}" for name, part in condition.items())
    if isinstance(condition, list):
        return ", ".join(map(_condition_text, condition))
    return f"{condition:g}" if isinstance(condition, float) else str(condition)


def _runs_by_key(stored_runs: Sequence[StoredRun]) -> dict[str, StoredRun]:
    """A run's key is its backbone's name, with the run's number where a backbone comes twice (two input sizes)."""
    state = current_state()
    ordered = sorted(stored_runs, key=lambda run: (state.backbone_order(run.spec.backbone), run.id))
    times = Counter(run.spec.backbone for run in ordered)
    return {
        run.spec.backbone if times[run.spec.backbone] == 1 else f"{run.spec.backbone}~{run.id}": run for run in ordered
    }


def answers_of(
    database: Database, stored: StoredFlight, run: StoredRun, of_flight: Sequence[StoredRun]
) -> list[FrameAnswer]:
    """A run's frames by the method that `?method=` names, without hits.

    Selected once: a finished run does not change. The truth may, by a new look at the folder, and so may the backbones
    that it can agree with; and its fixes come after.
    """
    truth = hash(tuple((frame.index, frame.truth) for frame in stored.flight.frames))
    method = chosen_method()
    voters = tuple(voter.id for voter in runs.agreement_voters(run, of_flight))
    with database.read() as session:
        progress = localizations.fix_progress(session, run.id)

    def select() -> list[FrameAnswer]:
        with database.read() as session:
            return answers_by_run(session, [run], with_hits=False)[run.id]

    return current_state().memory.recall(("answers", run.id, run.finished_at, method, truth, voters, progress), select)


def answers_by_run(
    session: Session, selected: Sequence[StoredRun], frame_indices: Sequence[int] | None = None, with_hits: bool = True
) -> dict[int, list[FrameAnswer]]:
    """{run id: its answers by the method that `?method=` names}; where that is the fix, a run that was not verified has
    its hits alone."""
    method = chosen_method()
    unverified = [run for run in selected if method == FIX and FIX not in localizations.methods(session, run.id)]
    answering = [run for run in selected if run not in unverified]
    answers = frame_answers(session, answering, method=method, frame_indices=frame_indices, with_hits=with_hits)
    by_place = frame_answers(session, unverified, frame_indices=frame_indices, with_hits=with_hits)
    return answers | {
        run_id: [FrameAnswer(replace(answer.result, estimate=None, best=None), None, None, None) for answer in of_run]
        for run_id, of_run in by_place.items()
    }


def answering_runs(database: Database, selection: RunSelection) -> list[StoredRun]:
    """The selected runs that have answered by the method of the address; all of them where none has."""
    method = chosen_method()
    with database.read() as session:
        answering = [run for run in selection.runs.values() if method in localizations.methods(session, run.id)]
    return answering or list(selection.runs.values())


def chosen_method() -> str:
    """Return the method whose answers a page shows: `?method=`, by default the best place."""
    return request.args.get("method", BEST_PLACE)


def run_facts(key: str, run: StoredRun) -> dict[str, Any]:
    """The fields of a RunView: the backbone's facts, the parameters, and what answered."""
    spec = run.spec
    row = current_state().backbones.get(spec.backbone)
    return {
        "key": key,
        "backbone": spec.backbone,
        "title": row.title if row else spec.backbone,
        "params_m": row.params_m if row else None,
        "pretraining": row.pretraining if row else None,
        "dim": spec.dim,
        "input_px": spec.input_px,
        "precision": spec.precision,
        "run": run.id,
        "reference_set": run.reference_set.name,
        "references": run.references,
        "parameters": dict(run.parameters),
        "environment": dict(run.environment),
    }


def run_figures(key: str, run: StoredRun, answers: Sequence[FrameAnswer]) -> RunFigures:
    summary = summarize(answers)
    return RunFigures(
        **run_facts(key, run),
        done=summary.frames,
        failed=summary.unreadable,
        off_map=summary.off_map,
        median_score=summary.median_score,
        median_margin=summary.median_margin,
        median_error_m=summary.median_error_m,
        median_embed_ms=summary.median_ms["embed"],
        median_search_ms=summary.median_ms["search"],
        median_total_ms=summary.median_ms["total"],
        fix=None if summary.fix is None else FixFigures(**asdict(summary.fix)),
    )


def column_figures(database: Database, flight_id: str, selection: RunSelection) -> tuple[Columns, list[RunFigures]]:
    """The figures of `summarize_runs`, of flights of any length: (the flight's frames, a row of figures per run)."""
    with database.read() as session:
        frames = columns.frame_columns(session, flight_id)
        truth = hash((frames["lon"].tobytes(), frames["lat"].tobytes(), frames["yaw_deg"].tobytes()))
        figures = [
            current_state().memory.recall(
                ("figures", key, run.reference_set.name, localization, run.finished_at, truth, progress),
                partial(_column_figures, session, key, run, frames, localization, truth),
            )
            for key, run in selection.runs.items()
            for localization in [_answer_key(session, flight_id, run)]
            for progress in [localizations.fix_progress(session, run.id)]
        ]
    return frames, figures


def _answer_key(session: Session, flight_id: str, run: StoredRun) -> int | None:
    """Of the method of the address; None where a run was not verified. Raises InputError naming the methods it has."""
    method = chosen_method()
    localization = find_answer(session, flight_id, run, method)
    if localization is None and method != FIX:
        answers_by_run(session, [run], [], with_hits=False)
    return localization


def _on_map(session: Session, run: StoredRun, frames: Columns) -> Bools:
    return on_map(frames, snapshots.search_map(session, run.search_map))


def _column_figures(
    session: Session, key: str, run: StoredRun, frames: Columns, localization: int | None, truth: int
) -> RunFigures:
    answers = (
        no_answer(len(frames["id"]))
        if localization is None
        else answer_columns(session, localization, chosen_method(), frames, with_tiles=False)
    )
    verdicts = current_state().memory.recall(("on map", run.search_map, truth), partial(_on_map, session, run, frames))
    timing = columns.timing_columns(session, run.id, frames["id"])
    has_error = np.isfinite(answers.error_m)
    return RunFigures(
        **run_facts(key, run),
        done=int(timing["is_there"].sum()),
        failed=sum(error is not None for error in timing["error"]),
        off_map=int((has_error & ~verdicts).sum()),
        median_score=median(answers.score, answers.placed),
        median_margin=median(answers.margin, answers.placed & ~answers.margin_at_least),
        median_error_m=median(answers.error_m, verdicts),
        median_embed_ms=median(timing["embed_ms"]),
        median_search_ms=median(timing["search_ms"]),
        median_total_ms=median(timing["embed_ms"] + timing["search_ms"]),
        fix=_fix_figures(session, run, frames),
    )


def _fix_figures(session: Session, run: StoredRun, frames: Columns) -> FixFigures | None:
    localization = localizations.newest_localization(session, run.id, FIX)
    if localization is None:
        return None
    stored = columns.fix_columns(session, localization, frames["id"])
    if not stored["is_there"].any():
        return None
    fixes = point_answer(stored, frames)
    no_match, not_verified = Counter[str](), Counter[str]()
    for match, reason in zip(stored["match"].tolist(), stored["reason"], strict=True):
        if reason and match != 1:
            (no_match if match == 0 else not_verified)[reason] += 1
    truth = frames["lon"], frames["lat"]
    aircraft = np.isfinite(stored["aircraft_lon"])
    turn = np.abs(geo.signed_difference_deg(frames["yaw_deg"], stored["heading_deg"]))
    return FixFigures(
        verified=int(np.isfinite(stored["match"]).sum()),
        matches=int((stored["match"] == 1).sum()),
        no_match=dict(no_match),
        not_verified=dict(not_verified),
        median_ground_error_m=median(geo.distance_m(*truth, stored["lon"], stored["lat"])),
        median_aircraft_error_m=median(
            geo.distance_m(*truth, stored["aircraft_lon"], stored["aircraft_lat"]), aircraft
        ),
        median_heading_error_deg=median(turn, np.isfinite(frames["lon"])),
        median_ellipse_95_m=median(fixes.major_m),
        median_verify_ms=median(columns.verify_ms(session, localization)),
    )


def summarize_runs(
    database: Database, stored: StoredFlight, selection: RunSelection
) -> tuple[dict[str, list[FrameAnswer]], list[RunFigures]]:
    """Reduce the selected runs to figures: ({key: its frames}, a row of figures per run)."""
    with database.read() as session:
        of_flight = runs.runs(session, stored.flight.flight_id)
    answers = {key: answers_of(database, stored, run, of_flight) for key, run in selection.runs.items()}
    return answers, [run_figures(key, run, answers[key]) for key, run in selection.runs.items()]


def chosen_model(models: Sequence[RunFigures]) -> str | None:
    """Return the key that `?model=` names, else of the model of least median error, else of the last, the largest."""
    keys = [model.key for model in models]
    name = request.args.get("model")
    if name in keys:
        return name
    errors = {model.key: model.median_error_m for model in models if model.median_error_m is not None}
    if errors:
        return min(errors, key=errors.__getitem__)
    return keys[-1] if keys else None
