"""Backbones beside each other: a flight's figures at once, and the report's figures of the same searches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, g, render_template, request

from coarseloc.store import gallery
from coarseloc.store.runs import StoredRun
from search.environment import conditions
from search.evaluation.evaluate import evaluate
from search.evaluation.pareto import RunCost, pareto_front
from search.evaluation.summary import typical_frame
from web.language import _
from web.pages import address, page
from web.pages import figures as charts
from web.problems import Problem
from web.selection import Shown, shown_searches, stored_flight, summarized, the_method
from web.state import the_gallery

if TYPE_CHECKING:
    from search.evaluation.report.page import Section

FLIGHTS_OFFERED = 50
routes = Blueprint("compare", __name__)


@page(routes, "/compare", "compare")
def compare_page() -> dict[str, Any]:
    """The figures that are there at once; those that must be reckoned come after, from `/compare/figures`."""
    database = the_gallery().database
    with database.read() as session:
        cards = gallery.flight_cards(session, FLIGHTS_OFFERED)
    flights = [card.flight_id for card in cards]
    judged_first = sorted(cards, key=lambda card: card.truth_source == "none")  # a flight with truth tells more
    flight_id = request.args.get("flight") or next((c.flight_id for c in judged_first if _searched(c.flight_id)), None)
    if flight_id is None:
        return {
            "flight": None,
            "flights": flights,
            **Shown([], None, {}, None, {}).as_json(),
            "models": [],
            "timed_alike": True,
            "measured": [],
            "typical_frame": None,
            "figures": None,
        }
    stored = stored_flight(database, flight_id)
    shown = shown_searches(database, flight_id)
    answers, models = summarized(database, stored, shown)
    best = _unbeaten(models, shown.runs)
    return {
        "flight": {"id": flight_id, "frames": len(stored.flight.frames)},
        "flights": flights,
        **shown.as_json(),
        "models": [one | {"unbeaten": one["key"] in best} for one in models],
        "timed_alike": len({conditions(run) for run in shown.runs.values()}) < 2,
        "measured": sorted({_measured(run) for run in shown.runs.values()}),
        "typical_frame": typical_frame(answers.values()),
        "figures": address("compare.figures", {}, _question(flight_id, shown)) if models else None,
    }


def _searched(flight_id: str) -> bool:
    return bool(shown_searches(the_gallery().database, flight_id).runs)


def _unbeaten(models: Sequence[Mapping[str, Any]], runs: Mapping[str, StoredRun]) -> set[str]:
    """The keys of the models that no other, timed alike, beats in both time and error."""
    return pareto_front(
        {
            one["key"]: RunCost(
                _or_nan(one["median_total_ms"]), _or_nan(one["median_error_m"]), conditions(runs[one["key"]])
            )
            for one in models
        }
    )


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _measured(run: StoredRun) -> str:
    """What a run's times were taken on, and how."""
    on, threads, batch = run.environment, run.environment.get("threads"), run.parameters.get("batch")
    parts = [on.get("device"), on.get("cpu"), on.get("backend")]
    parts.append(
        _("torch {torch}, FAISS {faiss}, OpenMP {omp} threads", **threads) if threads else _("threads not recorded")
    )
    parts.append(_("{n} references", n=run.references))
    parts.append(_("warm-up {n}", n=on.get("warm_up", "?")))
    if batch is None:
        parts.append(_("batch size not recorded"))
    elif batch == 1:
        parts.append(_("one frame at a time"))
    else:
        parts.append(_("batches of up to {n}, their time divided by their frames", n=batch))
    return " · ".join(str(part) for part in parts if part)


# --- figures ------------------------------------------------------------------------------------


@routes.get("/compare/figures")
def figures() -> str:
    """Every figure with its note and its numbers, to be put into the page."""
    sections, question, _mark = _sections()
    shown = charts.as_json(
        list(sections.values()),
        lambda key, suffix: address("compare.figure", {"key": key, "suffix": suffix}, question),
    )
    return render_template(
        "figures.html", page="compare", sections=shown, back=address("compare.compare", {}, question)
    )


@routes.get("/compare/figures/<key>.<suffix>")
def figure(key: str, suffix: str) -> Response:
    sections, _question, mark = _sections()
    return charts.file(sections, mark, key, suffix)


def _question(flight_id: str, shown: Shown) -> dict[str, Any]:
    return {"flight": flight_id, "set": shown.reference_set, "asked": shown.asked_key, "words": g.language}


def _sections() -> tuple[dict[str, Section], dict[str, Any], object]:
    """The report's sections of the searches that the address names, made once."""
    here = the_gallery()
    flight_id = request.args.get("flight", "")
    stored_flight(here.database, flight_id)
    shown = shown_searches(here.database, flight_id)
    if not shown.runs:
        raise Problem(404, _("No search of this flight has come to its end."))
    method = the_method()
    mark = ("comparison", tuple((run.id, run.finished_at) for run in shown.runs.values()), method, g.language)

    def make() -> dict[str, Section]:
        from coarseloc.i18n import translator
        from search.evaluation.report import accuracy, timing
        from search.evaluation.report.plotted_run import plotted_runs

        say = translator(g.language)
        series = plotted_runs(evaluate(here.database, list(shown.runs.values()), method))
        judged = [one for one in series if len(one.evaluation.frames)]
        found = timing.make_sections(series, say) + (accuracy.make_sections(judged, say) if judged else [])
        return {one.key: one for one in found}

    return here.memory.recall(mark, make), _question(flight_id, shown), mark
