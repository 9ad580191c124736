"""One frame: the query, and what each backbone ranked for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from flask import request

from coarseloc import geo
from coarseloc.store import runs
from coarseloc.store.runs import FrameResult, StoredFlight, StoredHit
from coarseloc.types import Frame, LonLat
from search import localize
from web import summaries
from web.flights import about
from web.gallery import the_gallery
from web.ground import map_frame
from web.i18n import _
from web.images import frame_url, tile_url
from web.problems import Problem
from web.searches import model, shown_searches, stored_flight

WITHIN_M = 50.0


def frame_page(flight_id: str, frame: int) -> dict[str, Any]:
    """The query, a row per backbone with its ranked tiles, and how far the backbones agree."""
    database = the_gallery().database
    stored = stored_flight(database, flight_id)
    query = _frame(stored, frame)
    shown = shown_searches(database, flight_id)
    with database.read() as session:
        found = {key: runs.results(session, run.id, [frame]) for key, run in shown.runs.items()}
    rows = [model(key, run) | _row(query, found[key][0] if found[key] else None) for key, run in shown.runs.items()]
    _share_scale(rows)
    return {
        "flight": about(stored),
        "frame": _about(stored, query),
        **_neighbours(stored, frame),
        **shown.as_json(),
        "map": next((map_frame(the_gallery(), run.reference_set) for run in shown.runs.values()), None),
        "rows": rows,
        "agreement": _agreement(rows),
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


def _row(frame: Frame, result: FrameResult | None) -> dict[str, Any]:
    if result is None:
        return {"timing": None, "error": _("This search has not come to this frame."), "hits": [], "estimate": None}
    truth = frame.truth.location
    hits = [_hit(hit, result.hits[0].score, truth) for hit in result.hits]
    timing = result.timing
    return {
        "timing": timing
        and {
            "decode_ms": timing.decode_ms,
            "embed_ms": timing.embed_ms,
            "search_ms": timing.search_ms,
            "total_ms": timing.total_ms,
        },
        "error": result.error,
        "hits": hits,
        "estimate": _estimate(result.hits, frame),
    }


def _hit(hit: StoredHit, top_score: float, truth: LonLat | None) -> dict[str, Any]:
    tile = hit.tile
    distance = float(geo.distance_m(*truth, *tile.center)) if truth else None
    return {
        "rank": hit.rank,
        "score": hit.score,
        "drop": top_score - hit.score,
        "rotated_tile": hit.rotated_tile,
        "tile_id": tile.tile_id,
        "place_id": tile.place_id,
        "angle_deg": tile.angle_deg,
        "altitude_m": tile.altitude_m,
        "location": tile.center._asdict(),
        "bbox": list(tile.bbox),
        "image": tile_url(hit.rotated_tile, hit.content_digest),
        "image_full": tile_url(hit.rotated_tile, hit.content_digest, "full"),
        "distance_m": distance,
        "verdict": None if truth is None or distance is None else summaries.verdict(truth, tile.bbox, distance),
    }


def _estimate(ranked: Sequence[StoredHit], frame: Frame) -> dict[str, Any] | None:
    """The position and heading that the best place stands for, with its margin, and its error where truth is known."""
    found = localize.estimate(localize.candidates(ranked))
    if found is None:
        return None
    last = ranked[-1].score
    margin = summaries.margin(found.score, None if found.margin is None else found.score - found.margin, last)
    truth, yaw = frame.truth.location, frame.truth.yaw_deg
    return {
        "location": found.location._asdict(),
        "heading_deg": found.heading_deg,
        "score": found.score,
        "margin": {"score": margin.score, "at_least": margin.at_least},
        "error_m": float(geo.distance_m(*truth, *found.location)) if truth else None,
        "heading_error_deg": None if yaw is None else geo.heading_difference(yaw, found.heading_deg),
    }


def _share_scale(rows: Sequence[dict[str, Any]]) -> None:
    """`kept` of each hit: 1 at rank 1, 0 at the largest drop of all rows. One scale, so that flat rows look flat."""
    largest = max((hit["drop"] for row in rows for hit in row["hits"]), default=0.0)
    for row in rows:
        for hit in row["hits"]:
            hit["kept"] = 1.0 - hit["drop"] / largest if largest > 0 else 1.0


def _agreement(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    within = request.args.get("within", WITHIN_M, _metres)
    estimates = {row["key"]: LonLat(**row["estimate"]["location"]) for row in rows if row["estimate"]}
    return {"within_m": within, "models": list(summaries.agreement(estimates, within)), "of": len(estimates)}


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
