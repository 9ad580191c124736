"""What every command shares: the workspace, progress, and how to answer."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console, ConsoleOptions, RenderableType
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from coarseloc.core import ids
from coarseloc.workspace import Workspace

if TYPE_CHECKING:
    from coarseloc.core import types
    from coarseloc.core.config import Settings

F = TypeVar("F", bound=Callable[..., Any])


class VisibleConsole(Console):
    """A console that prints what it is given as it is: no markup unless asked for, no control characters."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=ids.visible(segment.text))


out = VisibleConsole(markup=False, highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)
err = VisibleConsole(markup=False, stderr=True, highlight=False)


def workspace_on_terminal(settings: Settings) -> Workspace:
    """The workspace of one invocation: progress, notices and log records go to stderr."""
    handler = RichHandler(console=err, show_time=False, show_path=False, rich_tracebacks=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    return Workspace(settings, progress_bar, lambda text: err.print(text, style="yellow"))


pass_workspace = click.make_pass_decorator(Workspace)


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Answer in JSON on stdout, for programs.")(command)


def answer(as_json: bool, facts: Mapping[str, Any] | Sequence[Any], show: Callable[[], None]) -> None:
    """The end-of-run summary: JSON for programs, else whatever `show` prints."""
    if as_json:
        json.dump(facts, sys.stdout, indent=2, ensure_ascii=False, default=str)
        sys.stdout.write("\n")
    else:
        show()


def table(*columns: str, rows: Sequence[Sequence[object]], title: str | None = None) -> None:
    """Print rows, of values or styled `Text`; columns whose values are all numbers stand to the right."""
    grid = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for i, name in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[i], int | float) for row in rows)
        grid.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*("" if value is None else value if isinstance(value, Text) else str(value) for value in row))
    out.print(grid)


@contextmanager
def progress_bar(label: str) -> Iterator[types.Progress]:
    """A bar on stderr with count, rate and time left; silent where stderr is no terminal."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(label, total=None, rate="")

        def advance(completed: int, total: int, unit: str) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, completed=completed, total=total, rate=f"{speed:.1f} {unit}/s" if speed else unit)

        yield advance
