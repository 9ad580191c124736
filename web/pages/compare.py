"""Compare backbones over one flight: a table at once, and the report's figures of the same searches."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, g, render_template, request
from pydantic import Field

from coarseloc.store import Database, fixes, gallery, localizations
from coarseloc.store.flights import StoredFlight
from coarseloc.store.localizations import StoredLocalization
from coarseloc.store.runs import StoredRun
from search.answers import fix_errors
from search.environment import conditions
from search.evaluation.evaluate import evaluate
from search.evaluation.fix_evaluation import evaluate_whole_map, is_beside
from search.evaluation.pareto import RunCost, pareto_front
from search.evaluation.summary import summarize_fixes, typical_frame
from web.language import _
from web.models import AnswerModel, Url
from web.pages import address, page
from web.pages.figures import RunUrl, figure_file, section_views
from web.problems import Problem
from web.selection import (
    NO_RUNS,
    FixFigures,
    NamedFlight,
    RunFigures,
    RunParameters,
    RunSelection,
    answering_runs,
    chosen_method,
    selected_runs,
    stored_flight,
    summarize_runs,
)
from web.state import current_state

if TYPE_CHECKING:
    from search.evaluation.report.page import Section

FLIGHTS_OFFERED = 50
routes = Blueprint("compare", __name__)


class ComparedRun(RunFigures):
    unbeaten: bool = Field(description="no other whose times compare with its own is both faster and nearer")


class ComparedWholeMap(AnswerModel):
    """The same frames looked for on the whole map of the same references, without any backbone."""

    localization: int
    parameters: dict[str, Any]
    frames: int = Field(ge=0)
    fix: FixFigures


class ComparePage(AnswerModel):
    """The backbones of one flight beside each other."""

    flight: NamedFlight | None
    flights: list[str]
    reference_sets: list[str]
    reference_set: str | None
    asked: list[RunParameters]
    asked_key: str | None
    methods: list[str]
    method: str
    models: list[ComparedRun]
    whole_map: ComparedWholeMap | None
    timed_alike: bool = Field(description="batch, device, processor and threads are the same: all times compare")
    measured: list[str] = Field(description="what times were taken on, and how")
    typical_frame: int | None
    figures: str | None = Url


@page(routes, "/compare", "compare")
def compare_page() -> ComparePage:
    """The figures that are there at once; those that must be reckoned come after, from `/compare/figures`."""
    database = current_state().database
    with database.read() as session:
        cards = gallery.flight_cards(session, FLIGHTS_OFFERED)
    flights = [card.flight_id for card in cards]
    truth_first = sorted(cards, key=lambda card: card.truth_source == "none")  # a flight with truth tells more
    searched = (card.flight_id for card in truth_first if selected_runs(database, card.flight_id).runs)
    flight_id = request.args.get("flight") or next(searched, None)
    if flight_id is None:
        return ComparePage(
            flight=None,
            flights=flights,
            **NO_RUNS.choices(),
            models=[],
            whole_map=None,
            timed_alike=True,
            measured=[],
            typical_frame=None,
            figures=None,
        )
    stored = stored_flight(database, flight_id)
    selection = selected_runs(database, flight_id)
    answers, models = summarize_runs(database, stored, selection)
    unbeaten = _pareto_keys(models, selection.runs)
    beside = _whole_maps_beside(database, flight_id, selection)
    return ComparePage(
        flight=NamedFlight(id=flight_id, frames=len(stored.flight.frames)),
        flights=flights,
        **selection.choices(),
        models=[ComparedRun(**dict(model), unbeaten=model.key in unbeaten) for model in models],
        whole_map=_compared_whole_map(database, stored, beside[-1]) if beside else None,
        timed_alike=len({conditions(run) for run in selection.runs.values()}) < 2,
        measured=sorted({_conditions_text(run) for run in selection.runs.values()}),
        typical_frame=typical_frame(answers.values()),
        figures=address("compare.figures", {}, _figures_query(flight_id, selection)) if models else None,
    )


def _whole_maps_beside(database: Database, flight_id: str, selection: RunSelection) -> list[StoredLocalization]:
    """The newest answer of a whole map to the question of the selected runs; none where there is none."""
    with database.read() as session:
        whole_maps = localizations.newest_map_localizations(session, flight_id, selection.reference_set)
    return [stored for stored in whole_maps if any(is_beside(stored, run) for run in selection.runs.values())]


def _compared_whole_map(
    database: Database, stored: StoredFlight, localization: StoredLocalization
) -> ComparedWholeMap | None:
    with database.read() as session:
        rows = fixes.fixes(session, localization.id)
    truths = {frame.index: frame.truth for frame in stored.flight.frames}
    errors = [fix_errors(fix.pose, truths[index]) for index, fix in rows.items()]
    summary = summarize_fixes(list(rows.values()), [error for error in errors if error is not None])
    if summary is None:
        return None
    return ComparedWholeMap(
        localization=localization.id,
        parameters=dict(localization.parameters),
        frames=len(rows),
        fix=FixFigures(**asdict(summary)),
    )


def _pareto_keys(models: Sequence[RunFigures], runs: Mapping[str, StoredRun]) -> set[str]:
    """The keys of the models that no other, timed alike, beats in both time and error."""
    return pareto_front(
        {
            model.key: RunCost(
                _or_nan(model.median_total_ms), _or_nan(model.median_error_m), conditions(runs[model.key])
            )
            for model in models
        }
    )


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _conditions_text(run: StoredRun) -> str:
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
    sections, query, _cache_key = _sections()
    views = section_views(
        list(sections.values()),
        lambda key, suffix: address("compare.figure", {"key": key, "suffix": suffix}, query),
    )
    back = address("compare.compare", {}, query)
    return render_template("figures.html", page="compare", sections=views, back=back)


@routes.get("/compare/figures/<key>.<suffix>")
def figure(key: str, suffix: str) -> Response:
    sections, query, cache_key = _sections()
    return figure_file(sections, cache_key, key, suffix, lambda: _run_urls(query))


def _run_urls(query: Mapping[str, Any]) -> RunUrl:
    """The addresses behind the points of a chart: a flight's page with that backbone, or one of its frames."""
    flight_id = query["flight"]
    carried = {name: query[name] for name in ("set", "asked", "method")}
    keys = {run.id: key for key, run in selected_runs(current_state().database, flight_id).runs.items()}

    def url(run: int, of_frames: bool) -> str | None:
        if run not in keys:
            return None
        page = "frame.frame" if of_frames else "flights.flight"
        ids = {"flight_id": flight_id} | ({"frame": 0} if of_frames else {})
        found = address(page, ids, carried | {"model": keys[run]})
        return found.replace("/0?", "/{index}?") if of_frames else found

    return url


def _figures_query(flight_id: str, selection: RunSelection) -> dict[str, Any]:
    return {
        "flight": flight_id,
        "set": selection.reference_set,
        "asked": selection.parameters_key,
        "method": request.args.get("method"),
        "words": g.language,
    }


def _sections() -> tuple[dict[str, Section], dict[str, Any], Hashable]:
    """The report's sections of the searches that the address names, made once; their address's query, and their name
    in memory."""
    state = current_state()
    flight_id = request.args.get("flight", "")
    stored_flight(state.database, flight_id)
    selection = selected_runs(state.database, flight_id)
    if not selection.runs:
        raise Problem(404, _("No search of this flight has come to its end."))
    method = chosen_method()
    runs = answering_runs(state.database, selection)
    beside = _whole_maps_beside(state.database, flight_id, selection)
    with state.database.read() as session:
        progress = [localizations.fix_progress(session, run.id) for run in runs]
    answered = (*((run.id, run.finished_at) for run in runs), *((stored.id, stored.finished_at) for stored in beside))
    cache_key = ("comparison", answered, tuple(progress), method, g.language)

    def make() -> dict[str, Section]:
        from coarseloc.i18n import translator
        from search.evaluation.report import accuracy, confidence, timing
        from search.evaluation.report import fixes as fix_sections
        from search.evaluation.report.plotted_run import plotted_runs

        say = translator(g.language)
        plotted = plotted_runs(evaluate(state.database, runs, method))
        with_truth = [run for run in plotted if len(run.evaluation.frames)]
        sections = timing.make_sections(plotted, say)
        if with_truth:
            sections += accuracy.make_sections(with_truth, say) + confidence.make_sections(with_truth, say)
        with state.database.read() as session:
            whole_maps = [evaluate_whole_map(session, stored) for stored in beside]
        sections += fix_sections.make_sections(fix_sections.plotted_fixes(plotted, whole_maps, say), say)
        return {section.key: section for section in sections}

    return state.memory.recall(cache_key, make), _figures_query(flight_id, selection), cache_key
