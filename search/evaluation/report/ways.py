"""The ways to be robust: bars, the table, and how each compares with the usual one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from coarseloc.i18n import Translator
from search.evaluation.report import style
from search.evaluation.report.page import Table
from search.evaluation.studies.strategies import StrategyRecord, ceiling_text, gain_sign, gain_text, recall_text
from search.evaluation.studies.study import StudyResult


def ways_of(found: StudyResult, backbone: str) -> dict[str, StrategyRecord]:
    """{name: way}, in their order."""
    return {way["name"]: way for way in found.study.findings["ways"][backbone]}


def way_bars(found: StudyResult, say: Translator) -> Figure:
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


def way_table(found: StudyResult, say: Translator, *, heading: bool = True) -> Table:
    """The ways of each backbone in numbers; `heading`: whether they tell one."""
    told = ("error_m", "heading_error_deg") if heading else ("error_m",)
    rows = []
    for backbone in found.backbones:
        for way in ways_of(found, backbone).values():
            rows.append(
                [say(way["name"]), backbone, recall_text(way, "\n{low}, {high}"), ceiling_text(way) or say("not recorded"),
                 gain_text(way, "\n{low}, {high}"), _gain_n(way, say),
                 *("–" if way[key] is None else f"{way[key]:.1f}" for key in told),
                 f"{way['embed_ms']:.2f}", f"{way['search_ms']:.3f}", f"{way['embed_ms'] + way['search_ms']:.2f}",
                 f"{way['index_bytes'] / 1e6:.2f}", _counts(way)]
            )  # fmt: skip
    errors = (say("median error, m"), say("heading error, °")) if heading else (say("median error, m"),)
    costs = (say("embed, ms"), say("search, ms"), say("embed + search, ms"), say("index, MB"))
    gains = say("gain"), say("n of the gain")
    columns = (say("way"), say("backbone"), say("right place"), say("ceiling"), *gains, *errors, *costs, "n")
    return Table(columns, rows)


def _counts(way: StrategyRecord) -> str:
    """The frames, and how many independent ones they are worth where that is fewer."""
    n_eff = way.get("n_eff")  # studies of earlier versions store none
    said = way["low"] is None or n_eff is None or n_eff == way["n"]  # by `share`, or by n itself
    return str(way["n"]) if said else f"{way['n']} (n_eff {n_eff:.0f})"


def _gain_n(way: StrategyRecord, say: Translator) -> str:
    return "–" if way["gain"] is None else str(way.get("gain_n") or say("not recorded"))


def compared(ways: Sequence[StrategyRecord], say: Translator) -> str:
    """How each way does beside the usual one on the same frames, told apart only where the intervals are."""
    told = {
        None: say("{way} shares no frame with it that both can reach"),
        -1: say("{way} finds less ({gain} points)"),
        0: say("{way} is not told apart from it ({gain} points)"),
        1: say("{way} finds more ({gain} points)"),
    }
    return "; ".join(
        told[None if way["gain"] is None else gain_sign(way)].format(way=say(way["name"]), gain=gain_text(way))
        for way in ways
    )
