"""How figures look: one palette that reads in light and dark and to the colour-blind; figures to inline SVG.

Figures are drawn in the light palette. For a page every colour becomes a CSS variable, so that the same SVG follows
the reader's colour scheme; for files they stay as they are, on white.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib import colors, font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from coarseloc.core import files

INK, MUTED, GRID = "#1b1f23", "#5f6b76", "#dde2e7"
# Okabe and Ito's hues, darkened until each stands 3:1 against white; shapes and dashes say the same again.
SERIES = ("#0072b2", "#c44e00", "#007a5a", "#a3479a", "#8a6d00", "#3d4f5c", "#c2003f", "#5d4fd6")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (7, 2, 1.5, 2)), (0, (4, 1)), (0, (1, 1)))
WIDTH_IN = 7.6
_VARIABLES = {INK: "currentColor", MUTED: "var(--muted)", GRID: "var(--grid)"} | {
    colour: f"var(--s{i})" for i, colour in enumerate(SERIES)
}
_HANGUL = ("Noto Sans CJK KR", "Noto Sans KR", "NanumGothic", "Malgun Gothic", "Apple SD Gothic Neo", "UnDotum")

_RC: dict[str, Any] = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",  # text stays text: readable to machines, in the page's own font
    "axes.unicode_minus": False,
}


@contextmanager
def drawing() -> Iterator[None]:
    """The house style, for as long as figures are drawn and saved."""
    families = ["DejaVu Sans"]
    if name := hangul_font():
        families.append(name)
    settings: Any = _RC | {"font.family": families}
    with rc_context(settings):
        yield


@cache
def hangul_font() -> str | None:
    """A font on this machine that has Korean letters, None where there is none: PNG files need it, pages do not."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return next((name for name in _HANGUL if name in installed), None)


def new_figure(rows: int = 1, columns: int = 1, height_in: float = 3.4, **options: Any) -> tuple[Figure, list[Axes]]:
    """A new figure as wide as the page, and its axes in reading order."""
    figure = Figure(figsize=(WIDTH_IN, height_in))
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.flat)


def small_multiples(count: int, height_in: float = 2.1, **options: Any) -> tuple[Figure, list[Axes]]:
    """`count` small axes, up to three in a row, with shared scales; spare ones are removed."""
    columns = min(3, count)
    rows = -(-count // columns)
    figure, axes = new_figure(rows, columns, height_in * rows + 0.4, sharex=True, sharey=True, **options)
    for spare in axes[count:]:
        spare.remove()
    for i, ax in enumerate(axes[:count]):
        ax.tick_params(labelbottom=i + columns >= count)
    return figure, axes[:count]


def logarithmic(axis: Axis, form: str = "{x:,g}") -> None:
    """A logarithmic axis with plain numbers, at 1, 2 and 5 where it spans little."""
    (axis.axes.set_xscale if axis is axis.axes.xaxis else axis.axes.set_yscale)("log")
    low, high = sorted(axis.get_view_interval())
    narrow = high / max(low, 1e-9) < 200
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
    axis.set_major_formatter(form)
    axis.set_minor_formatter(NullFormatter())


def legend_above(ax: Axes, columns: int = 4) -> None:
    """One legend above all axes of a figure, as wide as the figure."""
    handles, labels = ax.get_legend_handles_labels()
    figure = cast(Figure, ax.figure)
    figure.legend(handles, labels, loc="outside upper left", ncols=min(columns, len(labels)), fontsize=9)


def label_points(ax: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Write a name beside each (x, y), moved where it would cover another name or point. Call it when scales are set."""
    figure = cast(Figure, ax.figure)
    figure.draw_without_rendering()
    per_pt = figure.dpi / 72
    positions = [tuple(ax.transData.transform((x, y)) / per_pt) for x, y, _ in points]  # in points of type
    occupied = [(x - 5, y - 5, x + 5, y + 5) for x, y in positions]
    for (x, y, name), (px, py) in zip(points, positions, strict=True):
        width, height = 5.4 * len(name), 10.0
        offsets = [
            (8, 5),
            (8, -14),
            (-8 - width, 5),
            (-8 - width, -14),
            (8, 18),
            (8, -27),
            (-8 - width, 18),
            (-8 - width, -27),
        ]
        boxes = [(px + dx, py + dy, px + dx + width, py + dy + height) for dx, dy in offsets]
        free = [i for i, box in enumerate(boxes) if not any(_overlap(box, placed) for placed in occupied)]
        best = free[0] if free else 0
        occupied.append(boxes[best])
        ax.annotate(name, (x, y), offsets[best], textcoords="offset points", fontsize=9)


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def colour(i: int) -> str:
    return SERIES[i % len(SERIES)]


def marker(i: int) -> str:
    return MARKERS[(i + i // len(MARKERS)) % len(MARKERS)]


def line(i: int) -> dict[str, Any]:
    """Colour, dash and marker of series i."""
    return {"color": colour(i), "linestyle": DASHES[i % len(DASHES)], "marker": marker(i)}


def boxes(ax: Axes, samples: Sequence[NDArray[np.float64]], colours: Sequence[str], *, vertical: bool = True) -> None:
    """Boxes from the first to the third quartile, whiskers from the 5th to the 95th percentile, no dots beyond."""
    artists = ax.boxplot(
        [sample.tolist() for sample in samples],
        orientation="vertical" if vertical else "horizontal",
        whis=(5, 95),
        showfliers=False,
        patch_artist=True,
        widths=0.6,
        medianprops={"color": INK, "linewidth": 1.6},
    )
    for i, (box, tone) in enumerate(zip(artists["boxes"], colours, strict=True)):
        box.set(facecolor=(*colors.to_rgb(tone), 0.3), edgecolor=tone)
        for part in (*artists["whiskers"][2 * i : 2 * i + 2], *artists["caps"][2 * i : 2 * i + 2]):
            part.set_color(tone)


def inline_svg(figure: Figure, key: str, label: str) -> str:
    """A figure as SVG for a page: colours by variables, ids of its own, a label for screen readers."""
    with rc_context({"svg.hashsalt": key}):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\b(id="|url\(#|href="#)', rf"\g<1>{key}-", svg)
    svg = re.sub(
        r"<svg [^>]*?viewBox=(\"[^\"]*\")[^>]*>", rf'<svg viewBox=\1 role="img" aria-label="{label}">', svg, count=1
    )
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    svg = re.sub(r"font: ([0-9.]+px)[^;\"]*", r"font-size: \1", svg)  # in the page's own font
    return svg.replace("#000000", "currentColor")  # what is left at matplotlib's default is ink too


def write_figure(figure: Figure, folder: Path, key: str) -> list[Path]:
    """`folder/<key>.png` (150 dots an inch) and `.svg`, on white."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{key}.{form}" for form in ("png", "svg")]
    for path in paths:
        # Without the salt ids are random, and every run writes another file.
        with rc_context({"svg.hashsalt": key}), files.replacing(path) as partial:
            form, metadata = path.suffix[1:], {"Date": None} if path.suffix == ".svg" else None
            figure.savefig(partial, format=form, dpi=150, facecolor="white", metadata=metadata)
    return paths
