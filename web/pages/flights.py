"""The flights, and one flight: its frames and what each backbone made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from coarseloc.core import geo
from coarseloc.store import Database, gallery
from coarseloc.store.flights import StoredFlight
from search.answers import FrameAnswer
from web.pages import page
from web.pages.images import frame_url, result_url
from web.pages.map import frame_of, run_map
from web.selection import Shown, chosen_model, shown_searches, stored_flight, summarized
from web.state import the_gallery

PER_PAGE = 24

routes = Blueprint("flights", __name__)


@page(routes, "/", "flights", twin="/flights.json")
def flights_page() -> dict[str, Any]:
    """Cards of the newest flights: frames, track (as estimated where truth is not known), figures per backbone."""
    database = the_gallery().database
    with database.read() as session:
        total = gallery.count_flights(session)
        pages = max(1, -(-total // PER_PAGE))
        page = min(max(1, request.args.get("page", 1, int)), pages)
        cards = gallery.flight_cards(session, PER_PAGE, (page - 1) * PER_PAGE)
        tracks = gallery.tracks(session, [card.flight_id for card in cards])
    return {
        "flights": [_card(database, card, tracks.get(card.flight_id, [])) for card in cards],
        "total": total,
        "page_number": page,
        "pages": pages,
    }


@routes.get("/flights")
def flights_plural() -> AnyResponse:
    return redirect(url_for("flights.flights"))


def _card(database: Database, card: gallery.FlightCard, track: Sequence[tuple[float, float]]) -> dict[str, Any]:
    stored = stored_flight(database, card.flight_id)
    shown = shown_searches(database, card.flight_id)
    answers, models = summarized(database, stored, shown)
    best = chosen_model(models)
    located = [answer.result.estimate for answer in answers[best]] if best else []
    estimated = [tuple(estimate.location) for estimate in located if estimate is not None]
    return {
        "id": card.flight_id,
        "url": url_for("flights.flight", flight_id=card.flight_id),
        "frames": card.frames,
        "truth_source": card.truth_source,
        "image": frame_url(card.flight_id, stored.flight.frames[0]) if stored.flight.frames else None,
        "track": track or estimated,
        "track_is_estimated": not track,
        "reference_set": shown.reference_set,
        "models": models,
    }


@page(routes, "/flights/<flight_id>", "flight")
def flight_page(flight_id: str) -> dict[str, Any]:
    """One flight: a row of figures per backbone, and every frame with the chosen backbone's best place."""
    database = the_gallery().database
    stored = stored_flight(database, flight_id)
    shown = shown_searches(database, flight_id)
    answers, models = summarized(database, stored, shown)
    chosen = chosen_model(models)
    return {
        "flight": about(stored),
        **shown.as_json(),
        "map": _map(stored, shown),
        "colour": "error" if any(one["median_error_m"] is not None for one in models) else "margin",
        "models": models,
        "model": chosen,
        "frame_query": _frame_query(),
        "frames": _frames(stored, answers[chosen] if chosen else []),
    }


def _frame_query() -> str:
    """What a frame's address carries on from this one."""
    kept = {name: request.args[name] for name in ("set", "asked", "method", "model") if name in request.args}
    return f"?{urlencode(kept)}" if kept else ""


def _map(stored: StoredFlight, shown: Shown) -> dict[str, Any] | None:
    """The ground of the references searched; without a search the bounds of the track; None where nothing is placed."""
    for run in shown.runs.values():
        return run_map(the_gallery(), run)
    places = [frame.truth.location for frame in stored.flight.frames if frame.truth.location]
    if not places:
        return None
    lons, lats = [place.lon for place in places], [place.lat for place in places]
    return frame_of(geo.bounds(lons, lats))


def about(stored: StoredFlight) -> dict[str, Any]:
    flight = stored.flight
    return {
        "id": flight.flight_id,
        "frames": len(flight.frames),
        "started_at": flight.started_at.isoformat(sep=" ", timespec="minutes") if flight.started_at else None,
        "truth_source": flight.truth_source,
    }


def _frames(stored: StoredFlight, answers: Sequence[FrameAnswer]) -> list[dict[str, Any]]:
    flight = stored.flight
    of_frame = {answer.result.frame.index: answer for answer in answers}
    # One address is built, the others spell it: building 500 would cost as much as all the rest of the page.
    sample = url_for("frame.frame", flight_id=flight.flight_id, frame=0)
    return [
        {
            "index": frame.index,
            "url": f"{sample[:-1]}{frame.index}",
            "image": frame_url(flight.flight_id, frame),
            "truth": frame.truth.location._asdict() if frame.truth.location else None,
            "best": _best(of_frame[frame.index]) if frame.index in of_frame else None,
        }
        for frame in flight.frames
    ]


def _best(answer: FrameAnswer) -> dict[str, Any] | None:
    estimate, errors, tile = answer.result.estimate, answer.errors, answer.result.best
    if estimate is None:
        return None
    return {
        "score": estimate.score,
        "margin": estimate.margin,
        "margin_at_least": estimate.margin_at_least,
        "error_m": errors.error_m if errors else None,
        "location": estimate.location._asdict(),
        "angle_deg": estimate.heading_deg,
        "image": result_url(tile.id, tile.content_digest) if tile else None,
        "verdict": errors.verdict if errors else None,
    }
