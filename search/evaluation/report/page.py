"""Sections to one HTML file that needs nothing else: style, figures and pictures are inside."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib import resources
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup
from matplotlib.figure import Figure

from coarseloc import __version__
from coarseloc.core import files
from coarseloc.core.types import Progress
from coarseloc.embedding import specs
from coarseloc.i18n import Translator, translator
from search.evaluation.report import chart, style
from search.evaluation.report.chart import Chart


@dataclass(frozen=True, slots=True)
class Table:
    """Columns and rows as text; a column of numbers is aligned to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: frozenset[int] = frozenset()  # indices of rows to highlight


@dataclass(frozen=True, slots=True)
class Section:
    """A figure or pictures, a note how to read it, and the table of its numbers."""

    key: str  # its anchor, and the name of its files
    title: str
    note: str = ""
    draw: Callable[[], Figure] | None = None
    chart: Chart | None = None  # what the figure shows, where a page can draw it itself
    body: str = ""  # HTML in place of a figure
    table: Table | None = None
    open: bool = False  # whether the table is unfolded
    full_table: Table | None = None  # a longer table, folded

    @property
    def figure(self) -> Callable[[], Figure] | None:
        """Draws its figure on paper: its own way, else the chart's."""
        return self.draw or (partial(chart.draw, self.chart) if self.chart else None)


@dataclass(frozen=True, slots=True)
class Page:
    title: str
    lead: Sequence[str]  # paragraphs of findings
    facts: Sequence[tuple[str, str]]  # device, versions, counts
    sections: Sequence[Section]
    warnings: Sequence[str] = ()
    language: str = "en"
    translate: Translator = field(default=str)
    created_at: datetime | None = None  # now by default


def figures_translator(language: str, figures: Path | None) -> tuple[Translator, list[str]]:
    """The translator of text inside figures, and notices for the user: PNG files need a font of this machine."""
    if figures and language == "ko" and style.hangul_font() is None:
        return translator("en"), [
            "no Korean font is installed here (such as Noto Sans CJK): the figures' own words stay English"
        ]
    return translator(language), []


def write_page(page: Page, out: Path, figures: Path | None = None, progress: Progress | None = None) -> None:
    """Write a page as one HTML file; with `figures`, each figure as PNG and SVG in that folder too."""
    text = _render(page, figures, progress)
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(out, text)


def _render(page: Page, figures: Path | None, progress: Progress | None) -> str:
    section_contexts = []
    with style.drawing():
        for count, section in enumerate(page.sections, 1):
            body = section.body
            if section.figure:
                figure = section.figure()
                body = style.inline_svg(figure, section.key, html.escape(section.title, quote=True))
                if figures:
                    style.write_figure(figure, figures, section.key)
            if progress:
                progress(count, len(page.sections), "sections")
            section_contexts.append({"section": section, "body": Markup(body)})  # noqa: S704 - made above, from escaped parts
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    folder = resources.files("search.evaluation.report")
    template = environment.from_string(folder.joinpath("page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        page=page,
        translate=page.translate,
        sections=section_contexts,
        css=Markup(_css(folder.joinpath("page.css").read_text(encoding="utf-8"))),  # noqa: S704 - our own file
        created=(page.created_at or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
        numeric=_is_numeric,
    )


def _css(text: str) -> str:
    return "\n".join(part.strip() for part in text.splitlines() if part.strip())


def _is_numeric(table: Table, column: int) -> bool:
    """Whether every cell of a column begins like a number."""
    cells = [row[column] for row in table.rows if row[column] not in ("", "–")]
    return bool(cells) and all(cell[0].isdigit() or cell[0] in "-+<" for cell in cells)


# --- sentences that several sections share ------------------------------------------------------


def stand_in_warnings(backbones: Iterable[str], translate: Translator) -> list[str]:
    """A warning that names the backbones other than the six of DINOv3."""
    dinov3 = {name for name, row in specs.BACKBONES.items() if row.is_dinov3}
    stand_ins = [name for name in dict.fromkeys(backbones) if name not in dinov3]
    warning = translate(
        "{names}: none of the six DINOv3 backbones. Read their figures as what this pipeline does with them, "
        "not as DINOv3's."
    )
    return [warning.format(names=", ".join(stand_ins))] if stand_ins else []


def timing_text(batch: int | None, translate: Translator) -> str:
    """Describe whether a time is a frame's own, or its share of a batch's."""
    if batch is None:
        return translate("batch size not recorded")
    if batch == 1:
        return translate("one frame at a time")
    return translate("batches of up to {n}, their time divided by their frames").format(n=batch)


def threads_text(threads: Mapping[str, int] | None, translate: Translator) -> str:
    """Describe `search.environment.threads`; an older run does not record them."""
    if not threads:
        return translate("threads not recorded")
    return translate("torch {torch}, FAISS {faiss}, OpenMP {omp} threads").format(**threads)
