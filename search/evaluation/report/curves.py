"""Charts and tables of a study's curves, a line for each backbone or a small chart for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from coarseloc.i18n import Translator
from coarseloc.store.studies import CurvePoint
from search.evaluation.report import style
from search.evaluation.report.page import Table
from search.evaluation.studies.study import StudyResult


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a small chart: which curve, its name, its place among the series."""

    curve: str
    name: str
    index: int
    muted: bool = False
    band: bool = True  # its interval is shown


def by_backbone(
    found: StudyResult, lines: Sequence[Line], xlabel: str, ylabel: str, finish: Callable[[Axes], None] | None = None
) -> Figure:
    """A small chart for each backbone with the same lines."""
    made, axes = style.small_multiples(len(found.backbones), 2.5 if len(found.backbones) > 1 else 3.2)
    for ax, backbone in zip(axes, found.backbones, strict=True):
        for line in lines:
            points = found.curve(backbone, line.curve)
            if points:
                curve(ax, points, line)
        ax.set_title(backbone)
    for ax in axes:  # after all lines: they share their scales
        if finish:
            finish(ax)
    handles, labels = axes[0].get_legend_handles_labels()
    roomy = sum(len(label) + 8 for label in labels) < 105
    made.legend(handles, labels, loc="outside upper left", ncols=len(labels) if roomy else 2, fontsize=9)
    made.supxlabel(xlabel, fontsize=10)
    made.supylabel(ylabel, fontsize=10)
    return made


def cosines(found: StudyResult, xlabel: str, say: Translator, finish: Callable[[Axes], None]) -> Figure:
    """A line for each backbone of a place with itself, and a dotted one of it with others."""
    made, (ax,) = style.figure(height_in=3.4)
    dotted: dict[str, Any] = {"linestyle": (0, (1, 2)), "linewidth": 1.4}
    for i, backbone in enumerate(found.backbones):
        curve(ax, found.curve(backbone, "cosine"), Line("cosine", backbone, i))
        others = found.curve(backbone, "cosine_other")
        curve(ax, others, Line("cosine_other", "_", i, band=False), **dotted, marker="")
    ax.plot([], [], color=style.MUTED, label=say("other places"), **dotted)
    finish(ax)
    ax.set(xlabel=xlabel, ylabel=say("cosine"))
    style.legend_above(ax)
    return made


def curve(ax: Axes, points: Sequence[CurvePoint], line: Line, **other: Any) -> None:
    """A line with its interval as a band; `other` overrides how the line looks."""
    x = [p.x for p in points]
    y, low, high = (np.array([or_nan(getattr(p, name)) for p in points]) for name in ("y", "low", "high"))
    look = ({"color": style.MUTED, "linestyle": (0, (2, 2))} if line.muted else style.line(line.index)) | other
    if len(x) > 2 and math.isclose(x[-1] + x[1] - x[0], 360.0):  # all the way round
        x, (y, low, high) = [*x, 360.0], (np.append(values, values[0]) for values in (y, low, high))
    ax.plot(x, y, label=line.name, markevery=max(1, len(x) // 8), **look)
    if line.band and not np.isnan(low).all():
        ax.fill_between(x, low, high, color=look["color"], alpha=0.15, linewidth=0)


def curve_table(found: StudyResult, curves: Sequence[tuple[str, str]], first: str, form: str) -> Table:
    """A row per backbone and curve (its key, its name), a column per x."""
    xs = sorted({p.x for p in found.points if p.curve == curves[0][0]})
    rows = []
    for backbone in found.backbones:
        for key, name in curves:
            points = {p.x: p for p in found.curve(backbone, key)}
            if points:
                cells = [form.format(points[x].y) if x in points and points[x].y is not None else "–" for x in xs]
                rows.append([f"{backbone}, {name}", *cells, str(max(p.n for p in points.values()))])
    return Table([first, *(f"{x:g}" for x in xs), "n"], rows)


def percent(ax: Axes) -> None:
    ax.set_ylim(-0.03, 1.05)
    ax.yaxis.set_major_formatter(PercentFormatter(1))


def at(points: Sequence[CurvePoint], x: float) -> float:
    """The curve's value at x, nan where it has none."""
    return next((or_nan(p.y) for p in points if math.isclose(p.x, x)), math.nan)


def or_nan(value: float | None) -> float:
    return math.nan if value is None else value
