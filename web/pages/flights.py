"""Show the list of flights, and one flight: its map, its frames and the figures of each backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlencode

import numpy as np
from flask import Blueprint, redirect, render_template, request, url_for
from pydantic import Field
from werkzeug.wrappers import Response as AnyResponse

from coarseloc.core import geo
from coarseloc.core.errors import StoreError
from coarseloc.core.marks import UNMARKED, FrameMarks
from coarseloc.core.tracks import TrackState
from coarseloc.core.types import Frame
from coarseloc.store import Database, columns, gallery, localizations, marks
from coarseloc.store.flights import StoredFlight
from coarseloc.store.localizations import BEST_PLACE, FIX, TRACK
from coarseloc.store.runs import StoredRun
from search.answer_columns import answer_columns, find_answer
from search.answers import FrameAnswer
from search.export.fix_infos import fix_errors_info, fix_info
from search.export.records import FixErrorsInfo, FixInfo, Heading, Location
from search.tracking.texts import state_text
from web import language
from web.fix_texts import method_text
from web.language import _
from web.models import AnswerModel, GroundMap, MapBounds, Note, Tags, Url, Verdict, location_of
from web.pages import address, as_json, page
from web.pages.images import frame_file_url, frame_url, result_url
from web.pages.map import map_bounds, run_map
from web.pages.tracks import TrackView, track_view
from web.problems import Problem, error_text
from web.selection import (
    FlightFacts,
    RunFigures,
    RunParameters,
    RunSelection,
    answers_by_run,
    chosen_method,
    chosen_model,
    column_figures,
    flight_facts,
    selected_runs,
    stored_flight,
    summarize_runs,
)
from web.state import current_state

PER_PAGE = 24
WINDOW = 24  # frames that the page itself holds
STATES: tuple[TrackState, ...] = ("acquiring", "tracking", "lost", "recovered")
LONG_FLIGHT = 1000  # frames, beyond which its track is a page of its own, fetched when looked at

routes = Blueprint("flights", __name__)


class FlightCardView(AnswerModel):
    id: str
    url: str = Url
    frames: int = Field(ge=0)
    truth_source: str
    image: str | None = Url
    track: list[tuple[float, float]] = Field(description="longitude, latitude")
    track_is_estimated: bool
    reference_set: str | None
    models: list[RunFigures]
    damage: str | None = Field(description="why its answers cannot be read; null where they can")


class FlightsPage(AnswerModel):
    """Cards of a page of flights, newest first."""

    flights: list[FlightCardView]
    total: int = Field(ge=0)
    page_number: int = Field(ge=1)
    pages: int = Field(ge=1)


class BestPlaceView(AnswerModel):
    score: float
    margin: float | None = Field(description="null where there is only one hit")
    margin_at_least: bool
    error_m: float | None
    location: Location
    angle_deg: float | None = Heading
    image: str | None = Url
    verdict: Verdict | None


class FrameInFlight(AnswerModel):
    index: int
    url: str = Url
    image: str = Url
    truth: Location | None
    best: BestPlaceView | None
    fix: FixInfo | None = Field(description="null where the frame was not searched, or its run not verified")
    fix_errors: FixErrorsInfo | None
    tags: list[str] = Tags
    note: str = Note


class FlightPage(AnswerModel):
    """A flight: figures per backbone, and every frame with the chosen backbone's best place and fix; and its track."""

    flight: FlightFacts
    reference_sets: list[str]
    reference_set: str | None
    asked: list[RunParameters]
    asked_key: str | None
    map: GroundMap | MapBounds | None
    methods: list[str]
    method: str
    colour: Literal["error", "margin", "probability"] = Field(
        description="what frames are coloured by: a verified run's by the probability of their fix"
    )
    models: list[RunFigures]
    model: str | None
    frame_query: str
    frames: list[FrameInFlight]
    track: TrackView | None = Field(description="null where the flight was not tracked")


@page(routes, "/", "flights", twin="/flights.json")
def flights_page() -> FlightsPage:
    """Cards of the newest flights: frames, track (as estimated where truth is not known), figures per backbone."""
    database = current_state().database
    with database.read() as session:
        total = gallery.count_flights(session)
        pages = max(1, -(-total // PER_PAGE))
        number = min(max(1, request.args.get("page", 1, int)), pages)
        cards = gallery.flight_cards(session, PER_PAGE, (number - 1) * PER_PAGE)
        tracks = gallery.tracks(session, [card.flight_id for card in cards])
    views = [_card(database, card, tracks.get(card.flight_id, [])) for card in cards]
    return FlightsPage(flights=views, total=total, page_number=number, pages=pages)


@routes.get("/flights")
def flights_plural() -> AnyResponse:
    return redirect(url_for("flights.flights"))


def _card(database: Database, card: gallery.FlightCard, track: Sequence[tuple[float, float]]) -> FlightCardView:
    """A flight whose rows are damaged says so on its card: the others are to be seen."""
    try:
        contents = _card_contents(database, card.flight_id, track)
    except StoreError as error:
        contents = {"image": None, "track": [], "reference_set": None, "models": [], "damage": error_text(error)}
    return FlightCardView(
        id=card.flight_id,
        url=url_for("flights.flight", flight_id=card.flight_id),
        frames=card.frames,
        truth_source=card.truth_source,
        track_is_estimated=not track,
        **contents,
    )


def _card_contents(database: Database, flight_id: str, track: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """What a card shows of a flight's rows. Raises StoreError where they are not as they were written."""
    selection = selected_runs(database, flight_id)
    frames, models = column_figures(database, flight_id, selection)
    best = chosen_model(models)
    estimated: list[tuple[float, float]] = []
    if best and not track:
        estimated = _estimated_track(database, flight_id, selection.runs[best], frames)
    return {
        "image": _first_picture(database, flight_id, frames),
        "track": list(track) or estimated,
        "reference_set": selection.reference_set,
        "models": models,
        "damage": None,
    }


def _first_picture(database: Database, flight_id: str, frames: columns.Columns) -> str | None:
    if not len(frames["index"]):
        return None
    first = int(frames["index"][0])
    with database.read() as session:
        path = gallery.frame_path(session, flight_id, first)
    return frame_file_url(flight_id, first, Path(path or ""))


def _estimated_track(
    database: Database, flight_id: str, run: StoredRun, frames: columns.Columns
) -> list[tuple[float, float]]:
    """Where frames are drawn whose truth is not known: at fixes, else at estimates that the map did not deny."""
    with database.read() as session:
        stored = find_answer(session, flight_id, run, chosen_method())
        if stored is None:
            return []
        answer = answer_columns(session, stored, chosen_method(), frames, with_tiles=False)
        fixes = find_answer(session, flight_id, run, FIX)
        fixed = None if fixes is None else answer_columns(session, fixes, FIX, frames)
    lon, lat = answer.lon, answer.lat
    if fixed is not None:
        judged = np.isfinite(fixed.matches)
        lon, lat = np.where(judged, fixed.lon, lon), np.where(judged, fixed.lat, lat)
    placed = np.isfinite(lon)
    return list(zip(lon[placed].tolist(), lat[placed].tolist(), strict=True))


@routes.get("/flights/<flight_id>.json", endpoint="flight_json")
@as_json
def flight_page(flight_id: str) -> FlightPage:
    """One flight: a row of figures per backbone, every frame with the chosen backbone's best place and fix, and its
    track."""
    database = current_state().database
    stored = stored_flight(database, flight_id)
    selection = selected_runs(database, flight_id)
    answers, models = summarize_runs(database, stored, selection)
    model = chosen_model(models)
    with database.read() as session:
        frames = columns.frame_columns(session, flight_id)
        on_frames = marks.frame_marks(session, flight_id)
    return FlightPage(
        flight=flight_facts(stored),
        **selection.choices(),
        map=_map(frames, selection),
        colour=_colour(models, model),
        models=models,
        model=model,
        frame_query=_frame_query(),
        frames=_frames(stored, answers[model] if model else [], on_frames),
        track=track_view(current_state(), stored, selection.runs[model] if model else None),
    )


@routes.get("/flights/<flight_id>", endpoint="flight")
def flight_html(flight_id: str) -> str:
    """The page of `flight_page`, with those frames alone that are around `?frame=`: the others come as columns."""
    database = current_state().database
    stored_flight(database, flight_id, [])  # says so where there is no such flight
    selection = selected_runs(database, flight_id)
    frames, models = column_figures(database, flight_id, selection)
    model = chosen_model(models)
    run = selection.runs[model] if model else None
    indices = frames["index"].astype(int).tolist()
    named = request.args.get("frame", None, int)
    start = indices.index(named) // WINDOW * WINDOW if named in indices else 0
    window = indices[start : start + WINDOW]
    stored = stored_flight(database, flight_id, window)
    with database.read() as session:
        answers = answers_by_run(session, [run], window, False)[run.id] if run else []
        tracks = [track.method for track in localizations.newest_tracks(session, flight_id)]
        on_frames = marks.frame_marks(session, flight_id, window)
    is_long = bool(tracks) and len(indices) > LONG_FLIGHT
    flight_map, colour = _map(frames, selection), _colour(models, model)
    return render_template(
        "flight.html",
        page="flight",
        twin_url=address("flights.flight_json", {"flight_id": flight_id}, request.args.to_dict(flat=False)),
        flight=flight_facts(stored, len(indices)),
        **selection.choices(),
        map=flight_map,
        colour=colour,
        models=models,
        model=model,
        frame_query=_frame_query(),
        frames=_frames(stored, answers, on_frames),
        track=None if is_long or not tracks else track_view(current_state(), stored_flight(database, flight_id), run),
        track_url=address("flights.track", {"flight_id": flight_id}, request.args.to_dict()) if is_long else None,
        facts=_script_facts(flight_id, selection, models, model, tracks, flight_map, colour),
        first=min(indices, default=0),
        last=max(indices, default=0),
        earlier=indices[start - WINDOW] if start else None,
        later=indices[start + WINDOW] if start + WINDOW < len(indices) else None,
        axis=axis_texts(),
    )


@routes.get("/flights/<flight_id>/track", endpoint="track")
def track_html(flight_id: str) -> str:
    """The track's section of a long flight, by itself."""
    database = current_state().database
    stored = stored_flight(database, flight_id)
    selection = selected_runs(database, flight_id)
    run = selection.runs.get(request.args.get("model", "")) or next(iter(selection.runs.values()), None)
    track = track_view(current_state(), stored, run)
    if track is None:
        raise Problem(404, _("This flight has no answer by {method}.", method=method_text(TRACK)))
    twin = address("flights.flight_json", {"flight_id": flight_id}, request.args.to_dict(flat=False))
    return render_template(
        "flight_track.html",
        page="flight",
        twin_url=twin,
        flight=flight_facts(stored),
        track=track,
        method=chosen_method(),
    )


def _script_facts(
    flight_id: str,
    selection: RunSelection,
    models: Sequence[RunFigures],
    model: str | None,
    tracks: Sequence[str],
    flight_map: GroundMap | MapBounds | None,
    colour: str,
) -> dict[str, Any]:
    """What the page's script needs beside the columns that it fetches."""
    methods = list(dict.fromkeys([*selection.methods, *tracks]))
    asked = chosen_method()
    primary = FIX if asked == BEST_PLACE and colour == "probability" else asked
    return {
        "columns": url_for("flight_columns.flight_columns", flight_id=flight_id),
        "estimates": url_for("flight_columns.flight_estimates", flight_id=flight_id),
        "query": _frame_query(),
        "model": model,
        "models": [row.key for row in models],
        "methods": methods,
        "titles": {method: method_text(method) for method in methods},
        "method": asked,
        "primary": primary if models or primary in methods else None,
        "map": None if flight_map is None else flight_map.model_dump(mode="json"),
        "texts": {
            "no-match": _("no match"),
            "no-match-short": _("no match"),
            "unverified": _("not verified"),
            "match": _("fix"),
            **{
                state: state_text(state, language.translate) for state in ("acquiring", "tracking", "lost", "recovered")
            },
        },
    }


@routes.get("/flights/<flight_id>/<int:frame>/brief.json")
@as_json
def frame_brief(flight_id: str, frame: int) -> FrameInFlight:
    """One frame with its best place and fix by the backbone of the address: what a panel beside the map shows."""
    database = current_state().database
    stored = stored_flight(database, flight_id, [frame])
    if not stored.flight.frames:
        raise Problem(404, _("There is no frame {index} in flight {name}.", index=frame, name=flight_id))
    selection = selected_runs(database, flight_id)
    run = selection.runs.get(request.args.get("model", "")) or next(iter(selection.runs.values()), None)
    with database.read() as session:
        answers = answers_by_run(session, [run], [frame], False)[run.id] if run else []
        on_frames = marks.frame_marks(session, flight_id, [frame])
    (view,) = _frames(stored, answers, on_frames)
    return view


def axis_texts() -> dict[str, str]:
    """The words of the time axis, by what its script calls them."""
    return {
        "error": _("error"),
        "probability": _("probability"),
        "margin": _("margin"),
        "agreement": _("agreement"),
        "state": _("state"),
        "frame": _("Frame {n}"),
        "frames": _("frame"),
        "seconds": _("seconds"),
        "play": _("Play"),
        "pause": _("Pause"),
        "none": _("no frame has this value"),
        "missing": _("The time axis needs a library that is not installed: this copy was not built."),
    }


def _colour(models: Sequence[RunFigures], chosen: str | None) -> Literal["error", "margin", "probability"]:
    if any(model.fix and model.fix.verified for model in models if model.key == chosen):
        return "probability"
    return "error" if any(model.median_error_m is not None for model in models) else "margin"


def _frame_query() -> str:
    """What a frame's address carries on from this one."""
    query = {name: request.args[name] for name in ("set", "asked", "method", "model") if name in request.args}
    return f"?{urlencode(query)}" if query else ""


def _map(frames: columns.Columns, selection: RunSelection) -> GroundMap | MapBounds | None:
    """The ground of the references searched; without a search the bounds of the track; None where nothing is placed."""
    for run in selection.runs.values():
        return run_map(current_state(), run)
    placed = np.isfinite(frames["lon"]) & np.isfinite(frames["lat"])
    if not placed.any():
        return None
    return map_bounds(current_state(), geo.bounds(frames["lon"][placed], frames["lat"][placed]))


def _frames(
    stored: StoredFlight, answers: Sequence[FrameAnswer], on_frames: Mapping[int, FrameMarks]
) -> list[FrameInFlight]:
    flight = stored.flight
    answer_by_index = {answer.result.frame.index: answer for answer in answers}
    # One address is built, the others spell it: building 500 would cost as much as all the rest of the page.
    sample = url_for("frame.frame", flight_id=flight.flight_id, frame=0)
    return [
        _frame(
            frame,
            f"{sample[:-1]}{frame.index}",
            frame_url(flight.flight_id, frame),
            answer_by_index.get(frame.index),
            on_frames.get(frame.index, UNMARKED),
        )
        for frame in flight.frames
    ]


def _frame(frame: Frame, url: str, image: str, answer: FrameAnswer | None, on_frame: FrameMarks) -> FrameInFlight:
    return FrameInFlight(
        index=frame.index,
        url=url,
        image=image,
        truth=location_of(frame.truth.location) if frame.truth.location else None,
        best=_best(answer) if answer else None,
        fix=fix_info(answer.result.fix) if answer and answer.result.fix else None,
        fix_errors=fix_errors_info(answer.fix_errors) if answer else None,
        tags=list(on_frame.tags),
        note=on_frame.note,
    )


def _best(answer: FrameAnswer) -> BestPlaceView | None:
    estimate, errors, tile = answer.result.estimate, answer.errors, answer.result.best
    if estimate is None:
        return None
    return BestPlaceView(
        score=estimate.score,
        margin=estimate.margin,
        margin_at_least=estimate.margin_at_least,
        error_m=errors.error_m if errors else None,
        location=location_of(estimate.location),
        angle_deg=estimate.heading_deg,
        image=result_url(tile.id, tile.content_digest) if tile else None,
        verdict=cast(Verdict, errors.verdict) if errors else None,
    )
