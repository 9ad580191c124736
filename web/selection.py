"""Which searches of a flight a page shows, by what its address says, and their summaries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import request

from coarseloc.core import ids
from coarseloc.store import Database, flights, runs
from coarseloc.store.flights import StoredFlight
from coarseloc.store.runs import BEST_PLACE, StoredRun
from search.answers import FrameAnswer, frame_answers
from search.evaluation.summary import RunSummary, summarize
from web.language import _
from web.problems import Problem
from web.state import the_gallery


@dataclass(frozen=True, slots=True)
class Shown:
    """The searches of one reference set that asked the same, one per backbone; and what else there is to choose."""

    reference_sets: list[str]
    reference_set: str | None
    asked: dict[str, dict[str, Any]]  # {key in the address: parameters}
    asked_key: str | None
    runs: dict[str, StoredRun]  # {key in the address: run}, small backbones first

    def as_json(self) -> dict[str, Any]:
        return {
            "reference_sets": self.reference_sets,
            "reference_set": self.reference_set,
            "asked": [
                {"key": key, "label": _label(asked, len({one["k"] for one in self.asked.values()}) > 1), **asked}
                for key, asked in self.asked.items()
            ],
            "asked_key": self.asked_key,
        }


def stored_flight(database: Database, flight_id: str) -> StoredFlight:
    """The flight, or a 404 page."""
    with database.read() as session:
        if ids.label(flight_id) not in flights.flight_ids(session):
            detail = _("There is no flight {name}. Go back to the flights to see those there are.", name=flight_id)
            raise Problem(404, detail)
        return flights.find_flight(session, flight_id)


def shown_searches(database: Database, flight_id: str, run: int | None = None) -> Shown:
    """Of the flight's finished searches those that `?set=` and `?asked=` name, or those beside the run of that
    number; by default the newest reference set, and of what was asked the widest: all headings, no filter."""
    with database.read() as session:
        latest = runs.latest_runs(session, flight_id)
    named = next((one for one in latest if one.id == run), None)
    reference_sets = list(dict.fromkeys(one.reference_set.name for one in reversed(latest)))
    reference_set = _chosen(named.reference_set.name if named else request.args.get("set"), reference_sets)
    of_set = [one for one in latest if one.reference_set.name == reference_set]
    asked = {_asked_key(one): _asked(one) for one in of_set}
    asked = dict(sorted(asked.items(), key=lambda one: _narrowness(one[1])))
    key = _chosen(_asked_key(named) if named else request.args.get("asked"), list(asked))
    return Shown(reference_sets, reference_set, asked, key, _keyed([one for one in of_set if _asked_key(one) == key]))


def _chosen(wanted: str | None, known: Sequence[str]) -> str | None:
    return wanted if wanted in known else known[0] if known else None


def _asked(run: StoredRun) -> dict[str, Any]:
    """What sets a search apart for its reader: the heading searched alone, the filters, k."""
    parameters = run.parameters
    return {"angle_deg": parameters.get("angle_deg"), "where": parameters.get("where") or {}, "k": parameters.get("k")}


def _asked_key(run: StoredRun) -> str:
    return ids.digest(_asked(run))[:8]


def _narrowness(asked: Mapping[str, Any]) -> tuple[int, int, int]:
    return len(asked["where"]), -1 if asked["angle_deg"] is None else asked["angle_deg"], -(asked["k"] or 0)


def _label(asked: Mapping[str, Any], with_k: bool) -> str:
    angle = asked["angle_deg"]
    parts = [_("all headings") if angle is None else _("heading {angle} only", angle=f"{angle:03d}°")]
    parts += [f"{name} {_short(value)}" for name, value in asked["where"].items()]
    return " · ".join([*parts, f"k {asked['k']}"] if with_k else parts)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_short, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _keyed(some: Sequence[StoredRun]) -> dict[str, StoredRun]:
    """A run's key is its backbone's name, with the run's number where a backbone comes twice (two input sizes)."""
    here = the_gallery()
    ordered = sorted(some, key=lambda run: (here.place(run.spec.backbone), run.id))
    times = Counter(run.spec.backbone for run in ordered)
    names = [run.spec.backbone for run in ordered]
    return {name if times[name] == 1 else f"{name}~{run.id}": run for name, run in zip(names, ordered, strict=True)}


def answers(
    database: Database, stored: StoredFlight, run: StoredRun, of_flight: Sequence[StoredRun]
) -> list[FrameAnswer]:
    """A run's frames by the method that `?method=` names, without hits.

    Selected once: a finished run does not change. The truth may, by a new look at the folder, and so may the backbones
    that it can agree with.
    """
    truth = hash(tuple((frame.index, frame.truth) for frame in stored.flight.frames))
    method = the_method()
    others = tuple(other.id for other in runs.agreement_voters(run, of_flight))

    def select() -> list[FrameAnswer]:
        with database.read() as session:
            return frame_answers(session, [run], method=method, with_hits=False)[run.id]

    return the_gallery().memory.recall(("answers", run.id, run.finished_at, method, truth, others), select)


def the_method() -> str:
    """Which answers a page shows: `?method=`, by default the best place."""
    return request.args.get("method", BEST_PLACE)


def model(key: str, run: StoredRun, summary: RunSummary | None = None) -> dict[str, Any]:
    """A run as pages name it: the backbone's facts, what was asked, what answered, and its figures."""
    spec = run.spec
    row = the_gallery().backbones.get(spec.backbone)
    facts = {
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
    if summary is None:
        return facts
    return facts | {
        "done": summary.frames,
        "failed": summary.unreadable,
        "off_map": summary.off_map,
        "median_score": summary.median_score,
        "median_margin": summary.median_margin,
        "median_error_m": summary.median_error_m,
        "median_embed_ms": summary.median_ms["embed"],
        "median_search_ms": summary.median_ms["search"],
        "median_total_ms": summary.median_ms["total"],
    }


def summarized(
    database: Database, stored: StoredFlight, shown: Shown
) -> tuple[dict[str, list[FrameAnswer]], list[dict[str, Any]]]:
    """({key: frames of each search shown}, and each search as `model` names it)."""
    with database.read() as session:
        of_flight = runs.runs(session, stored.flight.flight_id)
    frames = {key: answers(database, stored, run, of_flight) for key, run in shown.runs.items()}
    return frames, [model(key, run, summarize(frames[key])) for key, run in shown.runs.items()]


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
