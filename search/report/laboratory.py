"""The reports of the laboratories: curves, polar plots, the table of ways, and what the numbers say."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from coarseloc.embedding import specs
from coarseloc.store.studies import CurvePoint
from coarseloc.types import Progress
from search.laboratory import Answer
from search.report import style
from search.report.page import Page, Table, render
from search.report.texts import Say, say_in

Way = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a small chart: which curve, its name, its place among the series."""

    curve: str
    name: str
    index: int
    muted: bool = False
    band: bool = True  # its interval is shown


def write_study(
    found: Answer,
    out: Path,
    *,
    language: str = "en",
    figures: Path | None = None,
    note: str | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """A study as one HTML file; returns notices for who asked."""
    from search.report import altitude, rotation  # they stand on this module

    kind = altitude if found.study.kind == "altitude" else rotation
    say = say_in(language)
    notices = []
    drawn = say
    if figures and language == "ko" and style.hangul_font() is None:
        drawn = say_in("en")
        notices.append("no Korean font is installed here (such as Noto Sans CJK): the figures' own words stay English")
    page = Page(
        title=say(kind.TITLE),
        lead=kind.findings(found, say),
        facts=_facts(found, say),
        sections=kind.sections(found, say, drawn),
        warnings=_warnings(found, note, say),
        language=language,
        say=say,
    )
    text = render(page, figures, progress)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    return notices


def _warnings(found: Answer, note: str | None, say: Say) -> list[str]:
    strangers = [name for name in found.backbones if name not in specs.BACKBONES or not specs.BACKBONES[name].is_dinov3]
    stand_ins = say(
        "{names}: none of the six DINOv3 backbones. Read their figures as what this pipeline does with them, "
        "not as DINOv3's."
    )
    warnings = [note] if note else []
    if strangers:
        warnings.append(stand_ins.format(names=", ".join(strangers)))
    if "pictures" in found.study.parameters["ground"]:
        warnings.append(
            say(
                "Frames and references are the same pictures here: read what a turn costs, not how well places are found."
            )
        )
    return warnings


def _facts(found: Answer, say: Say) -> list[tuple[str, str]]:
    asked, environment, findings = found.study.parameters, found.study.environment, found.study.findings
    ground = asked["ground"]
    if "pictures" in ground:
        source = say("{n} pictures, each seen through its central square").format(n=len(ground["pictures"]))
    else:
        source = say("{source}, views of {side} m, references {stride} m apart").format(
            source=Path(ground["source"]).name, side=f"{ground['footprint_m']:g}", stride=f"{ground['stride_m']:g}"
        )
    rows = [
        (say("Ground"), source),
        (say("Frames"), str(findings["frames"])),
        (say("References"), str(findings["references"])),
        (say("Device"), " · ".join(str(environment.get(key, "?")) for key in ("device", "cpu", "backend"))),
        (say("Times"), say("medians of single calls after {n} warm-up calls, the device synchronised").format(
            n=environment.get("warm_up", "?"))),
        (say("Versions"), ", ".join(f"{name} {value}" for name, value in environment.get("versions", {}).items())),
        (say("spec digest"), ", ".join(f"{name} {digest[:12]}" for name, digest in asked["backbones"].items())),
    ]  # fmt: skip
    if asked.get("frames_from"):
        rows.insert(1, (say("Frames from"), Path(asked["frames_from"]["source"]).name))
    return rows


# --- shared figures -----------------------------------------------------------------------------


def ways_of(found: Answer, backbone: str) -> dict[str, Way]:
    return {way["name"]: way for way in found.study.findings["ways"][backbone]}


def way_bars(found: Answer, say: Say) -> Figure:
    """Recall of each way, with its interval, a group for each way and a bar for each backbone."""
    names = [way["name"] for way in found.study.findings["ways"][found.backbones[0]]]
    count = len(found.backbones)
    made, (ax,) = style.figure(height_in=0.9 + 0.26 * len(names) * max(1.6, count))
    for b, backbone in enumerate(found.backbones):
        ways = ways_of(found, backbone)
        y = np.arange(len(names)) + (b - (count - 1) / 2) * 0.8 / count
        recall = np.array([ways[name]["recall"] for name in names], float)
        low, high = (np.array([ways[name][end] for name in names], float) for end in ("low", "high"))
        spread = [np.nan_to_num(recall - low), np.nan_to_num(high - recall)]
        ax.barh(y, recall, height=0.72 / count, color=style.colour(b), label=backbone)
        ax.errorbar(recall, y, xerr=spread, linestyle="none", color=style.INK, linewidth=1, capsize=2)
    ax.set_yticks(range(len(names)), [say(name) for name in names])
    ax.invert_yaxis()
    ax.set_xlim(0, 1.04)
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.set_xlabel(say("right place"))
    ax.grid(axis="y", visible=False)
    if count > 1:
        style.legend_above(ax)
    return made


def way_table(found: Answer, say: Say, *, heading: bool = True) -> Table:
    """The ways of each backbone in numbers; `heading`: whether they tell one."""
    told = ("error_m", "heading_error_deg") if heading else ("error_m",)
    rows = []
    for backbone in found.backbones:
        for way in ways_of(found, backbone).values():
            interval = f"\n{way['low']:.1%}, {way['high']:.1%}" if way["low"] is not None else ""
            rows.append(
                [say(way["name"]), backbone, f"{way['recall']:.1%}{interval}", gain(way, "\n{low}, {high}"),
                 *("–" if way[key] is None else f"{way[key]:.1f}" for key in told),
                 f"{way['embed_ms']:.2f}", f"{way['search_ms']:.3f}", f"{way['embed_ms'] + way['search_ms']:.2f}",
                 f"{way['index_bytes'] / 1e6:.2f}", str(way["n"])]
            )  # fmt: skip
    errors = (say("median error, m"), say("heading error, °")) if heading else (say("median error, m"),)
    costs = (say("embed, ms"), say("search, ms"), say("total, ms"), say("index, MB"))
    columns = (say("way"), say("backbone"), say("right place"), say("gain"), *errors, *costs, "n")
    return Table(columns, rows)


def by_backbone(
    found: Answer, lines: Sequence[Line], xlabel: str, ylabel: str, finish: Callable[[Axes], None] | None = None
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


def cosines(found: Answer, xlabel: str, say: Say, finish: Callable[[Axes], None]) -> Figure:
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


def gain(way: Way, interval: str = " [{low}, {high}]") -> str:
    """What a way finds more than the usual one, in points, with its interval; a dash for the usual one."""
    if way["gain"] is None:
        return "–"
    low, high = (f"{100 * way[end]:+.1f}" for end in ("gain_low", "gain_high"))
    return f"{100 * way['gain']:+.1f}{interval.format(low=low, high=high)}"


def beats(way: Way) -> int:
    """1 where a way finds more than the usual one beyond its interval, -1 where less, 0 where they are not told apart."""
    if way["gain"] is None:
        return 0
    return int(way["gain_low"] > 0) - int(way["gain_high"] < 0)


def share(way: Way) -> str:
    """A way's recall with its interval."""
    interval = f" [{way['low']:.1%}, {way['high']:.1%}]" if way["low"] is not None else ""
    return f"{way['recall']:.1%}{interval}"


def curve(ax: Axes, points: Sequence[CurvePoint], line: Line, **other: Any) -> None:
    """A line with its interval as a band; `other` overrides how the line looks."""
    x = [p.x for p in points]
    y, low, high = (np.array([_or_nan(getattr(p, name)) for p in points]) for name in ("y", "low", "high"))
    look = ({"color": style.MUTED, "linestyle": (0, (2, 2))} if line.muted else style.line(line.index)) | other
    if len(x) > 2 and math.isclose(x[-1] + x[1] - x[0], 360.0):  # all the way round
        x, (y, low, high) = [*x, 360.0], (np.append(values, values[0]) for values in (y, low, high))
    ax.plot(x, y, label=line.name, markevery=max(1, len(x) // 8), **look)
    if line.band and not np.isnan(low).all():
        ax.fill_between(x, low, high, color=look["color"], alpha=0.15, linewidth=0)


def curve_table(found: Answer, curves: Sequence[tuple[str, str]], first: str, form: str) -> Table:
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
    return next((_or_nan(p.y) for p in points if math.isclose(p.x, x)), math.nan)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
