"""The report of a truth check: labels that the imagery contradicts, on a map, and what explains them together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coarseloc.core import geo
from coarseloc.core.types import BBox, Floats, LonLat, Progress
from coarseloc.core.windows import WindowSource
from coarseloc.i18n import Translator
from coarseloc.i18n.messages import message_translator
from search.evaluation.report import style
from search.evaluation.report.ground_map import GroundDrawing
from search.evaluation.report.page import Page, Section, Table, figures_translator, write_page
from search.evaluation.truth_check import VERDICTS, CheckedFrame, TruthCheck

TITLE = "Labels held against the imagery"
VERDICT_TEXTS = {
    "not contradicted": "not contradicted",
    "contradicted": "contradicted",
    "cannot say": "cannot say",
}
_COLOURS = {"not contradicted": style.SERIES[2], "contradicted": style.SERIES[1], "cannot say": style.SERIES[5]}
_MARKERS = {"not contradicted": "o", "contradicted": "X", "cannot say": "s"}
_ROWS = 20
_LEAST_BOX_M = 300.0
_FAR_M = 50_000.0  # labels farther from the imagery than this are not on one map with it


def write_truth_check(
    check: TruthCheck,
    ground: WindowSource | None,
    out: Path,
    *,
    language: str = "en",
    figures: Path | None = None,
    note: str | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Write it as one HTML file; returns notices. ground: the references' map, None where its files are gone."""
    translate = message_translator(language)
    translate_figure, notices = figures_translator(language, figures)
    page = Page(
        title=f"{translate(TITLE)}: {check.flight.flight_id}",
        lead=findings(check, translate),
        facts=[
            (translate("truth"), check.flight.truth_source),
            (translate("witnesses"), ", ".join(check.witnesses) or "–"),
        ],
        sections=_sections(check, ground, translate, translate_figure),
        warnings=[*([note] if note else []), *off_map_texts(check, translate)],
        language=language,
        translate=translate,
    )
    write_page(page, out, figures, progress)
    return notices


def findings(check: TruthCheck, translate: Translator) -> list[str]:
    """The result in sentences."""
    counts = check.counts
    texts = [
        translate(
            "Of {n} frames the imagery does not contradict {right} labels and contradicts {wrong}; of {unknown} it cannot say."
        ).format(
            n=len(check.frames), right=counts["not contradicted"], wrong=counts["contradicted"], unknown=counts["cannot say"]
        )
    ]  # fmt: skip
    if not check.explanations:
        texts.append(
            translate("Too few frames have a confident fix to look for shifts, another time or exchanged axes.")
        )
    for explanation in check.accepted:
        template = (
            translate(
                "The flight does not tell it apart from this: {sentence} ({before} m becomes {after} m in the median)."
            )
            if explanation.tied
            else translate(
                "What explains the labels: {sentence} ({before} m becomes {after} m in the median, {n} frames)."
            )
        )
        texts.append(
            template.format(
                sentence=explanation.sentence(translate), n=explanation.frames,
                before=_metres(check.explanations[0].median_m), after=_metres(explanation.median_m),
            )
        )  # fmt: skip
    constant = [leg for leg in check.legs if leg.constant]
    if constant and not check.accepted:
        texts.append(
            translate("On {n} of {legs} legs the labels are off by a constant, see the table.").format(
                n=len(constant), legs=len(check.legs)
            )
        )
    if (heading := check.heading) is not None:
        if heading.mirrored:
            texts.append(translate("The labels' yaws count counterclockwise ({n} frames).").format(n=heading.frames))
        elif abs(heading.median_deg) > max(3 * heading.scatter_deg, 2.0):
            texts.append(
                translate(
                    "The imagery's headings lie {angle}° clockwise of the labels' yaws (scatter {scatter}°, {n} frames)."
                ).format(
                    angle=f"{heading.median_deg:+.1f}", scatter=f"{heading.scatter_deg:.1f}", n=heading.frames
                )
            )  # fmt: skip
    return texts


def off_map_texts(check: TruthCheck, translate: Translator) -> list[str]:
    """That labels lie off the references; empty where they do not."""
    if not check.off_map:
        return []
    text = translate(
        "{n} labels lie where no reference shows the ground, the nearest centre {distance} away: is it the right map?"
    )
    return [text.format(n=check.off_map, distance=geo.distance_text(check.nearest_m or 0.0))]


def _metres(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _sections(
    check: TruthCheck, ground: WindowSource | None, translate: Translator, translate_figure: Translator
) -> list[Section]:
    sections = []
    box = _box(check)
    if box is not None:
        sections.append(
            Section(
                "map",
                translate("Map"),
                translate(
                    "Labels in their order as a line; where a deciding witness puts frames, joined to their labels."
                ),
                partial(_plot_map, check, GroundDrawing(box, ground), translate_figure),
            )
        )
    sections.append(
        Section(
            "distances",
            translate("Distance from the label, frame by frame"),
            translate("Of the witness that decides; the line is what it may be off. Without one there is no mark."),
            partial(_plot_distances, check, translate_figure),
        )
    )
    if check.explanations:
        sections.append(
            Section(
                "explanations",
                translate("Could all labels be wrong together?"),
                translate("Labels undone in each way, against where the imagery puts the frames."),
                table=_explanation_table(check, translate),
                open=True,
            )
        )
    if check.legs:
        sections.append(
            Section(
                "legs",
                translate("Legs"),
                translate(
                    "Medians of what the imagery lies beyond the labels, by the estimator of `coarseloc boresight`."
                ),
                table=_leg_table(check, translate),
                open=True,
            )
        )
    order = {verdict: number for number, verdict in enumerate(("contradicted", "cannot say", "not contradicted"))}
    rows = sorted(check.frames, key=lambda checked: order[checked.verdict])
    sections.append(
        Section(
            "frames",
            translate("Frames"),
            table=_frame_table(rows[:_ROWS], translate),
            open=True,
            full_table=_frame_table(rows, translate) if len(rows) > _ROWS else None,
        )
    )
    return sections


def _points(check: TruthCheck) -> tuple[Floats, Floats]:
    """([F, 2] labels, [W, 2] deciding witnesses), lon and lat."""
    labels = [c.frame.truth.location for c in check.frames if c.frame.truth.location]
    testified = [t.location for c in check.frames for t in c.testimonies if t.decides]
    return np.array(labels, np.float64).reshape(-1, 2), np.array(testified, np.float64).reshape(-1, 2)


def _box(check: TruthCheck) -> BBox | None:
    """Around what the imagery says and the labels near it; around the labels alone where it says nothing."""
    labels, testified = _points(check)
    if len(testified) and len(labels):
        middle = np.median(testified, axis=0)
        labels = labels[geo.distance_m(*labels.T, *middle) < _FAR_M]
    points = np.concatenate([labels, testified]) if len(testified) else labels
    if not len(points):
        return None
    box = geo.bounds(*points.T)
    return geo.square(geo.box_center(box), max(*geo.box_size_m(box), _LEAST_BOX_M) * 1.1)


def _plot_map(check: TruthCheck, drawing: GroundDrawing, translate: Translator) -> Figure:
    figure, ax = drawing.figure(translate)
    labels, _ = _points(check)
    if len(labels):
        ax.plot(*drawing.metres(*labels.T), color=style.INK, linewidth=1.0, zorder=3, label=translate("labels"))
    for verdict in VERDICTS:
        testified = []
        for checked in check.frames:
            main = next((t for t in checked.testimonies if t.decides), None)
            if checked.verdict != verdict or main is None:
                continue
            testified.append(main.location)
            _join(drawing, ax, checked, main.location)
        if testified:
            ax.plot(
                *drawing.metres(*np.array(testified).T), linestyle="none", marker=_MARKERS[verdict], color=_COLOURS[verdict],
                markeredgecolor="white", markersize=6, zorder=5, label=translate(VERDICT_TEXTS[verdict]),
            )  # fmt: skip
    if ax.get_legend_handles_labels()[1]:
        style.legend_above(ax)
    return figure


def _join(drawing: GroundDrawing, ax: Axes, checked: CheckedFrame, location: LonLat) -> None:
    label = checked.frame.truth.location
    if label is not None:
        line = np.array([label, location])
        ax.plot(*drawing.metres(*line.T), color=_COLOURS[checked.verdict], linewidth=1.0, zorder=4)


def _plot_distances(check: TruthCheck, translate: Translator) -> Figure:
    figure, (ax,) = style.new_figure(height_in=2.8)
    tolerances: list[tuple[int, float]] = []
    for verdict in VERDICTS:
        points = []
        for number, checked in enumerate(check.frames):
            main = next((t for t in checked.testimonies if t.decides and t.distance_m is not None), None)
            if checked.verdict == verdict and main is not None:
                points.append((number, max(main.distance_m or 0.0, 0.01)))
                tolerances.append((number, main.tolerance_m))
        if points:
            ax.plot(
                *np.array(points).T, linestyle="none", marker=_MARKERS[verdict], color=_COLOURS[verdict],
                label=translate(VERDICT_TEXTS[verdict]),
            )  # fmt: skip
    if tolerances:
        ax.plot(*np.array(sorted(tolerances)).T, color=style.MUTED, linewidth=1.0, label=translate("tolerance"))
        style.logarithmic(ax.yaxis)
        style.legend_above(ax)
    ax.set_xlim(-1, len(check.frames))
    ax.set_xlabel(translate("frame in the flight's order"))
    ax.set_ylabel(translate("metres"))
    return figure


def _explanation_table(check: TruthCheck, translate: Translator) -> Table:
    columns = (translate("what"), translate("median, m"), translate("within tolerance"), translate("holds"), "n")
    rows = [
        [
            explanation.sentence(translate),
            _metres(explanation.median_m),
            f"{explanation.share_within:.0%}",
            translate("tied") if explanation.tied else translate("yes") if explanation.accepted else "–",
            str(explanation.frames),
        ]
        for explanation in check.explanations
    ]
    return Table(columns, rows, frozenset(n for n, e in enumerate(check.explanations) if e.accepted))


def _leg_table(check: TruthCheck, translate: Translator) -> Table:
    columns = (
        translate("frames"), translate("heading"), translate("east, m"), translate("north, m"), translate("right, m"),
        translate("forward, m"), "± m", "pitch °", "roll °", translate("constant"), "n",
    )  # fmt: skip
    rows = [
        [
            f"{leg.first}–{leg.last}", f"{leg.heading_deg:.0f}",
            *(f"{value:+,.2f}" for value in (leg.east_m, leg.north_m, leg.right_m, leg.forward_m)), f"{leg.sd_m:.2f}",
            *(("–", "–") if leg.boresight is None else (f"{leg.boresight.pitch_deg:+.2f}", f"{leg.boresight.roll_deg:+.2f}")),
            translate("yes") if leg.constant else "–", str(leg.frames),
        ]
        for leg in check.legs
    ]  # fmt: skip
    return Table(columns, rows, frozenset(n for n, leg in enumerate(check.legs) if leg.constant))


def _frame_table(frames: Sequence[CheckedFrame], translate: Translator) -> Table:
    columns = (
        translate("frame"),
        translate("verdict"),
        translate("metres off"),
        translate("heading off, °"),
        translate("why"),
    )
    rows = []
    for checked in frames:
        main = next((t for t in checked.testimonies if t.decides), None)
        rows.append([
            f"{checked.frame.index} {checked.frame.relative_path}",
            translate(VERDICT_TEXTS[checked.verdict]),
            "–" if main is None or main.distance_m is None else f"{main.distance_m:,.1f}",
            "–" if checked.heading_off_deg is None else f"{checked.heading_off_deg:+.1f}",
            translate(checked.reason),
        ])  # fmt: skip
    return Table(columns, rows, frozenset(n for n, c in enumerate(frames) if c.verdict == "contradicted"))
