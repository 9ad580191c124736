"""Show the report's sections on a page: each figure as a chart or SVG, with its PNG and its numbers as CSV."""

from __future__ import annotations

import csv
import io
import math
import tempfile
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from flask import Response, request
from pydantic import Field

from coarseloc.core.types import Floats
from web.language import _
from web.models import AnswerModel, json_response
from web.problems import Problem
from web.state import current_state

if TYPE_CHECKING:  # matplotlib comes with it: seconds that other pages should not wait for
    from search.evaluation.report.chart import Axis, Chart, Series
    from search.evaluation.report.page import Section, Table

RunUrl = Callable[[int, bool], str | None]  # (run, whether of its frames) → an address, of frames with {index}
SeriesForm = Literal["line", "points", "steps"]

_MOST_POINTS = 2000  # of a series that a page draws
_drawing = Lock()  # matplotlib's settings are the process's, not the thread's

# What the report's style sheet gives to the figures' variables; a picture has no sheet but its own.
_LIGHT = (
    "color:#1b1f23;--muted:#5f6b76;--grid:#dde2e7;"
    "--s0:#0072b2;--s1:#c44e00;--s2:#007a5a;--s3:#a3479a;--s4:#8a6d00;--s5:#3d4f5c"
)
_DARK = (
    "color:#e8ebee;--muted:#9aa5af;--grid:#353c43;"
    "--s0:#56b4e9;--s1:#ff9a57;--s2:#35cda0;--s3:#e79bd0;--s4:#e8c547;--s5:#b8c4ce"
)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # a figure's lines carry their styles, and no script


class TableView(AnswerModel):
    columns: list[str]
    rows: list[list[list[str]]] = Field(description="of cells, each in its lines")
    marked: list[int]


class SeriesView(AnswerModel):
    """Points of one kind, in columns of equal length; null where unknown."""

    label: str
    index: int = Field(ge=0, description="its colour, shape and dash")
    form: SeriesForm
    x: list[float | None]
    y: list[float | None]
    low: list[float | None] | None
    high: list[float | None] | None
    frames: list[int] | None = Field(description="the frame that each point is of")
    muted: bool = Field(description="grey: what others are compared with")
    dotted: bool = Field(description="in its colour: what it is compared with")
    url: str | None = Field(description="of the run that it is of; of a frame with {index} in its place")


class AxisView(AnswerModel):
    label: str
    logarithmic: bool
    percent: bool
    ends: tuple[float, float] | None
    ticks: list[float]
    names: list[str]


class PanelView(AnswerModel):
    title: str
    series: list[SeriesView]


class ChartView(AnswerModel):
    """What a figure shows, for a page to draw."""

    x: AxisView
    y: AxisView
    panels: list[PanelView]


class SectionView(AnswerModel):
    key: str
    title: str
    note: str
    chart: str | None
    svg: str | None
    png: str | None
    csv: str | None
    table: TableView | None
    open: bool
    full_table: TableView | None


def section_views(sections: Sequence[Section], file_url: Callable[[str, str], str]) -> list[SectionView]:
    """Sections as a page shows them; `file_url(key, suffix)` is the address of their files."""
    return [
        SectionView(
            key=section.key,
            title=section.title,
            note=section.note,
            chart=file_url(section.key, "json") if section.chart else None,
            svg=file_url(section.key, "svg") if section.figure else None,
            png=file_url(section.key, "png") if section.figure else None,
            csv=file_url(section.key, "csv") if section.table else None,
            table=_table(section.table) if section.table else None,
            open=section.open,
            full_table=_table(section.full_table) if section.full_table else None,
        )
        for section in sections
    ]


def chart_view(chart: Chart, run_url: RunUrl) -> ChartView:
    """A chart as a page draws it; `run_url(run, of_frames)` is the address behind a run's points."""
    return ChartView(
        x=AxisView(**_axis(chart.x)),
        y=AxisView(**_axis(chart.y)),
        panels=[
            PanelView(title=panel.title, series=[_series_view(series, run_url) for series in panel.series])
            for panel in chart.panels
        ],
    )


def _axis(axis: Axis) -> dict[str, Any]:
    return asdict(axis) | {"ticks": list(axis.ticks), "names": list(axis.names)}


def _series_view(series: Series, run_url: RunUrl) -> SeriesView:
    step = max(1, -(-len(series.x) // _MOST_POINTS)) if series.form == "points" else 1
    low, high = (None if end is None else _column(end[::step]) for end in (series.low, series.high))
    frames = None if series.frames is None else series.frames[::step].tolist()
    return SeriesView(
        label=series.label,
        index=series.index,
        form=series.form,
        x=_column(series.x[::step]),
        y=_column(series.y[::step]),
        low=low,
        high=high,
        frames=frames,
        muted=series.muted,
        dotted=series.dotted,
        url=None if series.run is None else run_url(series.run, frames is not None),
    )


def _column(values: Floats) -> list[float | None]:
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values.tolist()]


def _table(table: Table) -> TableView:
    return TableView(
        columns=list(table.columns),
        rows=[[cell.split("\n") for cell in row] for row in table.rows],
        marked=sorted(table.marked),
    )


def figure_file(
    sections: Mapping[str, Section],
    cache_key: Hashable,
    key: str,
    suffix: str,
    run_urls: Callable[[], RunUrl] = lambda: lambda run, of_frames: None,
) -> Response:
    """One section as `svg` (light or dark, `?scheme=`), `png`, `csv` or `json` (its chart, with the addresses behind
    its points, which `run_urls` reads); `cache_key` names these sections in memory."""
    section = sections.get(key)
    contents: dict[str, object] = {"csv": section.table, "json": section.chart} if section else {}
    if section is None or contents.get(suffix, section.figure) is None:
        raise Problem(404, _("There is no figure of this name."))
    if suffix == "json" and section.chart:
        response = json_response(chart_view(section.chart, run_urls()))
    elif suffix == "csv":
        response = Response(_csv(section), content_type="text/csv; charset=utf-8")
    elif suffix == "png":
        data = current_state().memory.recall((cache_key, key, "png"), lambda: _png(section))
        response = Response(data, content_type="image/png")
    elif suffix == "svg":
        drawn = current_state().memory.recall((cache_key, key, "svg"), lambda: _svg(section))
        response = Response(_in_colours(drawn, request.args.get("scheme") == "dark"), content_type="image/svg+xml")
        response.headers["Content-Security-Policy"] = _POLICY
    else:
        raise Problem(404, _("There is no figure of this name."))
    if suffix in ("png", "csv"):
        response.headers.set("Content-Disposition", "attachment", filename=f"{key}.{suffix}")
    response.headers["Cache-Control"] = "private, max-age=3600"
    return response


def _csv(section: Section) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if section.table:
        writer.writerow(section.table.columns)
        writer.writerows([cell.replace("\n", " ") for cell in row] for row in section.table.rows)
    return text.getvalue()


def _png(section: Section) -> bytes:
    from search.evaluation.report import style

    assert section.figure is not None  # noqa: S101 - the caller has looked
    with _drawing, style.drawing(), tempfile.TemporaryDirectory() as folder:
        style.write_figure(section.figure(), Path(folder), section.key)
        return (Path(folder) / f"{section.key}.png").read_bytes()


def _svg(section: Section) -> str:
    from search.evaluation.report import style

    assert section.figure is not None  # noqa: S101 - the caller has looked
    with _drawing, style.drawing():
        return style.inline_svg(section.figure(), section.key, escape(section.title, quote=True))


def _in_colours(svg: str, dark: bool) -> str:
    """Make a file of a page's figure: add XML namespaces, and the colours of the scheme."""
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    sheet = f"<style>svg{{{_DARK if dark else _LIGHT};font-family:system-ui,sans-serif}}</style>"
    head, rest = svg.split(">", 1)
    return f"{head.replace('<svg', f'<svg {spaces}', 1)}>{sheet}{rest}"
