"""Show the report's sections on a page: each figure as SVG, with its PNG and its numbers as CSV."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Callable, Hashable, Mapping, Sequence
from html import escape
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from flask import Response, request
from pydantic import Field

from web.language import _
from web.models import AnswerModel
from web.problems import Problem
from web.state import current_state

if TYPE_CHECKING:  # matplotlib comes with it: seconds that other pages should not wait for
    from search.evaluation.report.page import Section, Table

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


class SectionView(AnswerModel):
    key: str
    title: str
    note: str
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
            svg=file_url(section.key, "svg") if section.draw else None,
            png=file_url(section.key, "png") if section.draw else None,
            csv=file_url(section.key, "csv") if section.table else None,
            table=_table(section.table) if section.table else None,
            open=section.open,
            full_table=_table(section.full_table) if section.full_table else None,
        )
        for section in sections
    ]


def _table(table: Table) -> TableView:
    return TableView(
        columns=list(table.columns),
        rows=[[cell.split("\n") for cell in row] for row in table.rows],
        marked=sorted(table.marked),
    )


def figure_file(sections: Mapping[str, Section], cache_key: Hashable, key: str, suffix: str) -> Response:
    """One section as `svg` (light or dark, `?scheme=`), `png` or `csv`; `cache_key` names these sections in memory."""
    section = sections.get(key)
    if section is None or (section.table is None if suffix == "csv" else section.draw is None):
        raise Problem(404, _("There is no figure of this name."))
    if suffix == "csv":
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
    if suffix != "svg":
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

    assert section.draw is not None  # noqa: S101 - the caller has looked
    with _drawing, style.drawing(), tempfile.TemporaryDirectory() as folder:
        style.write_figure(section.draw(), Path(folder), section.key)
        return (Path(folder) / f"{section.key}.png").read_bytes()


def _svg(section: Section) -> str:
    from search.evaluation.report import style

    assert section.draw is not None  # noqa: S101 - the caller has looked
    with _drawing, style.drawing():
        return style.inline_svg(section.draw(), section.key, escape(section.title, quote=True))


def _in_colours(svg: str, dark: bool) -> str:
    """Make a file of a page's figure: add XML namespaces, and the colours of the scheme."""
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    sheet = f"<style>svg{{{_DARK if dark else _LIGHT};font-family:system-ui,sans-serif}}</style>"
    head, rest = svg.split(">", 1)
    return f"{head.replace('<svg', f'<svg {spaces}', 1)}>{sheet}{rest}"
