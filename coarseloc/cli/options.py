"""Option values as users type them, and the filters that search and look-up share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from coarseloc.filters import KEYS, Where, parse_angles, parse_overlap

F = TypeVar("F", bound=Callable[..., Any])


class Overlap(click.ParamType):
    """Users type 50; the domain's overlap is the fraction 0.5. Either is taken."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        return parse_overlap("--overlap", str(value))


class Angles(click.ParamType):
    """`0,45,90`: whole headings in degrees clockwise from north."""

    name = "degrees"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        return value if isinstance(value, tuple) else parse_angles("--angles", [str(value)])


def flight_id(name: str) -> str:
    """A flight's folder stands for its id, as `coarseloc search` was given it."""
    return Path(name).resolve().name if Path(name).is_dir() else name


_FILTERS = (
    click.option("--near", help="Only centres within so many metres: LON,LAT,METRES."),
    click.option("--bbox", help="Only footprints that touch this box: WEST,SOUTH,EAST,NORTH in degrees."),
    click.option("--overlap", help="Only sets of this overlap, such as 50."),
    click.option("--altitude", help="Only altitudes in this range: LOW:HIGH, metres."),
    click.option("--angle", multiple=True, help="Only references at these headings; several by commas or again."),
    click.option("--reference-set", multiple=True, help="Only these sets' references; several are searched as one."),
)


def where_options(command: F) -> F:
    """Add the filters and hand them to the command as one `where`."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        texts = {name: kwargs.pop(name) for name in KEYS}
        kwargs["where"] = Where.parse(
            {name: [text] if isinstance(text, str) else list(text or ()) for name, text in texts.items()}
        )
        return command(*args, **kwargs)

    for option in _FILTERS:
        wrapped = option(wrapped)
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
