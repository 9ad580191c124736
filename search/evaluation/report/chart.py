"""A chart as data: series in panels. A report draws it by matplotlib, a page where one can hover and click."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib.axis
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from coarseloc.core.types import Floats
from search.evaluation.report import style

_DOTS = 500  # of a scatter on paper, for each series: more overlap
_MARKED_POINTS = 12  # points of a line that are marked one by one

SeriesForm = Literal["line", "points", "steps"]


@dataclass(frozen=True, eq=False)
class Series:
    """Points of one kind, [N] each; nan where unknown."""

    label: str  # empty: in no legend
    index: int  # its colour, marker and dash
    x: Floats
    y: Floats
    form: SeriesForm = "line"
    low: Floats | None = None  # the ends of y's interval
    high: Floats | None = None
    frames: NDArray[np.int64] | None = None  # the frame that each point is of
    run: int | None = None  # the run that it is of
    muted: bool = False  # grey: what others are compared with
    dotted: bool = False  # in its colour: what it is compared with


@dataclass(frozen=True, slots=True)
class Axis:
    label: str
    logarithmic: bool = False
    percent: bool = False
    ends: tuple[float, float] | None = None  # of its scale; as the points need by default
    ticks: Sequence[float] = ()  # where the scale is marked; anywhere by default
    names: Sequence[str] = ()  # of rows at 0, 1, 2 … from the top, in place of numbers


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    series: Sequence[Series]


@dataclass(frozen=True, slots=True)
class Chart:
    """Panels with common scales."""

    x: Axis
    y: Axis
    panels: Sequence[Panel]


def draw(chart: Chart) -> Figure:
    """The chart on paper; panels up to three in a row."""
    count = len(chart.panels)
    if count > 2:
        figure, axes = style.small_multiples(count)
        figure.supxlabel(chart.x.label, fontsize=10)
        figure.supylabel(chart.y.label, fontsize=10)
    else:
        figure, axes = style.new_figure(1, count, 3.6, sharex=True, sharey=True)
        axes[0].set_ylabel(chart.y.label)
        for ax in axes:
            ax.set_xlabel(chart.x.label)
    for ax, panel in zip(axes, chart.panels, strict=True):
        for series in panel.series:
            _plot(ax, series)
        ax.set_title(panel.title)
    for ax in axes:  # when all is plotted: they share their scales
        _scale(ax.xaxis, chart.x)
        _scale(ax.yaxis, chart.y)
    labelled, labels = max(((ax, ax.get_legend_handles_labels()[1]) for ax in axes), key=lambda entry: len(entry[1]))
    if labels and any(len(panel.series) > 1 for panel in chart.panels):
        style.legend_above(labelled)
    return figure


def _plot(ax: Axes, series: Series) -> None:
    look: dict[str, Any] = style.line(series.index)
    if series.form == "points":
        sampled = slice(None, None, max(1, len(series.x) // _DOTS))
        dots: dict[str, Any] = (
            {"marker": "x", "color": style.INK} if series.muted else {"marker": look["marker"], "color": look["color"]}
        )
        ax.plot(
            series.x[sampled],
            series.y[sampled],
            linestyle="none",
            markersize=2.5,
            alpha=0.6,
            label=series.label,
            **dots,
        )
        return
    if series.muted:
        look = {"color": style.MUTED, "linestyle": "-", "linewidth": 1.2}
    elif series.dotted:
        look |= {"marker": "", "linestyle": (0, (1, 2)), "linewidth": 1.4}
    elif len(series.x) >= _MARKED_POINTS:
        look["marker"] = ""
    ax.plot(
        series.x, series.y, label=series.label,
        drawstyle="steps-post" if series.form == "steps" else "default", **look,
    )  # fmt: skip
    if series.low is not None and series.high is not None:
        ax.fill_between(series.x, series.low, series.high, color=look["color"], alpha=0.15, linewidth=0)


def _scale(scale: matplotlib.axis.Axis, axis: Axis) -> None:
    if axis.logarithmic:
        style.logarithmic(scale)
    elif axis.percent:
        scale.set_major_formatter(PercentFormatter(1))
    elif axis.ticks:
        scale.set_ticks(list(axis.ticks))
    else:
        scale.set_major_locator(MaxNLocator(5))
    if axis.ends:
        is_x = scale is scale.axes.xaxis
        (scale.axes.set_xlim if is_x else scale.axes.set_ylim)(*axis.ends)
