"""The report of a preflight: a verdict with its reasons, and a map of what would be ingested and flown over."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from coarseloc.core import geo
from coarseloc.core.types import BBox
from coarseloc.core.windows import WindowSource
from coarseloc.i18n import Translator
from coarseloc.i18n.messages import message_translator
from search.evaluation.report import style
from search.evaluation.report.ground_map import GroundDrawing
from search.evaluation.report.page import Page, Section, Table, figures_translator, write_page
from search.preflight.preflight import Preflight

TITLE = "Preflight"
VERDICTS = {
    "ok": "Nothing speaks against it.",
    "doubtful": "Doubtful: see why before hours are spent.",
    "no": "No: it would be in vain.",
}
LEVEL_TEXTS = {"ok": "ok", "doubtful": "doubtful", "no": "no"}
TOPICS = {
    "map": "map",
    "flight": "flight",
    "overlap": "map and flight",
    "weights": "weights",
    "cost": "cost",
    "disk": "disk",
}
_MOST_OUTLINES = 1500
_FAR = 3.0  # maps' sizes: a flight farther off is on no map with them


def write_preflight(
    preflight: Preflight,
    grounds: Sequence[WindowSource | None],
    out: Path,
    *,
    language: str = "en",
    figures: Path | None = None,
    note: str | None = None,
) -> list[str]:
    """Write it as one HTML file; returns notices. grounds: of each source, None where it gives no picture."""
    translate = message_translator(language)
    translate_figure, notices = figures_translator(language, figures)
    sentences = [
        f"{translate(TOPICS[finding.topic])}: {finding.sentence(translate)}"
        for level in ("no", "doubtful")
        for finding in preflight.findings
        if finding.level == level
    ]
    page = Page(
        title=f"{translate(TITLE)}: {translate(LEVEL_TEXTS[preflight.verdict])}",
        lead=[translate(VERDICTS[preflight.verdict])],
        facts=[(facts.name, facts.path) for facts in preflight.sources]
        + ([(translate("flight"), preflight.flight.path)] if preflight.flight else []),
        sections=_sections(preflight, grounds, translate, translate_figure),
        warnings=[*([note] if note else []), *sentences],
        language=language,
        translate=translate,
    )
    write_page(page, out, figures)
    return notices


def _sections(
    preflight: Preflight, grounds: Sequence[WindowSource | None], translate: Translator, translate_figure: Translator
) -> list[Section]:
    sections = []
    for number, facts in enumerate(preflight.sources):
        box, is_near = _box(preflight, facts.box)
        note = translate(
            "Footprints of the places, those looked at thicker: orange without ground or contrast. The line is the flight."
        )
        if not is_near:
            note += " " + translate("The flight is too far off to be on this map.")
        drawing = GroundDrawing(box, grounds[number])
        sections.append(
            Section(
                f"map-{number}",
                translate("Map") + (f": {facts.name}" if len(preflight.sources) > 1 else ""),
                note,
                partial(_plot_map, preflight, number, drawing, translate_figure),
            )
        )
    rows = [
        [translate(TOPICS[finding.topic]), translate(LEVEL_TEXTS[finding.level]), finding.sentence(translate)]
        for finding in preflight.findings
    ]
    marked = frozenset(n for n, finding in enumerate(preflight.findings) if finding.level != "ok")
    columns = (translate("about"), translate("verdict"), translate("why"))
    sections.append(Section("findings", translate("What was looked at"), table=Table(columns, rows, marked), open=True))
    if preflight.encoders:
        sections.append(Section("cost", translate("Cost"), table=_cost_table(preflight, translate), open=True))
    if preflight.notes:
        table = Table((translate("note"),), [[translate(text)] for text in preflight.notes])
        title = translate("What readers chose, doubted or left unused")
        sections.append(Section("notes", title, table=table, open=True))
    return sections


def _box(preflight: Preflight, around: BBox) -> tuple[BBox, bool]:
    """(a map's box, with the flight where it is near, whether it is)."""
    route = None if preflight.flight is None else preflight.flight.route
    if route is None or not len(route):
        return around, True
    size_m = max(geo.box_size_m(around))
    middle = geo.box_center(around)
    if float(np.median(geo.distance_m(route[:, 0], route[:, 1], middle.lon, middle.lat))) > _FAR * size_m:
        return around, False
    corners = np.array([[around.west, around.south], [around.east, around.north], *route])
    return geo.bounds(*corners.T), True


def _plot_map(preflight: Preflight, number: int, drawing: GroundDrawing, translate: Translator) -> Figure:
    figure, ax = drawing.figure(translate)
    facts = preflight.sources[number]
    before = sum(source.tiles for source in preflight.sources[:number])
    tiles = preflight.tiles[before : before + facts.tiles]
    step = -(-len(tiles) // _MOST_OUTLINES)
    drawing.boxes(ax, [tile.bbox for tile in tiles[::step]], colour=style.SERIES[0], fill=0.04, line=0.4)
    if preflight.samples:
        sample = preflight.samples[number]
        bad = {tile.index for tile in (*sample.blank, *sample.plain)}
        drawing.boxes(
            ax, [tile.bbox for tile in sample.tiles if tile.index not in bad], colour=style.SERIES[0], line=1.4
        )
        drawing.boxes(
            ax, [tile.bbox for tile in sample.tiles if tile.index in bad], colour=style.SERIES[1], fill=0.3, line=1.6
        )
    if preflight.flight is not None and len(preflight.flight.route):
        east, north = drawing.metres(*preflight.flight.route.T)
        ax.plot(east, north, color=style.INK, linewidth=1.2, marker="o", markersize=2.5, label=translate("flight"))
    return figure


def _cost_table(preflight: Preflight, translate: Translator) -> Table:
    columns = (
        translate("backbone"), translate("embeddings"), translate("of views"), translate("ms a view"),
        translate("ms a frame"),
    )  # fmt: skip
    rows = [
        [
            cost.backbone,
            str(cost.embeddings),
            str(cost.views),
            *("–" if seconds is None else f"{1e3 * seconds:.1f}" for seconds in (cost.embed_s, cost.frame_s)),
        ]
        for cost in preflight.encoders
    ]
    return Table(columns, rows)
