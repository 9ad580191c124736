"""Show the list of flights, and one flight: its map, its frames and the figures of each backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast
from urllib.parse import urlencode

from flask import Blueprint, redirect, request, url_for
from pydantic import Field
from werkzeug.wrappers import Response as AnyResponse

from coarseloc.core import geo
from coarseloc.core.types import Frame
from coarseloc.store import Database, gallery
from coarseloc.store.flights import StoredFlight
from search.answers import FrameAnswer
from search.export.fix_infos import fix_errors_info, fix_info
from search.export.records import FixErrorsInfo, FixInfo, Heading, Location
from web.models import AnswerModel, GroundMap, MapBounds, Url, Verdict, location_of
from web.pages import page
from web.pages.images import frame_url, result_url
from web.pages.map import map_bounds, run_map
from web.pages.tracks import TrackView, track_view
from web.selection import (
    FlightFacts,
    RunFigures,
    RunParameters,
    RunSelection,
    chosen_model,
    flight_facts,
    selected_runs,
    shown_position,
    stored_flight,
    summarize_runs,
)
from web.state import current_state

PER_PAGE = 24

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
    stored = stored_flight(database, card.flight_id)
    selection = selected_runs(database, card.flight_id)
    answers, models = summarize_runs(database, stored, selection)
    best = chosen_model(models)
    positions = [shown_position(answer) for answer in answers[best]] if best else []
    estimated = [(position.lon, position.lat) for position in positions if position is not None]
    return FlightCardView(
        id=card.flight_id,
        url=url_for("flights.flight", flight_id=card.flight_id),
        frames=card.frames,
        truth_source=card.truth_source,
        image=frame_url(card.flight_id, stored.flight.frames[0]) if stored.flight.frames else None,
        track=list(track) or estimated,
        track_is_estimated=not track,
        reference_set=selection.reference_set,
        models=models,
    )


@page(routes, "/flights/<flight_id>", "flight")
def flight_page(flight_id: str) -> FlightPage:
    """One flight: a row of figures per backbone, every frame with the chosen backbone's best place and fix, and its
    track."""
    database = current_state().database
    stored = stored_flight(database, flight_id)
    selection = selected_runs(database, flight_id)
    answers, models = summarize_runs(database, stored, selection)
    model = chosen_model(models)
    return FlightPage(
        flight=flight_facts(stored),
        **selection.choices(),
        map=_map(stored, selection),
        colour=_colour(models, model),
        models=models,
        model=model,
        frame_query=_frame_query(),
        frames=_frames(stored, answers[model] if model else []),
        track=track_view(current_state(), stored, selection.runs[model] if model else None),
    )


def _colour(models: Sequence[RunFigures], chosen: str | None) -> Literal["error", "margin", "probability"]:
    if any(model.fix and model.fix.verified for model in models if model.key == chosen):
        return "probability"
    return "error" if any(model.median_error_m is not None for model in models) else "margin"


def _frame_query() -> str:
    """What a frame's address carries on from this one."""
    query = {name: request.args[name] for name in ("set", "asked", "method", "model") if name in request.args}
    return f"?{urlencode(query)}" if query else ""


def _map(stored: StoredFlight, selection: RunSelection) -> GroundMap | MapBounds | None:
    """The ground of the references searched; without a search the bounds of the track; None where nothing is placed."""
    for run in selection.runs.values():
        return run_map(current_state(), run)
    places = [frame.truth.location for frame in stored.flight.frames if frame.truth.location]
    if not places:
        return None
    lons, lats = [place.lon for place in places], [place.lat for place in places]
    return map_bounds(geo.bounds(lons, lats))


def _frames(stored: StoredFlight, answers: Sequence[FrameAnswer]) -> list[FrameInFlight]:
    flight = stored.flight
    answer_by_index = {answer.result.frame.index: answer for answer in answers}
    # One address is built, the others spell it: building 500 would cost as much as all the rest of the page.
    sample = url_for("frame.frame", flight_id=flight.flight_id, frame=0)
    return [
        _frame(
            frame, f"{sample[:-1]}{frame.index}", frame_url(flight.flight_id, frame), answer_by_index.get(frame.index)
        )
        for frame in flight.frames
    ]


def _frame(frame: Frame, url: str, image: str, answer: FrameAnswer | None) -> FrameInFlight:
    return FrameInFlight(
        index=frame.index,
        url=url,
        image=image,
        truth=location_of(frame.truth.location) if frame.truth.location else None,
        best=_best(answer) if answer else None,
        fix=fix_info(answer.result.fix) if answer and answer.result.fix else None,
        fix_errors=fix_errors_info(answer.fix_errors) if answer else None,
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
