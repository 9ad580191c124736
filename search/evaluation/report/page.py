"""Sections to one HTML file that needs nothing else: style, figures and pictures are inside."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup
from matplotlib.figure import Figure

from coarseloc import __version__
from coarseloc.core.types import Progress
from coarseloc.i18n import Translator, translator
from search.evaluation.report import style


@dataclass(frozen=True, slots=True)
class Table:
    """Columns and rows as they are shown; a column of numbers stands to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: frozenset[int] = frozenset()  # rows that stand out


@dataclass(frozen=True, slots=True)
class Section:
    """One thing a reader looks at: a figure or pictures, a note how to read it, and the numbers behind it."""

    key: str  # its anchor, and the names of its files
    title: str
    note: str = ""
    draw: Callable[[], Figure] | None = None
    body: str = ""  # HTML that stands in place of a figure
    table: Table | None = None
    open: bool = False  # the table is shown, not folded
    more: Table | None = None  # a longer table, folded


@dataclass(frozen=True, slots=True)
class Page:
    title: str
    lead: Sequence[str]  # paragraphs: what was found
    facts: Sequence[tuple[str, str]]  # what answered: device, versions, n
    sections: Sequence[Section]
    warnings: Sequence[str] = ()
    language: str = "en"
    say: Translator = field(default=str)


def figures_say(language: str, figures: Path | None) -> tuple[Translator, list[str]]:
    """The language inside figures, and notices for who asked: as PNG files they need a font of this machine."""
    if figures and language == "ko" and style.hangul_font() is None:
        return translator("en"), [
            "no Korean font is installed here (such as Noto Sans CJK): the figures' own words stay English"
        ]
    return translator(language), []


def write(page: Page, out: Path, figures: Path | None = None, progress: Progress | None = None) -> None:
    """The page as one HTML file; with `figures`, each figure as PNG and SVG in that folder too."""
    text = _rendered(page, figures, progress)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")


def _rendered(page: Page, figures: Path | None, progress: Progress | None) -> str:
    shown = []
    with style.drawing():
        for done, section in enumerate(page.sections, 1):
            body = section.body
            if section.draw:
                made = section.draw()
                body = style.inline_svg(made, section.key, html.escape(section.title, quote=True))
                if figures:
                    style.write(made, figures, section.key)
            if progress:
                progress(done, len(page.sections), "sections")
            shown.append({"section": section, "body": Markup(body)})  # noqa: S704 - made above, from escaped parts
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    here = resources.files("search.evaluation.report")
    template = environment.from_string(here.joinpath("page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        page=page,
        say=page.say,
        shown=shown,
        css=Markup(_css(here.joinpath("page.css").read_text(encoding="utf-8"))),  # noqa: S704 - our own file
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
        numeric=_numeric,
    )


def _css(text: str) -> str:
    return "\n".join(part.strip() for part in text.splitlines() if part.strip())


def _numeric(table: Table, column: int) -> bool:
    """Whether what stands in a column begins as a number does."""
    cells = [row[column] for row in table.rows if row[column] not in ("", "–")]
    return bool(cells) and all(cell[0].isdigit() or cell[0] in "-+<" for cell in cells)


def counts(facts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in facts.items())
