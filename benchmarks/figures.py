"""What the benchmark claims: figures with their targets, and the Markdown that shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.machine import CEILING
from benchmarks.rounds import Contest

_UNITS = {"x": "{:.2f} x", "%": "{:.0f} %", "ms": "{:.2f} ms", "s": "{:.2f} s", "MiB": "{:.0f} MiB", "": "{:.5f}"}


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `value` is None where it could not be measured; `note` then says why."""

    measure: str
    peer: str
    value: float | None
    unit: str  # "x", "%", "ms", "s", "MiB", or "" for a plain number
    target: float | None = None
    at_most: bool = False
    note: str = ""
    of_minima: float | None = None  # a ratio once more, where each way was disturbed the least

    @property
    def reached(self) -> bool | None:
        """None where there is no target or no value."""
        if self.value is None or self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target


@dataclass(slots=True)
class Results:
    """Contests and figures of a benchmark. `records` holds all else that is written to its JSON."""

    contests: list[Contest] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    records: dict[str, Any] = field(default_factory=dict)

    def take(self, results: Results) -> None:
        self.contests += results.contests
        self.figures += results.figures
        self.records |= results.records


def faster(measure: str, contest: Contest, ours: str, peer: str, target: float | None = None, note: str = "") -> Figure:
    """The ratio of medians, or the reason why one of the two was skipped."""
    for way in (ours, peer):
        if way in contest.skipped:
            return Figure(measure, peer, None, "x", target, note=f"{way} skipped: {contest.skipped[way]}")
    ratios = contest.ratio(ours, peer), contest.ratio_of_minima(ours, peer)
    return Figure(measure, peer, ratios[0], "x", target, note=note, of_minima=ratios[1])


def figures_table(figures: Iterable[Figure], busy: bool = False) -> list[str]:
    """Markdown lines; on a busy machine no verdict is given."""
    verdicts = {True: "(yes)", False: "(no)"} if busy else {True: "yes", False: "**no**"}
    rows = [
        (
            figure.measure,
            figure.peer,
            _shown(figure.value, figure.unit),
            "" if figure.of_minima is None else _shown(figure.of_minima, figure.unit),
            _target(figure),
            "" if figure.reached is None else verdicts[figure.reached],
            figure.note,
        )
        for figure in figures
    ]
    return table(("what", "against", "measured", "of minima", "target", "reached", "note"), rows, right=(2, 3, 4))


def contests_table(contests: Iterable[Contest]) -> list[str]:
    rows = []
    for contest in contests:
        name = contest.name
        for way in contest.seconds:
            if not way.startswith(CEILING):
                rows.append(
                    (name, way, milliseconds(contest.median(way)), milliseconds(contest.minimum(way)), contest.unit)
                )
                name = ""
        rows += [(name, way, "skipped", "", reason) for way, reason in contest.skipped.items()]
    return table(("contest", "way", "median, ms", "minimum, ms", "per"), rows, right=(2, 3))


def table(header: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Lines of a Markdown table; a bar inside a cell is escaped."""
    rule = [("--:" if i in right else "---") for i in range(len(header))]
    return [_line(row) for row in (header, rule, *rows)]


def stages_table(spent: Mapping[str, Mapping[str, float]]) -> list[str]:
    """{way: milliseconds by stage} as Markdown lines: a column a way, a row a stage, and their sum."""
    stages = next(iter(spent.values()))
    rows = [[stage, *(f"{column[stage]:.0f}" for column in spent.values())] for stage in stages]
    rows.append(["all", *(f"**{sum(column.values()):.0f}**" for column in spent.values())])
    return table(("ms of one core", *spent), rows, right=range(1, len(spent) + 1))


def milliseconds(seconds: float) -> str:
    """Three significant digits."""
    value = seconds * 1e3
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def plain_facts(facts: Mapping[str, Any]) -> str:
    """`key value, key value`."""
    return ", ".join(f"{key} {value}" for key, value in facts.items())


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _shown(value: float | None, unit: str) -> str:
    return "not measured" if value is None else _UNITS[unit].format(value)


def _target(figure: Figure) -> str:
    if figure.target is None:
        return ""
    value = f"{figure.target:g} {figure.unit}".strip()
    return f"≤ {value}" if figure.at_most else value
