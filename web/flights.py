"""The flights, and one flight: its frames and what each backbone made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flask import request, url_for

from coarseloc.store import Database, gallery, runs
from coarseloc.store.runs import StoredFlight, StoredRun
from coarseloc.types import LonLat
from web.gallery import the_gallery
from web.i18n import _
from web.images import frame_url
from web.problems import Problem
from web.summaries import RunSummary, summarise

PER_PAGE = 24


def flights_page() -> dict[str, Any]:
    """Cards of the newest flights: frames, track (as estimated where truth is not known), figures per backbone."""
    here = the_gallery()
    page = max(1, request.args.get("page", 1, int))
    with here.database.read() as session:
        total = gallery.count_flights(session)
        cards = gallery.flight_cards(session, PER_PAGE, (page - 1) * PER_PAGE)
        tracks = gallery.tracks(session, [card.flight_id for card in cards])
    return {
        "flights": [_card(here.database, card, tracks.get(card.flight_id, [])) for card in cards],
        "total": total,
        "page_number": page,
        "pages": max(1, -(-total // PER_PAGE)),
    }


def _card(database: Database, card: gallery.FlightCard, track: Sequence[tuple[float, float]]) -> dict[str, Any]:
    stored = stored_flight(database, card.flight_id)
    shown = shown_runs(latest(database, card.flight_id))
    found = {key: summary(database, stored, run) for key, run in shown.items()}
    models = [model(key, run, found[key]) for key, run in shown.items()]
    best = chosen_model(models)
    estimated = [(one.hit.lon, one.hit.lat) for one in found[best].best.values()] if best else []
    return {
        "id": card.flight_id,
        "url": url_for("pages.flight", flight_id=card.flight_id),
        "frames": card.frames,
        "truth_source": card.truth_source,
        "image": frame_url(card.flight_id, stored.flight.frames[0]) if stored.flight.frames else None,
        "track": track or estimated,
        "track_is_estimated": not track,
        "models": models,
    }


def flight_page(flight_id: str) -> dict[str, Any]:
    """One flight: a row of figures per backbone, and every frame with the chosen backbone's best place."""
    here = the_gallery()
    stored = stored_flight(here.database, flight_id)
    all_runs = latest(here.database, flight_id)
    reference_set = chosen_set(all_runs)
    shown = shown_runs(all_runs, reference_set)
    summaries = {key: summary(here.database, stored, run) for key, run in shown.items()}
    models = [model(key, run, summaries[key]) for key, run in shown.items()]
    chosen = chosen_model(models)
    return {
        "flight": about(stored),
        "reference_set": reference_set,
        "reference_sets": list(dict.fromkeys(run.reference_set.name for run in all_runs)),
        "models": models,
        "model": chosen,
        "frames": _frames(stored, summaries[chosen] if chosen else None),
    }


def about(stored: StoredFlight) -> dict[str, Any]:
    flight = stored.flight
    return {
        "id": flight.flight_id,
        "frames": len(flight.frames),
        "started_at": flight.started_at.isoformat(sep=" ", timespec="minutes") if flight.started_at else None,
        "truth_source": flight.truth_source,
    }


def _frames(stored: StoredFlight, found: RunSummary | None) -> list[dict[str, Any]]:
    flight = stored.flight
    rows = []
    for frame in flight.frames:
        best = found.best.get(frame.index) if found else None
        rows.append(
            {
                "index": frame.index,
                "url": url_for("pages.frame", flight_id=flight.flight_id, frame=frame.index),
                "image": frame_url(flight.flight_id, frame),
                "truth": frame.truth.location._asdict() if frame.truth.location else None,
                "best": best
                and {
                    "score": best.hit.score,
                    "margin": best.margin and best.margin.score,
                    "error_m": best.error_m,
                    "location": {"lon": best.hit.lon, "lat": best.hit.lat},
                    "angle_deg": best.hit.angle_deg,
                },
            }
        )
    return rows


# --- runs and their summaries -------------------------------------------------------------------


def stored_flight(database: Database, flight_id: str) -> StoredFlight:
    """The flight, or a 404 page."""
    with database.read() as session:
        if flight_id not in runs.flight_ids(session):
            detail = _("There is no flight {name}. Go back to the flights to see those there are.", name=flight_id)
            raise Problem(404, detail)
        return runs.find_flight(session, flight_id)


def latest(database: Database, flight_id: str) -> list[StoredRun]:
    with database.read() as session:
        return runs.latest_runs(session, flight_id)


def chosen_set(all_runs: Sequence[StoredRun]) -> str | None:
    """The reference set that `?set=` names, else that of the newest run."""
    wanted = request.args.get("set")
    names = [run.reference_set.name for run in all_runs]
    if wanted in names:
        return wanted
    return names[-1] if names else None


def shown_runs(all_runs: Sequence[StoredRun], reference_set: str | None = None) -> dict[str, StoredRun]:
    """{key in the address: run}, small backbones first. The key is the backbone's name, with the run's number
    where several searches with that backbone are shown."""
    order = list(the_gallery().backbones)
    some = [run for run in all_runs if reference_set in (None, run.reference_set.name)]
    place = {name: at for at, name in enumerate(order)}
    some.sort(key=lambda run: (place.get(run.spec.spec.backbone, len(order)), run.id))
    names = [run.spec.spec.backbone for run in some]
    return {name if names.count(name) == 1 else f"{name}~{run.id}": run for name, run in zip(names, some, strict=True)}


def chosen_model(models: Sequence[Mapping[str, Any]]) -> str | None:
    """The model that `?model=` names, else the one of least median error, else the last (the largest)."""
    keys = [one["key"] for one in models]
    wanted = request.args.get("model")
    if wanted in keys:
        return wanted
    judged = [one for one in models if one["median_error_m"] is not None]
    if judged:
        return str(min(judged, key=lambda one: one["median_error_m"])["key"])
    return keys[-1] if keys else None


def summary(database: Database, stored: StoredFlight, run: StoredRun) -> RunSummary:
    """Computed once: a finished run does not change. The truth may, by a new look at the folder."""
    truth = {frame.index: frame.truth.location for frame in stored.flight.frames if frame.truth.location}

    def make() -> RunSummary:
        with database.read() as session:
            return summarise(gallery.hit_places(session, run.id), gallery.timings(session, run.id), truth)

    return the_gallery().memory.recall(("summary", run.id, run.finished_at, _mark(truth)), make)


def _mark(truth: Mapping[int, LonLat]) -> int:
    return hash(tuple(truth.items()))


def model(key: str, run: StoredRun, found: RunSummary | None = None) -> dict[str, Any]:
    """A run as pages name it: the backbone's facts, what was asked, what answered, and its figures."""
    spec = run.spec.spec
    row = the_gallery().backbones.get(spec.backbone)
    facts = {
        "key": key,
        "backbone": spec.backbone,
        "title": row.title if row else spec.backbone,
        "params_m": (row.params_m or None) if row else None,
        "pretraining": row.pretraining if row else None,
        "dim": spec.dim,
        "input_px": spec.input_px,
        "run": run.id,
        "reference_set": run.reference_set.name,
        "references": run.references,
        "parameters": dict(run.parameters),
        "environment": dict(run.environment),
    }
    if found is None:
        return facts
    return facts | {
        "done": found.done,
        "failed": found.failed,
        "mean_score": found.mean_score,
        "mean_margin": found.mean_margin,
        "median_error_m": found.median_error_m,
        "embed_ms": found.embed_ms,
        "search_ms": found.search_ms,
        "total_ms": found.total_ms,
    }
