"""The gallery: frames of all flights, by what their answers are; and two answers for a flight frame by frame."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from flask import Blueprint, request
from pydantic import Field

from coarseloc.core.marks import UNMARKED, FrameMarks
from coarseloc.store import gallery, marks, snapshots
from coarseloc.store.runs import StoredRun
from coarseloc.store.snapshots import TileSnapshot
from search.answered_frames import NAMES, AnsweredFrames, Keys
from search.answers import agreement_within_m
from search.evaluation.intervals import IntervalEstimate
from search.evaluation.paired_answers import PairedSummary, pair_answers, summarize_pairs
from search.export.files import FORMATS
from search.export.records import Heading, Location
from web.fix_texts import method_text
from web.gallery_rows import RowChoice, chosen_rows, gallery_table, key_text, parse_key, row_choice
from web.language import _
from web.models import AnswerModel, Note, Tags, Url
from web.pages import address, page
from web.pages.images import frame_file_url, result_url
from web.problems import Problem
from web.selection import metres_of_address, parameters_key, run_label
from web.state import current_state

PER_PAGE = 60
PAIRS_PER_PAGE = 40
SIZES = (1, 2, 3, 4, 5)  # steps of the slider

routes = Blueprint("gallery", __name__)


class GalleryAgreement(AnswerModel):
    backbones: int
    of: int


class GalleryRow(AnswerModel):
    """One frame's answer by one backbone and method."""

    key: str = Field(description="names the row in an address (`?pick=`)")
    flight: str
    frame: int
    url: str = Url
    image: str | None = Url
    tile: str | None = Field(description="a path on this server: the best tile's picture")
    tile_heading_deg: int | None
    model: str
    method: str
    reference_set: str
    state: str = Field(
        description="of a best tile on, near or far of the truth, located where that is not known; of a fix match, "
        "no-match or unverified; of a track its state"
    )
    location: Location | None
    heading_deg: float | None = Heading
    score: float | None
    margin: float | None
    probability: float | None
    error_m: float | None
    heading_error_deg: float | None
    agreement: GalleryAgreement | None
    tags: list[str] = Tags
    note: str = Note


class NumberBounds(AnswerModel):
    least: float | None
    most: float | None


class GalleryPage(AnswerModel):
    """A page of the rows that the address asks for."""

    choices: dict[str, list[str]] = Field(description="the texts of each column that can be asked for, and all tags")
    names: dict[str, list[str]] = Field(description="those asked for; none for all")
    bounds: dict[str, NumberBounds]
    sort: str = Field(description="a column of numbers, with - the largest first; empty: by flight and frame")
    view: Literal["grid", "table"]
    size: int = Field(ge=1, le=len(SIZES))
    total: int = Field(ge=0, description="rows of all flights")
    matching: int = Field(ge=0)
    first: int = Field(ge=0, description="the first row's place among those that match, from 1; 0 without rows")
    rows: list[GalleryRow]
    next: str | None = Field(description="a path on this server: the rows that come after")
    files: dict[str, str] = Field(description="every row that matches, by format")
    report: str = Url


@page(routes, "/gallery", "gallery")
def gallery_page() -> GalleryPage:
    """Frames of all flights: filtered, sorted, and in pages that stay where they are when rows come or go."""
    table, choice = gallery_table(), row_choice()
    rows = chosen_rows(table, choice)
    start = _start(table, rows, choice)
    shown = rows[start : start + PER_PAGE]
    query: dict[str, Any] = request.args.to_dict(flat=False)
    following = {"after": _after(table, int(shown[-1]), choice)} if start + PER_PAGE < len(rows) else None
    asked = {name: value for name, value in query.items() if name not in ("after", "lang", "theme", "size", "view")}
    with current_state().database.read() as session:
        tags = marks.tags_in_use(session)
    return GalleryPage(
        choices={name: sorted(table.choices[name]) for name in NAMES}
        | {"model": _by_size(table.choices["model"]), "tag": sorted({*tags, *choice.tags})},
        names={name: list(values) for name, values in choice.names.items()} | {"tag": list(choice.tags)},
        bounds={name: NumberBounds(least=low, most=high) for name, (low, high) in choice.bounds.items()},
        sort=choice.order,
        view="table" if request.args.get("view") == "table" else "grid",
        size=min(max(request.args.get("size", 3, int), SIZES[0]), SIZES[-1]),
        total=len(table.frame),
        matching=len(rows),
        first=start + 1 if len(shown) else 0,
        rows=_views(table, shown),
        next=None if following is None else address("gallery.gallery", {}, query | following),
        files={name: address("gallery_export.gallery_rows", {"suffix": name}, asked) for name in FORMATS},
        report=address("gallery_export.gallery_report", {}, asked),
    )


def _by_size(backbones: Sequence[str]) -> list[str]:
    return sorted(backbones, key=current_state().backbone_order)


def _start(table: AnsweredFrames, rows: Keys, choice: RowChoice) -> int:
    """Where `?after=` goes on: a row's key, and its value should the row be gone."""
    after = request.args.get("after")
    if not after:
        return 0
    key, _separator, value = after.partition("~")
    try:
        number = float(value or "nan")
    except ValueError:
        number = math.nan
    return table.position_after(rows, choice.sort, choice.descending, parse_key(key), number)


def _after(table: AnsweredFrames, row: int, choice: RowChoice) -> str:
    value = None if choice.sort is None else table.number(row, choice.sort)
    return key_text(table.key(row)) + ("" if value is None else f"~{value!r}")


# --- rows ---------------------------------------------------------------------------------------


def _views(table: AnsweredFrames, rows: Keys) -> list[GalleryRow]:
    indices: dict[str, set[int]] = {}
    for row in rows.tolist():
        indices.setdefault(table.text(row, "flight"), set()).add(int(table.frame[row]))
    with current_state().database.read() as session:
        files = gallery.frame_files(session, indices)
        on_frames = marks.marks_of_flights(session, indices)
        tiles = snapshots.snapshots(session, (key for key in table.snapshot[rows].tolist() if key))
    queries = _frame_queries(table.runs)
    return [_view(table, row, files, tiles, queries, on_frames) for row in rows.tolist()]


def _frame_queries(stored_runs: Sequence[StoredRun]) -> dict[int, dict[str, str]]:
    """{run: what a frame's address says to show it}."""
    questions = {run.id: (run.flight_id, run.reference_set.name, parameters_key(run)) for run in stored_runs}
    times = Counter((*questions[run.id], run.spec.backbone) for run in stored_runs)
    queries = {}
    for run in stored_runs:
        _flight, reference_set, asked = question = questions[run.id]
        backbone = run.spec.backbone
        model = backbone if times[*question, backbone] == 1 else f"{backbone}~{run.id}"
        queries[run.id] = {"set": reference_set, "asked": asked, "model": model}
    return queries


def _view(
    table: AnsweredFrames,
    row: int,
    files: Mapping[tuple[str, int], str],
    tiles: Mapping[int, TileSnapshot],
    queries: Mapping[int, dict[str, str]],
    on_frames: Mapping[tuple[str, int], FrameMarks],
) -> GalleryRow:
    flight, frame, method = table.text(row, "flight"), int(table.frame[row]), table.text(row, "method")
    run = table.runs[int(table.run[row])]
    tile = tiles.get(int(table.snapshot[row]))
    path = files.get((flight, frame))
    lon, lat, heading = (float(column[row]) for column in (table.lon, table.lat, table.heading_deg))
    agreeing, of = table.agreeing[row].tolist()
    on_frame = on_frames.get((flight, frame), UNMARKED)
    return GalleryRow(
        key=key_text(table.key(row)),
        flight=flight,
        frame=frame,
        url=address("frame.frame", {"flight_id": flight, "frame": frame}, queries[run.id] | {"method": method}),
        image=None if path is None else frame_file_url(flight, frame, Path(path)),
        tile=None if tile is None else result_url(tile.id, tile.content_digest),
        tile_heading_deg=None if tile is None else tile.tile.angle_deg,
        model=queries[run.id]["model"],
        method=method,
        reference_set=run.reference_set.name,
        state=table.text(row, "state"),
        location=None if math.isnan(lon) else Location(lon=lon, lat=lat),
        heading_deg=None if math.isnan(heading) else heading,
        score=table.number(row, "score"),
        margin=table.number(row, "margin"),
        probability=table.number(row, "probability"),
        error_m=table.number(row, "error"),
        heading_error_deg=table.number(row, "heading-off"),
        agreement=GalleryAgreement(backbones=agreeing, of=of) if of else None,
        tags=list(on_frame.tags),
        note=on_frame.note,
    )


# --- two answers frame by frame -----------------------------------------------------------------


class PairedChoice(AnswerModel):
    """An answer that can be held against another of its flight."""

    key: int
    label: str
    model: str
    method: str
    reference_set: str
    frames: int


class PairedDifference(AnswerModel):
    """A value with its interval of 95 %, where the frames are worth enough independent ones to have one."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    n_eff: float | None


class PairedFigures(AnswerModel):
    """Frames by which answer is right, which is within `within_m` of the truth."""

    within_m: float
    both: int
    only_a: int
    only_b: int
    neither: int
    gain: PairedDifference = Field(description="B's share of right frames less A's")
    change_m: PairedDifference = Field(description="median of B's error less A's, of frames that both have placed")


class PairedRow(AnswerModel):
    a: GalleryRow
    b: GalleryRow
    change_m: float | None = Field(description="B's error less A's")
    apart_m: float | None = Field(description="between the two positions")


class PairsPage(AnswerModel):
    """Two answers for a flight: what changed from A to B, and on which frames."""

    flight: str | None
    flights: list[str]
    choices: list[PairedChoice]
    a: int | None
    b: int | None
    figures: PairedFigures | None = Field(description="null where the truth of no frame is known")
    frames: int = Field(ge=0, description="with both answers")
    show: Literal["changed", "all"] = Field(
        description="changed: right in one answer only; without truth, positions farther apart than `within_m`"
    )
    within_m: float
    matching: int
    page_number: int = Field(ge=1)
    pages: int = Field(ge=1)
    rows: list[PairedRow]


@page(routes, "/gallery/pairs", "pairs")
def pairs_page() -> PairsPage:
    """Two answers of a flight, such as of two backbones, sets, altitudes or methods: the frames that changed, those
    that changed most first."""
    table = gallery_table()
    flights = sorted(table.choices["flight"], reverse=True)
    judged = {table.choices["flight"][code] for code in np.unique(table.codes["flight"][table.error_known]).tolist()}
    flight = request.args.get("flight") or next(iter([name for name in flights if name in judged] or flights), None)
    if flight is not None and flight not in flights:
        raise Problem(404, _("There is no flight {name}. Go back to the flights to see those there are.", name=flight))
    choices = _paired_choices(table, flight)
    keys = [choice.key for choice in choices]
    a = _paired_key("a", keys, 0)
    b = _paired_key("b", keys, 1)
    show: Literal["changed", "all"] = "all" if request.args.get("show") == "all" else "changed"
    if a is None or b is None:
        return PairsPage(
            flight=flight, flights=flights, choices=choices, a=a, b=b, figures=None, frames=0, show=show, within_m=0.0,
            matching=0, page_number=1, pages=1, rows=[],
        )  # fmt: skip
    pairs = pair_answers(table, a, b)
    run = next(table.runs[int(table.run[row])] for row in np.flatnonzero(table.localization == a)[:1])
    within_m = request.args.get("within", agreement_within_m(run), metres_of_address)
    outcomes = pairs.outcomes(within_m)
    known = bool((~np.isnan(outcomes)).any())
    size = np.abs(pairs.change_m) if known else pairs.apart_m
    changed = np.abs(outcomes) == 1 if known else pairs.apart_m > within_m
    chosen = np.flatnonzero(changed) if show == "changed" else np.arange(len(size))
    # A frame that only one answer has placed comes first: nothing changed more.
    chosen = chosen[np.argsort(-np.where(np.isnan(size[chosen]), np.inf, size[chosen]), kind="stable")]
    pages = max(1, -(-len(chosen) // PAIRS_PER_PAGE))
    number = min(max(1, request.args.get("page", 1, int)), pages)
    shown = chosen[(number - 1) * PAIRS_PER_PAGE : number * PAIRS_PER_PAGE]
    views = zip(_views(table, pairs.rows_a[shown]), _views(table, pairs.rows_b[shown]), shown.tolist(), strict=True)
    return PairsPage(
        flight=flight,
        flights=flights,
        choices=choices,
        a=a,
        b=b,
        figures=_paired_figures(summarize_pairs(pairs, within_m), within_m) if known else None,
        frames=len(pairs.rows_a),
        show=show,
        within_m=within_m,
        matching=len(chosen),
        page_number=number,
        pages=pages,
        rows=[
            PairedRow(
                a=view_a, b=view_b, change_m=_finite(pairs.change_m[place]), apart_m=_finite(pairs.apart_m[place])
            )
            for view_a, view_b, place in views
        ],
    )


def _paired_choices(table: AnsweredFrames, flight: str | None) -> list[PairedChoice]:
    rows = table.select({"flight": [flight]}, {}) if flight else np.zeros(0, np.int64)
    localizations, first, counts = np.unique(table.localization[rows], return_index=True, return_counts=True)
    choices = []
    for localization, row, count in zip(localizations.tolist(), rows[first].tolist(), counts.tolist(), strict=True):
        run, method = table.runs[int(table.run[row])], table.text(row, "method")
        reference_set, backbone = run.reference_set.name, run.spec.backbone
        choices.append(
            PairedChoice(
                key=localization,
                label=" · ".join([backbone, method_text(method), reference_set, run_label(run)]),
                model=backbone,
                method=method,
                reference_set=reference_set,
                frames=count,
            )
        )
    order = current_state().backbone_order
    return sorted(choices, key=lambda choice: (choice.method, choice.reference_set, order(choice.model), choice.key))


def _paired_key(name: str, keys: Sequence[int], place: int) -> int | None:
    """The answer that the address names, else the one at a place, where there is one."""
    asked = request.args.get(name, None, int)
    if asked is not None and asked not in keys:
        raise Problem(404, _("This flight has no answer {key}.", key=asked))
    return asked if asked is not None else keys[place] if place < len(keys) else None


def _paired_figures(summary: PairedSummary, within_m: float) -> PairedFigures:
    return PairedFigures(
        within_m=within_m,
        both=summary.both,
        only_a=summary.only_a,
        only_b=summary.only_b,
        neither=summary.neither,
        gain=_difference(summary.gain),
        change_m=_difference(summary.change_m),
    )


def _difference(estimate: IntervalEstimate) -> PairedDifference:
    return PairedDifference(
        value=_finite(estimate.value),
        low=_finite(estimate.low),
        high=_finite(estimate.high),
        n=estimate.n,
        n_eff=_finite(estimate.n_eff),
    )


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
