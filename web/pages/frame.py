"""One frame: the query, and what each backbone ranked for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from flask import Blueprint, request

from coarseloc.core.types import Estimate, Frame, LonLat, RankedTile
from coarseloc.localize.places import agreement_matrix
from coarseloc.store.flights import StoredFlight
from coarseloc.store.runs import StoredRun, newest_by_spec
from search.answers import FrameAnswer, agreement_within_m, first_hits, frame_answers, tile_verdict
from search.export.infos import hit_result, to_hit
from web.language import _
from web.pages import page
from web.pages.flights import about
from web.pages.images import frame_url, result_url
from web.pages.map import run_map
from web.problems import Problem
from web.selection import model, shown_searches, stored_flight, the_method
from web.state import the_gallery

routes = Blueprint("frame", __name__)


@page(routes, "/flights/<flight_id>/<int:frame>", "frame")
def frame_page(flight_id: str, frame: int) -> dict[str, Any]:
    """The query, a row per backbone with its ranked tiles, and how far the backbones agree."""
    database = the_gallery().database
    stored = stored_flight(database, flight_id)
    query = _frame(stored, frame)
    shown = shown_searches(database, flight_id)
    chosen = list(shown.runs.values())
    with database.read() as session:
        answers = frame_answers(session, chosen, method=the_method(), frame_indices=[frame])
    of_row = {key: next(iter(answers[run.id]), None) for key, run in shown.runs.items()}
    rows = [model(key, run) | _row(run, query, of_row[key]) for key, run in shown.runs.items()]
    share_scale([row["hits"] for row in rows])
    return {
        "flight": about(stored),
        "frame": _about(stored, query),
        **_neighbours(stored, frame),
        **shown.as_json(),
        "map": next((run_map(the_gallery(), run) for run in chosen), None),
        "rows": rows,
        "agreement": _agreement(shown.runs, of_row),
        "chosen": _chosen(rows),
    }


def _frame(stored: StoredFlight, index: int) -> Frame:
    for frame in stored.flight.frames:
        if frame.index == index:
            return frame
    last = stored.flight.frames[-1].index if stored.flight.frames else 0
    raise Problem(404, _("This flight has no frame {index}; its last one is {last}.", index=index, last=last))


def _about(stored: StoredFlight, frame: Frame) -> dict[str, Any]:
    truth = frame.truth
    return {
        "index": frame.index,
        "filename": frame.filename,
        "image": frame_url(stored.flight.flight_id, frame),
        "image_view": frame_url(stored.flight.flight_id, frame, "view"),
        "image_full": frame_url(stored.flight.flight_id, frame, "full"),
        "truth": {
            "location": truth.location._asdict() if truth.location else None,
            "yaw_deg": truth.yaw_deg,
            "altitude_label_m": truth.altitude_label_m,
        },
    }


def _neighbours(stored: StoredFlight, index: int) -> dict[str, Any]:
    indices = [frame.index for frame in stored.flight.frames]
    at = indices.index(index)
    return {
        "position": at + 1,
        "first": indices[0],
        "last": indices[-1],
        "previous": indices[at - 1] if at > 0 else None,
        "next": indices[at + 1] if at + 1 < len(indices) else None,
    }


def _row(run: StoredRun, frame: Frame, answer: FrameAnswer | None) -> dict[str, Any]:
    if answer is None:
        return {"timing": None, "error": _("This search has not come to this frame."), "hits": [], "estimate": None}
    result = answer.result
    truth, timing, hits = frame.truth.location, result.timing, first_hits(run, result)
    return {
        "timing": timing
        and {
            "decode_ms": timing.decode_ms,
            "embed_ms": timing.embed_ms,
            "search_ms": timing.search_ms,
            "total_ms": timing.total_ms,
        },
        "error": result.error,
        "hits": [hit_view(hit, hits[0].score, truth, result_url) for hit in hits],
        "estimate": estimate_view(result.estimate, answer) if result.estimate else None,
    }


def hit_view(hit: RankedTile, top_score: float, truth: LonLat | None, url: Callable[..., str]) -> dict[str, Any]:
    """A hit as every program reads it, with what a page shows beside it. url: of its picture, by key and content."""
    distance_m, verdict = tile_verdict(truth, hit.tile) if truth else (None, None)
    return hit_result(to_hit(hit, the_gallery().settings.thumbnails)).model_dump(mode="json") | {
        "drop": top_score - hit.score,
        "image": url(hit.key, hit.content_digest),
        "image_full": url(hit.key, hit.content_digest, "full"),
        "distance_m": distance_m,
        "verdict": verdict,
    }


def estimate_view(estimate: Estimate, answer: FrameAnswer | None = None) -> dict[str, Any]:
    """The position and heading with the margin, and the errors where truth is known."""
    errors = answer.errors if answer else None
    agreement = answer.agreement if answer else None
    return {
        "location": estimate.location._asdict(),
        "heading_deg": estimate.heading_deg,
        "place_id": estimate.place_id,
        "state": estimate.state,
        "score": estimate.score,
        "margin": None if estimate.margin is None else {"score": estimate.margin, "at_least": estimate.margin_at_least},
        "agreement": asdict(agreement) if agreement else None,
        "error_m": errors.error_m if errors else None,
        "heading_error_deg": errors.heading_error_deg if errors else None,
        "verdict": errors.verdict if errors else None,
        "on_map": errors.on_map if errors else None,
    }


def share_scale(rows: Sequence[Sequence[dict[str, Any]]]) -> None:
    """`kept` of each hit: 1 at rank 1, 0 at the largest drop of all rows. One scale, so that flat rows look flat."""
    largest = max((hit["drop"] for hits in rows for hit in hits), default=0.0)
    for hits in rows:
        for hit in hits:
            hit["kept"] = 1.0 - hit["drop"] / largest if largest > 0 else 1.0


def _agreement(shown: Mapping[str, StoredRun], of_row: Mapping[str, FrameAnswer | None]) -> dict[str, Any]:
    """The largest group of backbones that agree with one of them, that one first; of equal groups the first model's,
    so that the answer does not flicker between frames. A backbone searched twice has one vote, its newest run's."""
    newest = {run.id for run in newest_by_spec(shown.values()).values()}
    located = {
        key: a.result.estimate for key, a in of_row.items() if a and a.result.estimate and shown[key].id in newest
    }
    usual_m = agreement_within_m(next(iter(shown.values()))) if shown else 0.0
    within = request.args.get("within", usual_m, _metres)
    keys, near = list(located), agreement_matrix(list(located.values()), within)
    best = int(near.sum(axis=1).argmax()) if keys else 0
    others = [key for at, key in enumerate(keys) if at != best and near[best, at]]
    return {"within_m": within, "models": [keys[best], *others] if keys else [], "of": len(keys), "voters": keys}


def _metres(text: str) -> float:
    if not math.isfinite(found := float(text)):
        raise ValueError(text)
    return found


def _chosen(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The comparison in the address: `?model=…&rank=…&view=side|blink|blend`."""
    rank, key = request.args.get("rank", 1, int), request.args.get("model")
    for row in rows:
        if row["key"] == key:
            for hit in row["hits"]:
                if hit["rank"] == rank:
                    view = request.args.get("view", "side")
                    return {"model": key, "view": view if view in ("side", "blink", "blend") else "side", **hit}
    return None
