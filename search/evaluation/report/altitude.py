"""The altitude laboratory's report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coarseloc.i18n import Translator
from coarseloc.store.studies import CurvePoint
from search.evaluation.report import style
from search.evaluation.report.curves import Line, at, by_backbone, cosines, curve_table, percent
from search.evaluation.report.page import Section, Table
from search.evaluation.report.ways import compared, way_bars, way_table, ways_of
from search.evaluation.studies.altitude import CROPPED, CURVES, NEAREST, PYRAMID, SINGLE, levels
from search.evaluation.studies.strategies import recall_text
from search.evaluation.studies.study import StudyResult

TITLE = "Altitude laboratory: how stable are embeddings when the aircraft climbs?"
_SOME_RECALL = 0.05  # a recall whose interval reaches lower is too little to take nine tenths of


def sections(found: StudyResult, say: Translator, drawn: Translator) -> list[Section]:
    """`drawn` is the language inside the figures."""
    ways = list(CURVES)
    recall = [Line(f"recall@{CURVES[way]}", drawn(way), i, band=False) for i, way in enumerate(ways)]
    error = [Line(f"error@{CURVES[way]}", drawn(way), i, band=False) for i, way in enumerate(ways)]
    altitude = drawn("altitude of the frame, m")
    return [
        Section(
            "ways",
            say("Ways to be robust"),
            say(
                "The same places from every altitude. A pyramid holds references of several altitudes; a known altitude picks its nearest level, or crops a frame from above to what a reference shows. A place is right where the best reference's centre lies within half a footprint of the single altitude, whatever its own level; lines are 95 % intervals over places. Gains are points above a single altitude, paired by place, on the places that both can reach: the ceiling is the share of frames that could be right at all, given the references searched."
            ),
            partial(way_bars, found, drawn),
            table=way_table(found, say, heading=False),
            open=True,
        ),
        Section(
            "levels",
            say("What each level can reach"),
            say(
                "The ceiling is the share of places with a reference of this level whose centre lies within half a footprint of the single altitude: no search of the level can be right more often."
            ),
            table=_level_table(found, say),
            open=True,
        ),
        Section(
            "cosine",
            say("Global token: cosine against the altitude"),
            say(
                "Mean cosine of a place with itself as the references' altitude shows it. Dotted: its cosine with other places."
            ),
            partial(_cosines, found, drawn),
            table=curve_table(
                found,
                [("cosine", say("same place")), ("cosine_other", say("other places"))],
                say("altitude of the frame, m"),
                "{:.3f}",
            ),
        ),
        Section(
            "recall-by-altitude",
            say("Right place against the altitude"),
            say("The grey line is the altitude of the single-altitude index; dashed, the ceilings below 100 %."),
            partial(
                by_backbone,
                found,
                [*recall, *_ceilings(found, drawn)],
                altitude,
                drawn("right place"),
                partial(_percent_at, _base(found)),
            ),
            table=curve_table(
                found,
                [
                    (f"{what}@{CURVES[way]}", title.format(way=say(way)))
                    for what, title in (("recall", "{way}"), ("ceiling", say("{way}: ceiling")))
                    for way in ways
                ],
                say("altitude of the frame, m"),
                "{:.0%}",
            ),
        ),
        Section(
            "error-by-altitude",
            say("Error against the altitude"),
            say("Median over places. High levels lie on a wider grid: their nearest centre is further off."),
            partial(by_backbone, found, error, altitude, drawn("median error, m"), partial(_metres_at, _base(found))),
            table=curve_table(
                found, [(f"error@{CURVES[way]}", say(way)) for way in ways], say("altitude of the frame, m"), "{:.0f}"
            ),
        ),
    ]


def _ceilings(found: StudyResult, drawn: Translator) -> list[Line]:
    """The ceilings that bound a curve."""
    low = {p.curve for p in found.points if p.curve.startswith("ceiling@") and p.y is not None and p.y < 1.0}
    return [
        Line(f"ceiling@{CURVES[way]}", drawn("{way}: ceiling").format(way=drawn(way)), 0, muted=True, band=False)
        for way in CURVES
        if f"ceiling@{CURVES[way]}" in low
    ]


def _level_table(found: StudyResult, say: Translator) -> Table:
    limits = found.study.findings.get("limits")
    rows = []
    for i, (altitude, count) in enumerate(levels(found)):
        reach = (
            [f"{limits['ceilings'][i]:.1%}", f"{limits['floors_m'][i]:.0f}"] if limits else [say("not recorded")] * 2
        )
        rows.append([f"{altitude:g} m", str(count), *reach, str(found.study.findings["frames"])])
    columns = (say("level"), say("references"), say("ceiling"), say("nearest reference, median m"), "n")
    return Table(columns, rows)


def _cosines(found: StudyResult, say: Translator) -> Figure:
    return cosines(found, say("altitude of the frame, m"), say, partial(_mark, _base(found)))


def _base(found: StudyResult) -> float:
    return float(found.study.parameters["reference_m"])


def _mark(altitude: float, ax: Axes) -> None:
    ax.axvline(altitude, color=style.MUTED, linewidth=1)


def _percent_at(altitude: float, ax: Axes) -> None:
    _mark(altitude, ax)
    percent(ax)


def _metres_at(altitude: float, ax: Axes) -> None:
    _mark(altitude, ax)
    ax.set_ylim(bottom=0)


# --- words --------------------------------------------------------------------------------------


def findings(found: StudyResult, say: Translator) -> list[str]:
    """A paragraph for each backbone, written from its numbers."""
    return [_finding(found, backbone, say) for backbone in found.backbones]


def _finding(found: StudyResult, backbone: str, say: Translator) -> str:
    base = _base(found)
    altitudes = found.study.parameters["altitudes_m"]
    low, high = min(altitudes), max(altitudes)
    recall = found.curve(backbone, "recall@single")
    ways = ways_of(found, backbone)
    lines = [
        say("{name}: an index at {base} m finds the right place for {own} of the frames at its own altitude, for {low_share} at {low} m and {high_share} at {high} m.").format(
            name=backbone, base=f"{base:g}", own=f"{at(recall, base):.0%}", low=f"{low:g}", high=f"{high:g}",
            low_share=f"{at(recall, low):.0%}", high_share=f"{at(recall, high):.0%}",
        ),
        say("Over all altitudes a pyramid of {levels} m finds {pyramid} instead of {single}, for {times} times the index; with the altitude known, its nearest level finds {nearest}, and cropping the frame finds {cropped} with the single index.").format(
            levels=", ".join(f"{a:g}" for a in found.study.parameters["pyramid_m"]), pyramid=recall_text(ways[PYRAMID]),
            single=recall_text(ways[SINGLE]), times=f"{ways[PYRAMID]['index_bytes'] / ways[SINGLE]['index_bytes']:.2f}",
            nearest=recall_text(ways[NEAREST]), cropped=recall_text(ways[CROPPED]),
        ),
        say("Against a single altitude, on the places that both can reach: {parts}.").format(
            parts=compared([ways[name] for name in (PYRAMID, NEAREST, CROPPED)], say)
        ),
    ]  # fmt: skip
    if kept := _kept(recall, base):
        lines.insert(
            1,
            say("It keeps nine tenths of that from {first} to {last} m.").format(
                first=f"{kept[0]:g}", last=f"{kept[1]:g}"
            ),
        )
    return " ".join(lines)


def _kept(recall: Sequence[CurvePoint], base: float) -> tuple[float, float] | None:
    """The altitudes around the base, without a gap, that keep nine tenths of its recall; None where that may be nothing."""
    at_base = [point.x for point in recall].index(base)
    if (recall[at_base].low or 0.0) < _SOME_RECALL:
        return None
    bound = 0.9 * (recall[at_base].y or 0.0)
    first = last = at_base
    while first > 0 and (recall[first - 1].y or 0.0) >= bound:
        first -= 1
    while last < len(recall) - 1 and (recall[last + 1].y or 0.0) >= bound:
        last += 1
    return recall[first].x, recall[last].x
