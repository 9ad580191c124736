"""Charts and tables of a study: its curves, a line or a small chart for each backbone, and its strategies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from coarseloc.core.types import Floats
from coarseloc.i18n import Translator
from coarseloc.store.studies import CurvePoint
from search.evaluation.report import style
from search.evaluation.report.chart import Axis, Chart, Panel, Series
from search.evaluation.report.page import Table
from search.evaluation.studies.strategies import StrategyRecord, ceiling_text, gain_sign, gain_text, recall_text
from search.evaluation.studies.study import StudyResult


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart: the key of its curve, its label, its index among the series."""

    curve: str
    name: str
    index: int
    muted: bool = False
    band: bool = True  # whether its interval is drawn
    dotted: bool = False


def plot_by_backbone(
    result: StudyResult, lines: Sequence[Line], xlabel: str, ylabel: str, finish: Callable[[Axes], None] | None = None
) -> Figure:
    """Plot the same lines in a small chart for each backbone."""
    figure, axes = style.small_multiples(len(result.backbones), 2.5 if len(result.backbones) > 1 else 3.2)
    for ax, backbone in zip(axes, result.backbones, strict=True):
        for line in lines:
            points = result.curve(backbone, line.curve)
            if points:
                plot_curve(ax, points, line)
        ax.set_title(backbone)
    for ax in axes:  # after all lines: they share their scales
        if finish:
            finish(ax)
    handles, labels = axes[0].get_legend_handles_labels()
    roomy = sum(len(label) + 8 for label in labels) < 105
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels) if roomy else 2, fontsize=9)
    figure.supxlabel(xlabel, fontsize=10)
    figure.supylabel(ylabel, fontsize=10)
    return figure


def chart_by_backbone(result: StudyResult, lines: Sequence[Line], x: Axis, y: Axis) -> Chart:
    """The same lines in a panel for each backbone."""
    panels = []
    for backbone in result.backbones:
        curves = [(line, result.curve(backbone, line.curve)) for line in lines]
        panels.append(Panel(backbone, [_series(points, line) for line, points in curves if points]))
    return Chart(x, y, panels)


def cosine_chart(result: StudyResult, x: Axis, translate: Translator) -> Chart:
    """A line for each backbone of a place with itself, and a muted one of it with others."""
    series = []
    for i, backbone in enumerate(result.backbones):
        series.append(_series(result.curve(backbone, "cosine"), Line("cosine", backbone, i)))
        elsewhere = f"{backbone}, {translate('other places')}"
        series.append(
            _series(result.curve(backbone, "cosine_other"), Line("cosine_other", elsewhere, i, band=False, dotted=True))
        )
    return Chart(x, Axis(translate("cosine")), [Panel("", series)])


def _series(points: Sequence[CurvePoint], line: Line) -> Series:
    x = np.array([point.x for point in points])
    y, low, high = (np.array([or_nan(getattr(point, name)) for point in points]) for name in ("y", "low", "high"))
    if _goes_round(x):
        x, (y, low, high) = np.append(x, 360.0), (np.append(values, values[0]) for values in (y, low, high))
    banded = line.band and not np.isnan(low).all()
    return Series(
        line.name, line.index, x, y, low=low if banded else None, high=high if banded else None,
        muted=line.muted, dotted=line.dotted,
    )  # fmt: skip


def _goes_round(x: Sequence[float] | Floats) -> bool:
    """Whether turns are known all the way round."""
    return len(x) > 2 and math.isclose(x[-1] + x[1] - x[0], 360.0)


def plot_cosines(result: StudyResult, xlabel: str, translate: Translator, finish: Callable[[Axes], None]) -> Figure:
    """Plot a line for each backbone of a place with itself, and a dotted one of it with others."""
    figure, (ax,) = style.new_figure(height_in=3.4)
    dotted: dict[str, Any] = {"linestyle": (0, (1, 2)), "linewidth": 1.4}
    for i, backbone in enumerate(result.backbones):
        plot_curve(ax, result.curve(backbone, "cosine"), Line("cosine", backbone, i))
        points = result.curve(backbone, "cosine_other")
        plot_curve(ax, points, Line("cosine_other", "_", i, band=False), **dotted, marker="")
    ax.plot([], [], color=style.MUTED, label=translate("other places"), **dotted)
    finish(ax)
    ax.set(xlabel=xlabel, ylabel=translate("cosine"))
    style.legend_above(ax)
    return figure


def plot_curve(ax: Axes, points: Sequence[CurvePoint], line: Line, **overrides: Any) -> None:
    """Plot a line with its interval as a band; `overrides`: matplotlib's options of the line."""
    x = [p.x for p in points]
    y, low, high = (np.array([or_nan(getattr(p, name)) for p in points]) for name in ("y", "low", "high"))
    style_options = (
        {"color": style.MUTED, "linestyle": (0, (2, 2))} if line.muted else style.line(line.index)
    ) | overrides
    if line.dotted:
        style_options |= {"linestyle": (0, (1, 2)), "linewidth": 1.4, "marker": ""}
    if _goes_round(x):
        x, (y, low, high) = [*x, 360.0], (np.append(values, values[0]) for values in (y, low, high))
    ax.plot(x, y, label=line.name, markevery=max(1, len(x) // 8), **style_options)
    if line.band and not np.isnan(low).all():
        ax.fill_between(x, low, high, color=style_options["color"], alpha=0.15, linewidth=0)


def curve_table(result: StudyResult, curves: Sequence[tuple[str, str]], first: str, form: str) -> Table:
    """A row per backbone and curve (its key, its name), a column per x."""
    xs = sorted({p.x for p in result.points if p.curve == curves[0][0]})
    rows = []
    for backbone in result.backbones:
        for key, name in curves:
            points = {p.x: p for p in result.curve(backbone, key)}
            if points:
                cells = [form.format(points[x].y) if x in points and points[x].y is not None else "–" for x in xs]
                rows.append([f"{backbone}, {name}", *cells, str(max(p.n for p in points.values()))])
    return Table([first, *(f"{x:g}" for x in xs), "n"], rows)


def percent_axis(ax: Axes) -> None:
    ax.set_ylim(-0.03, 1.05)
    ax.yaxis.set_major_formatter(PercentFormatter(1))


def value_at(points: Sequence[CurvePoint], x: float) -> float:
    """The curve's value at x, nan where it has none."""
    return next((or_nan(p.y) for p in points if math.isclose(p.x, x)), math.nan)


def or_nan(value: float | None) -> float:
    return math.nan if value is None else value


# --- strategies ---------------------------------------------------------------------------------


def strategies_of(result: StudyResult, backbone: str) -> dict[str, StrategyRecord]:
    """{name: record} of a backbone's strategies, in their order."""
    return {record["name"]: record for record in result.study.findings["ways"][backbone]}


def plot_strategies(result: StudyResult, translate: Translator) -> Figure:
    """Plot the recall of each strategy with its interval: a group of bars for each strategy, a bar for each backbone."""
    names = [record["name"] for record in result.study.findings["ways"][result.backbones[0]]]
    count = len(result.backbones)
    figure, (ax,) = style.new_figure(height_in=0.9 + 0.26 * len(names) * max(1.6, count))
    for b, backbone in enumerate(result.backbones):
        strategies = strategies_of(result, backbone)
        y = np.arange(len(names)) + (b - (count - 1) / 2) * 0.8 / count
        recall = np.array([strategies[name]["recall"] for name in names], float)
        low, high = (np.array([strategies[name][end] for name in names], float) for end in ("low", "high"))
        interval = np.maximum(np.nan_to_num([recall - low, high - recall]), 0)  # studies of before end at 1 - 1e-16
        ax.barh(y, recall, height=0.72 / count, color=style.colour(b), label=backbone)
        ax.errorbar(recall, y, xerr=interval, linestyle="none", color=style.INK, linewidth=1, capsize=2)
    ax.set_yticks(range(len(names)), [translate(name) for name in names])
    ax.invert_yaxis()
    ax.set_xlim(0, 1.04)
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.set_xlabel(translate("right place"))
    ax.grid(axis="y", visible=False)
    if count > 1:
        style.legend_above(ax)
    return figure


def strategy_table(result: StudyResult, translate: Translator, *, heading: bool = True) -> Table:
    """The strategies of each backbone in numbers; `heading`: whether they answer one."""
    error_keys = ("error_m", "heading_error_deg") if heading else ("error_m",)
    rows = []
    for backbone in result.backbones:
        for record in strategies_of(result, backbone).values():
            rows.append(
                [translate(record["name"]), backbone, recall_text(record, "\n{low}, {high}"), ceiling_text(record) or translate("not recorded"),
                 gain_text(record, "\n{low}, {high}"), _gain_n(record, translate),
                 *("–" if record[key] is None else f"{record[key]:.1f}" for key in error_keys),
                 f"{record['embed_ms']:.2f}", f"{record['search_ms']:.3f}", f"{record['embed_ms'] + record['search_ms']:.2f}",
                 f"{record['index_bytes'] / 1e6:.2f}", _counts(record)]
            )  # fmt: skip
    error_columns = (
        (translate("median error, m"), translate("heading error, °")) if heading else (translate("median error, m"),)
    )
    cost_columns = (
        translate("embed, ms"),
        translate("search, ms"),
        translate("embed + search, ms"),
        translate("index, MB"),
    )
    gain_columns = translate("gain"), translate("n of the gain")
    columns = (
        translate("way"),
        translate("backbone"),
        translate("right place"),
        translate("ceiling"),
        *gain_columns,
        *error_columns,
        *cost_columns,
        "n",
    )
    return Table(columns, rows)


def _counts(record: StrategyRecord) -> str:
    """The number of frames, and n_eff where it is fewer."""
    n_eff = record.get("n_eff")  # studies of earlier versions store none
    is_plain = record["low"] is None or n_eff is None or n_eff == record["n"]  # `recall_text` holds n_eff, or n does
    return str(record["n"]) if is_plain else f"{record['n']} (n_eff {n_eff:.0f})"


def _gain_n(record: StrategyRecord, translate: Translator) -> str:
    return "–" if record["gain"] is None else str(record.get("gain_n") or translate("not recorded"))


def compare_text(records: Sequence[StrategyRecord], translate: Translator) -> str:
    """Compare each strategy with the baseline on the same frames: more or less only where the interval excludes zero."""
    texts = {
        None: translate("{way} shares no frame with it that both can reach"),
        -1: translate("{way} finds less ({gain} points)"),
        0: translate("{way} is not told apart from it ({gain} points)"),
        1: translate("{way} finds more ({gain} points)"),
    }
    return "; ".join(
        texts[None if record["gain"] is None else gain_sign(record)].format(
            way=translate(record["name"]), gain=gain_text(record)
        )
        for record in records
    )
