"""The report of a reference set's localizability: where its ground tells where it is, and where it has twins."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from coarseloc.core import geo
from coarseloc.core.errors import CoarselocError
from coarseloc.core.types import BBox, LonLat, Progress
from coarseloc.core.windows import WindowSource
from coarseloc.i18n import Translator
from coarseloc.i18n.messages import message_translator
from search.evaluation.report import style
from search.evaluation.report.ground_map import GOOD_TO_BAD, GroundDrawing
from search.evaluation.report.page import Page, Section, Table, figures_translator, stand_in_warnings, write_page
from search.localizability import EXCLUSIONS, BackboneLocalizability, Localizability, TwinPair, twin_pairs

TITLE = "How well this ground tells where it is"
NOT_MEASURED = {
    "heading": "What more headings buy is not known: the set has one, or an odd number of them.",
    "backbone": "What a further backbone buys is not known: the set is embedded with one. Ingest it with another one and measure again.",
    "altitude": "What a further altitude buys is not known: no other set of this ground, with another altitude or footprint, is embedded with the same backbone.",
}  # fmt: skip
EXCLUDED = {
    "view": "the view itself may not answer",
    "place": "its place may not answer at any heading",
    "neighbours": "the view and overlapping neighbours may not answer",
}
PICTURE_PX = 160
PAIRS_SHOWN = 6
LINES_SHOWN = 12


def write_localizability(
    measured: Localizability,
    ground: WindowSource | None,
    out: Path,
    *,
    language: str = "en",
    figures: Path | None = None,
    note: str | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Write it as one HTML file; returns notices. ground: the map itself, None where its files are gone."""
    translate = message_translator(language)
    translate_figure, notices = figures_translator(language, figures)
    warnings = [note] if note else []
    warnings += stand_in_warnings([backbone.backbone for backbone in measured.backbones], translate)
    warnings.append(
        translate(
            "Views of one day against each other: another season, light or a camera of another kind makes it harder. "
            "What is confused here will be confused by a flight."
        )
    )
    page = Page(
        title=f"{translate(TITLE)}: {measured.reference_set}",
        lead=findings(measured, translate),
        facts=_facts(measured, translate),
        sections=list(_sections(measured, ground, translate, translate_figure)),
        warnings=warnings,
        language=language,
        translate=translate,
    )
    write_page(page, out, figures, progress)
    return notices


def findings(measured: Localizability, translate: Translator) -> list[str]:
    """The result in sentences."""
    best = measured.best()
    places = best.places
    texts = [
        translate(
            "With {backbone}, the best answer lies within a footprint ({footprint} m) for {share} of the ground: {always} of "
            "{places} places are recognised at every heading, {never} at none."
        ).format(
            backbone=best.backbone, footprint=f"{measured.footprint_m:.0f}", share=f"{best.ground_share:.1%}",
            always=int((places.right_share == 1).sum()), never=int((places.right_share == 0).sum()), places=len(places.lon),
        ),
        translate("Its error is {median} m in the median and {p90} m for nine views in ten.").format(
            median=f"{best.median_error_m:,.0f}", p90=f"{best.p90_error_m:,.0f}"
        ),
    ]  # fmt: skip
    ahead = int((places.margin < 0).sum())
    texts.append(
        translate(
            "{n} of {places} places have a twin that looks more like one of their views than their own surroundings do."
        ).format(n=ahead, places=len(places.lon))
    )
    texts += [translate(NOT_MEASURED[kind]) for kind in measured.not_measured]
    return texts


def _facts(measured: Localizability, translate: Translator) -> list[tuple[str, str]]:
    return [
        (translate("reference set"), measured.reference_set),
        (translate("footprint"), f"{measured.footprint_m:.0f} m, {measured.stride_m:.0f} m"),
        (translate("headings"), ", ".join(f"{angle:03d}" for angle in measured.headings)),
        (translate("asked"), translate(EXCLUDED[measured.exclusion])),
        (
            translate("searched in"),
            ", ".join(f"{backbone.backbone} {backbone.search_s:.1f} s" for backbone in measured.backbones),
        ),
    ]


def _sections(
    measured: Localizability, ground: WindowSource | None, translate: Translator, translate_figure: Translator
) -> Sequence[Section]:
    sections = []
    box = _box(measured)
    ground_map = GroundDrawing(box, ground)
    for backbone in measured.backbones:
        key, name = (
            backbone.backbone.replace("+", "-plus"),
            f" ({backbone.backbone})" if len(measured.backbones) > 1 else "",
        )
        sections += [
            Section(
                f"error-{key}",
                translate("Expected error") + name,
                translate("Metres from a place to its best answer, the mean over its headings. Blue is recognised."),
                partial(_plot_error, measured, backbone, ground_map, translate_figure),
            ),
            Section(
                f"twins-{key}",
                translate("Twins") + name,
                translate(
                    "How much the most alike view of a place's surroundings stands before the most alike one far away, "
                    "at its worst heading: orange, the one far away comes first. Lines join the worst pairs."
                ),
                partial(_plot_twins, measured, backbone, ground_map, translate_figure),
                table=_twin_table(backbone, translate),
            ),
        ]
    best = measured.best()
    if ground is not None:
        body = _pictures(twin_pairs(best.places, PAIRS_SHOWN), ground, measured.footprint_m, translate)
        sections.append(
            Section(
                "pictures",
                translate("Twins in pictures"),
                translate("The worst pairs of {backbone}, north up.").format(backbone=best.backbone),
                body=body,
            )
        )
    sections.append(
        Section(
            "shares",
            translate("What may answer"),
            translate("Share of views whose best answer lies within a footprint."),
            table=_share_table(measured, translate),
            open=True,
        )
    )
    sections.append(
        Section(
            "gains",
            translate("What more would buy"),
            translate(
                "Each row asks the same views twice: without, and with what it names. Headings: views between those of "
                "half of them. Backbones: right by either, which is the most that both together can reach."
            ),
            table=_gain_table(measured, translate),
            open=True,
        )
    )
    return sections


def _box(measured: Localizability) -> BBox:
    places = measured.backbones[0].places
    box = geo.bounds(places.lon, places.lat)
    half = measured.footprint_m / 2
    south_west = geo.offset(LonLat(box.west, box.south), -half, -half)
    north_east = geo.offset(LonLat(box.east, box.north), half, half)
    return BBox(*south_west, *north_east)


def _plot_error(
    measured: Localizability, backbone: BackboneLocalizability, ground_map: GroundDrawing, translate: Translator
) -> Figure:
    figure, ax = ground_map.figure(translate)
    places = backbone.places
    cells = ground_map.cells(
        ax, places.lon, places.lat, places.error_m, measured.stride_m,
        cmap=GOOD_TO_BAD, low=0.0, high=2 * measured.footprint_m,
    )  # fmt: skip
    figure.colorbar(cells, ax=ax, label=translate("expected error, m"), shrink=0.7, extend="max")
    return figure


def _plot_twins(
    measured: Localizability, backbone: BackboneLocalizability, ground_map: GroundDrawing, translate: Translator
) -> Figure:
    figure, ax = ground_map.figure(translate)
    places = backbone.places
    reach = float(np.nanquantile(np.abs(places.margin), 0.9)) if np.isfinite(places.margin).any() else 1.0
    cells = ground_map.cells(
        ax,
        places.lon,
        places.lat,
        places.margin,
        measured.stride_m,
        cmap=GOOD_TO_BAD.reversed(),
        low=-reach,
        high=reach,
    )
    figure.colorbar(cells, ax=ax, label=translate("margin before the twin, cosine"), shrink=0.7, extend="both")
    for pair in twin_pairs(places, LINES_SHOWN):
        if pair.margin < 0:
            lon, lat = np.array([pair.location, pair.twin_location]).T
            ax.plot(*ground_map.metres(lon, lat), color=style.INK, linewidth=1.0, marker="o", markersize=3, zorder=4)
    return figure


def _twin_table(backbone: BackboneLocalizability, translate: Translator) -> Table:
    rows = [
        [
            f"{pair.location.lat:.5f}, {pair.location.lon:.5f}",
            f"{pair.twin_location.lat:.5f}, {pair.twin_location.lon:.5f}",
            f"{pair.distance_m:,.0f}",
            f"{pair.score:.4f}",
            f"{pair.margin:+.4f}",
        ]
        for pair in twin_pairs(backbone.places)
    ]
    columns = (
        translate("place"),
        translate("twin"),
        translate("metres apart"),
        translate("score"),
        translate("margin"),
    )
    return Table(columns, rows)


def _share_table(measured: Localizability, translate: Translator) -> Table:
    columns = [translate("backbone"), *(translate(EXCLUDED[name]) for name in EXCLUSIONS)]
    columns += [f"{angle:03d}°" for angle in measured.backbones[0].share_by_heading]
    rows = [
        [
            backbone.backbone,
            *(f"{backbone.shares[name]:.1%}" for name in EXCLUSIONS),
            *(f"{share:.1%}" for share in backbone.share_by_heading.values()),
        ]
        for backbone in measured.backbones
    ]
    return Table(columns, rows)


def _gain_table(measured: Localizability, translate: Translator) -> Table:
    columns = (translate("what"), translate("without"), translate("with"), translate("gain"), "n")
    rows = [
        [
            translate(gain.name),
            f"{gain.share_without:.1%}",
            f"{gain.share_with:.1%}",
            f"{(gain.share_with - gain.share_without) * 100:+.1f}",
            str(gain.queries),
        ]
        for gain in measured.gains
    ]
    return Table(columns, rows)


def _pictures(pairs: Sequence[TwinPair], ground: WindowSource, footprint_m: float, translate: Translator) -> str:
    """HTML of pairs of places side by side."""
    cells = []
    for pair in pairs:
        pictures = "".join(
            f'<figure class="tile"><img src="{uri}" alt="{html.escape(name)}"></figure>'
            for name, location in ((translate("place"), pair.location), (translate("twin"), pair.twin_location))
            if (uri := _view_uri(ground, location, footprint_m))
        )
        text = f"{pair.distance_m:,.0f} m, {pair.score:.3f} ({pair.margin:+.3f})"
        cells.append(f'<div class="pair"><div>{pictures}</div><div class="name">{html.escape(text)}</div></div>')
    return f'<div class="pairs">{"".join(cells)}</div>'


def _view_uri(ground: WindowSource, location: LonLat, footprint_m: float) -> str | None:
    try:
        window = ground.window(location, footprint_m, max(footprint_m / PICTURE_PX, ground.gsd_m))
    except CoarselocError:
        return None
    buffer = io.BytesIO()
    Image.fromarray(window.pixels).resize((PICTURE_PX, PICTURE_PX)).save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
