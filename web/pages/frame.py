"""Show one frame: the query image, and the tiles that each backbone ranked for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, cast

from flask import Blueprint, request
from pydantic import Field

from coarseloc.core.clock import FlightClock, TimeSource, utc_offset_text
from coarseloc.core.marks import UNMARKED, FrameMarks
from coarseloc.core.types import AltitudeDatum, Frame, Pose
from coarseloc.localize.places import agreement_matrix
from coarseloc.store import flights, marks
from coarseloc.store.flights import StoredFlight
from coarseloc.store.runs import StoredRun, newest_by_spec
from search.answers import FrameAnswer, agreement_within_m, first_hits
from search.export.fix_infos import fix_errors_info, fix_info
from search.export.records import FixErrorsInfo, FixInfo, Location
from web.language import _
from web.models import (
    AnswerModel,
    EstimateView,
    GroundMap,
    HitView,
    MapBounds,
    Note,
    Tags,
    Url,
    estimate_view,
    hit_views,
    location_of,
)
from web.pages import page
from web.pages.images import frame_url, result_url
from web.pages.map import fix_map, run_map
from web.problems import Problem
from web.selection import (
    FlightFacts,
    RunParameters,
    RunView,
    answers_by_run,
    flight_facts,
    metres_of_address,
    run_facts,
    selected_runs,
    stored_flight,
)
from web.state import current_state

routes = Blueprint("frame", __name__)

Arrangement = Literal["side", "blink", "blend"]


class FrameTruth(AnswerModel):
    location: Location | None
    yaw_deg: float | None
    altitude_label_m: float | None
    altitude_datum: AltitudeDatum | None = None
    pitch_deg: float | None = None
    roll_deg: float | None = None


class FrameFacts(AnswerModel):
    index: int
    filename: str
    image: str = Url
    image_view: str = Url
    image_full: str = Url
    taken_at: datetime | None = Field(default=None, description="by the flight's clock, no zone")
    time_source: TimeSource | None = None
    utc_offset_s: int | None = None
    taken_text: str = Field(description="– where nothing says")
    altitude_text: str = Field(description="with what it is above; – where it is unknown")
    truth: FrameTruth
    tags: list[str] = Tags
    note: str = Note


class FrameTiming(AnswerModel):
    """Milliseconds; `total_ms` is embed + search."""

    decode_ms: float
    embed_ms: float
    search_ms: float
    total_ms: float


class RankedRun(RunView):
    timing: FrameTiming | None
    error: str | None
    hits: list[HitView] = Field(description="best first")
    estimate: EstimateView | None
    fix: FixInfo | None = Field(description="null where this search has not come to the frame, or was not verified")
    fix_errors: FixErrorsInfo | None
    fix_map: GroundMap | MapBounds | None = Field(description="of the references that it was fixed on")


class AgreeingModels(AnswerModel):
    """The largest group of backbones whose estimates lie within the distance of one of them, that one first."""

    within_m: float
    models: list[str]
    of: int = Field(ge=0)
    voters: list[str] = Field(description="one model a backbone: the newest, where one was searched twice")


class _Arranged(AnswerModel):
    model: str
    view: Arrangement


class ComparedHit(HitView, _Arranged):  # in this order of bases, `model` and `view` are the first keys
    """The hit that the address compares with the query."""


class FramePage(AnswerModel):
    """One frame: the query, and what each backbone ranked for it."""

    flight: FlightFacts
    frame: FrameFacts
    position: int = Field(ge=1)
    first: int
    last: int
    previous: int | None
    next: int | None
    reference_sets: list[str]
    reference_set: str | None
    asked: list[RunParameters]
    asked_key: str | None
    methods: list[str]
    method: str
    map: GroundMap | MapBounds | None
    rows: list[RankedRun]
    fix_model: str | None = Field(description="whose fix is shown first: the model of the address, else the surest")
    agreement: AgreeingModels
    chosen: ComparedHit | None


@page(routes, "/flights/<flight_id>/<int:frame>", "frame")
def frame_page(flight_id: str, frame: int) -> FramePage:
    """The query, a row per backbone with its ranked tiles, and how far the backbones agree."""
    state = current_state()
    stored = stored_flight(state.database, flight_id, [frame])
    with state.database.read() as session:
        indices = flights.frame_numbers(session, flight_id)
    position = _position(indices, frame)
    (query,) = stored.flight.frames
    selection = selected_runs(state.database, flight_id)
    runs = list(selection.runs.values())
    with state.database.read() as session:
        answers = answers_by_run(session, runs, [frame])
        on_frame = marks.frame_marks(session, flight_id, [frame]).get(frame, UNMARKED)
    answer_by_key = {key: next(iter(answers[run.id]), None) for key, run in selection.runs.items()}
    rows = _rows(selection.runs, query, answer_by_key)
    return FramePage(
        flight=flight_facts(stored, len(indices)),
        frame=_frame_facts(stored, query, on_frame),
        position=position + 1,
        first=indices[0],
        last=indices[-1],
        previous=indices[position - 1] if position > 0 else None,
        next=indices[position + 1] if position + 1 < len(indices) else None,
        **selection.choices(),
        map=next((run_map(state, run) for run in runs), None),
        rows=rows,
        fix_model=_fix_model(rows),
        agreement=_agreement(selection.runs, answer_by_key),
        chosen=_compared(rows),
    )


def _position(indices: Sequence[int], index: int) -> int:
    """Where the frame of this index stands in its flight, from 0."""
    if index not in indices:
        last = indices[-1] if indices else 0
        raise Problem(404, _("This flight has no frame {index}; its last one is {last}.", index=index, last=last))
    return indices.index(index)


def _frame_facts(stored: StoredFlight, frame: Frame, on_frame: FrameMarks) -> FrameFacts:
    flight_id, truth = stored.flight.flight_id, frame.truth
    return FrameFacts(
        index=frame.index,
        filename=frame.filename,
        image=frame_url(flight_id, frame),
        image_view=frame_url(flight_id, frame, "view"),
        image_full=frame_url(flight_id, frame, "full"),
        taken_at=frame.time,
        time_source=stored.flight.clock.source,
        utc_offset_s=stored.flight.clock.utc_offset_s,
        taken_text=_taken_text(frame, stored.flight.clock),
        altitude_text=_altitude_text(truth),
        truth=FrameTruth(
            location=location_of(truth.location) if truth.location else None,
            yaw_deg=truth.yaw_deg,
            altitude_label_m=truth.altitude_label_m,
            altitude_datum=None if truth.altitude_label_m is None else truth.altitude_datum,
            pitch_deg=truth.pitch_deg,
            roll_deg=truth.roll_deg,
        ),
        tags=list(on_frame.tags),
        note=on_frame.note,
    )


def _taken_text(frame: Frame, clock: FlightClock) -> str:
    if frame.time is None:
        return "–"
    time = frame.time.isoformat(" ", "milliseconds" if frame.time.microsecond else "seconds")
    return time if clock.utc_offset_s is None else f"{time} {utc_offset_text(clock.utc_offset_s)}"


def _altitude_text(pose: Pose) -> str:
    if pose.altitude_label_m is None:
        return "–"
    text = {
        "ground": _("{metres} m above ground"),
        "sea": _("{metres} m above the sea"),
        "takeoff": _("{metres} m above take-off"),
        "ellipsoid": _("{metres} m above the ellipsoid"),
        "unknown": _("{metres} m, above what is unknown"),
    }[pose.altitude_datum]
    return text.format(metres=f"{pose.altitude_label_m:.0f}")


def _rows(
    runs: Mapping[str, StoredRun], frame: Frame, answer_by_key: Mapping[str, FrameAnswer | None]
) -> list[RankedRun]:
    ranked = [first_hits(run, answer.result) if (answer := answer_by_key[key]) else () for key, run in runs.items()]
    hits_by_run = hit_views(ranked, frame.truth.location, result_url, current_state().settings.thumbnails)
    return [
        _row(key, run, answer_by_key[key], hits) for (key, run), hits in zip(runs.items(), hits_by_run, strict=True)
    ]


def _row(key: str, run: StoredRun, answer: FrameAnswer | None, hits: list[HitView]) -> RankedRun:
    if answer is None:
        error = _("This search has not come to this frame.")
        return RankedRun(
            **run_facts(key, run), timing=None, error=error, hits=[], estimate=None, fix=None, fix_errors=None,
            fix_map=None,
        )  # fmt: skip
    result, timing = answer.result, answer.result.timing
    return RankedRun(
        **run_facts(key, run),
        timing=FrameTiming(
            decode_ms=timing.decode_ms,
            embed_ms=timing.embed_ms,
            search_ms=timing.search_ms,
            total_ms=timing.total_ms,
        )
        if timing
        else None,
        error=result.error,
        hits=hits,
        estimate=estimate_view(result.estimate, answer) if result.estimate else None,
        fix=fix_info(result.fix) if result.fix else None,
        fix_errors=fix_errors_info(answer.fix_errors),
        fix_map=fix_map(current_state(), run, result.fix) if result.fix else None,
    )


def _fix_model(rows: Sequence[RankedRun]) -> str | None:
    """Of the rows that were verified the one that `?model=` names, else the one whose fix is surest."""
    fixes = {row.key: row.fix for row in rows if row.fix}
    named = request.args.get("model")
    if named in fixes:
        return named
    return max(fixes, key=lambda key: (fixes[key].match is True, fixes[key].probability or 0.0), default=None)


def _agreement(runs: Mapping[str, StoredRun], answer_by_key: Mapping[str, FrameAnswer | None]) -> AgreeingModels:
    """The largest group of backbones that agree with one of them, that one first; of equal groups the first model's,
    so that the answer does not flicker between frames. A backbone searched twice has one vote, its newest run's."""
    newest = {run.id for run in newest_by_spec(runs.values()).values()}
    estimates = {
        key: answer.result.estimate
        for key, answer in answer_by_key.items()
        if answer and answer.result.estimate and runs[key].id in newest
    }
    usual_m = agreement_within_m(next(iter(runs.values()))) if runs else 0.0
    within_m = request.args.get("within", usual_m, metres_of_address)
    keys, near = list(estimates), agreement_matrix(list(estimates.values()), within_m)
    best = int(near.sum(axis=1).argmax()) if keys else 0
    agreeing = [key for i, key in enumerate(keys) if i != best and near[best, i]]
    models = [keys[best], *agreeing] if keys else []
    return AgreeingModels(within_m=within_m, models=models, of=len(keys), voters=keys)


def _compared(rows: Sequence[RankedRun]) -> ComparedHit | None:
    """The comparison in the address: `?model=…&rank=…&view=side|blink|blend`; without a rank there is none."""
    rank, key, view = request.args.get("rank", None, int), request.args.get("model"), request.args.get("view")
    for row in rows:
        for hit in row.hits:
            if row.key == key and hit.rank == rank:
                arrangement = cast(Arrangement, view if view in ("side", "blink", "blend") else "side")
                return ComparedHit(model=row.key, view=arrangement, **hit.model_dump())
    return None
