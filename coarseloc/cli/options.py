"""Option values as users type them, and the filters that search and look-up share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from coarseloc.types import BBox, Near, Where
from coarseloc.where import percent

F = TypeVar("F", bound=Callable[..., Any])


class Overlap(click.ParamType):
    """Users type 50; the domain's overlap is the fraction 0.5. Either is taken."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = _number(self, value, param, ctx)
        fraction = number / 100 if number >= 1 else number
        if not 0 <= fraction < 1:
            self.fail(f"{value} is no overlap: give a percentage from 0 to 99, such as 50", param, ctx)
        return fraction


class Angles(click.ParamType):
    """`0,45,90`: whole headings in degrees clockwise from north."""

    name = "degrees"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        numbers = [_number(self, part, param, ctx) for part in str(value).split(",")]
        if any(n != int(n) or not 0 <= n < 360 for n in numbers):
            self.fail(f"{value!r}: headings are whole degrees from 0 to 359, such as 0,45,90", param, ctx)
        return tuple(sorted({int(n) for n in numbers}))


class Numbers(click.ParamType):
    """A fixed count of numbers with one separator: `250:350`, `w,s,e,n`."""

    def __init__(self, form: str, separator: str) -> None:
        self.name, self._separator = form, separator
        self._count = form.count(separator) + 1

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        parts = str(value).split(self._separator)
        if len(parts) != self._count:
            self.fail(f"{value!r} has {len(parts)} parts: expected {self.name}", param, ctx)
        return tuple(_number(self, part, param, ctx) for part in parts)


def _number(kind: click.ParamType, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
    try:
        number = float(value)
    except ValueError:
        kind.fail(f"{value!r} is not a number", param, ctx)
    if number != number or number in (float("inf"), float("-inf")):
        kind.fail(f"{value!r} is not a finite number", param, ctx)
    return number


def flight_id(name: str) -> str:
    """A flight's folder stands for its id, as `coarseloc search` was given it."""
    return Path(name).resolve().name if Path(name).is_dir() else name


def where_options(command: F) -> F:
    """Add the filters and hand them to the command as one `where`."""

    @click.option("--angle", type=Angles(), help="Only references at these headings.")
    @click.option("--altitude", type=Numbers("LOW:HIGH", ":"), help="Only altitudes in this range, metres.")
    @click.option("--overlap", type=Overlap(), help="Only sets of this overlap, such as 50.")
    @click.option("--bbox", type=Numbers("W,S,E,N", ","), help="Only footprints that touch this box, degrees.")
    @click.option("--near", type=Numbers("LON,LAT,METRES", ","), help="Only centres within so many metres.")
    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        angle, altitude, overlap, bbox, near = (
            kwargs.pop(name) for name in ("angle", "altitude", "overlap", "bbox", "near")
        )
        kwargs["where"] = Where(
            angles=angle,
            altitude_m=altitude,
            overlap_pct=None if overlap is None else percent(overlap),
            touches=bbox and BBox(*bbox),
            near=near and Near(*near),
        )
        return command(*args, **kwargs)

    return wrapped  # type: ignore[return-value]


def method_option(command: F) -> F:
    return click.option(
        "--method",
        default="best-place",
        show_default=True,
        help="Whose answers: those of the best place, or another's.",
    )(command)


def report_options(command: F) -> F:
    """How a report reads, beside the file it is written to."""
    for option in (
        click.option("--note", help="A line put above everything, such as what stands in for what."),
        click.option("--figures", type=click.Path(path_type=Path), help="Folder for every figure as PNG and SVG."),
        click.option("--lang", "language", type=click.Choice(["en", "ko"]), default="en", show_default=True),
    ):
        command = option(command)
    return command


def backbone_options(command: F) -> F:
    """Which encoders, and how they are run."""
    for option in (
        click.option("--device", default=None, help="auto, cpu, cuda, cuda:1 … [COARSELOC_DEVICE]"),
        click.option("--precision", type=click.Choice(["fp32", "bf16", "int8"]), help="fp32 by default."),
        click.option("--input-px", type=int, default=None, help="Side of the model's input. [COARSELOC_INPUT_PX]"),
        click.option("--backbone", "backbones", multiple=True, help="Encoder; may be given several times."),
    ):
        command = option(command)
    return command
