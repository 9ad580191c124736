"""The report's sections on a page: each figure a picture of its own, with its PNG and its numbers as CSV beside it."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from flask import Response, request

from web.language import _
from web.problems import Problem
from web.state import the_gallery

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


def as_json(sections: Sequence[Section], address: Callable[[str, str], str]) -> list[dict[str, Any]]:
    """Sections as a page shows them; `address(key, suffix)` is where their files are."""
    return [
        {
            "key": one.key,
            "title": one.title,
            "note": one.note,
            "svg": address(one.key, "svg") if one.draw else None,
            "png": address(one.key, "png") if one.draw else None,
            "csv": address(one.key, "csv") if one.table else None,
            "table": one.table and _table(one.table),
            "open": one.open,
            "more": one.full_table and _table(one.full_table),
        }
        for one in sections
    ]


def _table(table: Table) -> dict[str, Any]:
    return {
        "columns": list(table.columns),
        "rows": [[cell.split("\n") for cell in row] for row in table.rows],
        "marked": sorted(table.marked),
    }


def file(sections: Mapping[str, Section], mark: object, key: str, suffix: str) -> Response:
    """One section as `svg` (light or dark, `?scheme=`), `png` or `csv`; `mark` names these sections in memory."""
    section = sections.get(key)
    if section is None or (section.table is None if suffix == "csv" else section.draw is None):
        raise Problem(404, _("There is no figure of this name."))
    if suffix == "csv":
        answer = Response(_csv(section), content_type="text/csv; charset=utf-8")
    elif suffix == "png":
        data = the_gallery().memory.recall((mark, key, "png"), lambda: _png(section))
        answer = Response(data, content_type="image/png")
    elif suffix == "svg":
        drawn = the_gallery().memory.recall((mark, key, "svg"), lambda: _svg(section))
        answer = Response(_coloured(drawn, request.args.get("scheme") == "dark"), content_type="image/svg+xml")
        answer.headers["Content-Security-Policy"] = _POLICY
    else:
        raise Problem(404, _("There is no figure of this name."))
    if suffix != "svg":
        answer.headers.set("Content-Disposition", "attachment", filename=f"{key}.{suffix}")
    answer.headers["Cache-Control"] = "private, max-age=3600"
    return answer


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


def _coloured(svg: str, dark: bool) -> str:
    """The page's figure as a file: named spaces, and the colours of its scheme."""
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    sheet = f"<style>svg{{{_DARK if dark else _LIGHT};font-family:system-ui,sans-serif}}</style>"
    head, rest = svg.split(">", 1)
    return f"{head.replace('<svg', f'<svg {spaces}', 1)}>{sheet}{rest}"
