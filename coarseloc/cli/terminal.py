"""What every command shares: the workspace, progress, and how to answer."""

from __future__ import annotations

import json
import logging
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.logging import RichHandler
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from coarseloc.core import ids
from coarseloc.core.config import DEMO_FOLDER, is_data_folder
from coarseloc.i18n import DEFAULT, Translator
from coarseloc.i18n.messages import message_translator
from coarseloc.workspace import Workspace

if TYPE_CHECKING:
    from coarseloc.core import types
    from coarseloc.core.config import Settings

F = TypeVar("F", bound=Callable[..., Any])


class VisibleConsole(Console):
    """A console that prints what it is given as it is: no markup unless asked for, no control characters; messages in
    the language of `speak`."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(spoken(text) if isinstance(text, str) else text for text in objects), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=ids.visible(segment.text))


out = VisibleConsole(markup=False, highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)
err = VisibleConsole(markup=False, stderr=True, highlight=False)


_translate: Translator = message_translator(DEFAULT)


def speak(language: str) -> None:
    """Choose the language of what commands print, for this process. JSON stays as it is."""
    global _translate
    _translate = message_translator(language)


def spoken(message: str) -> str:
    """A message in the language of this process."""
    return _translate(message)


PROGRESS_EVERY_S = 10.0  # of lines, where there is no terminal


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
        is_utf8 = (sys.stdout.encoding or "utf-8").lower().replace("-", "") == "utf8"
        json.dump(facts, sys.stdout, indent=2, ensure_ascii=not is_utf8, default=str)
        sys.stdout.write("\n")
    else:
        show()


def table(*columns: str, rows: Sequence[Sequence[object]], title: str | None = None) -> None:
    """Print rows, of values or styled `Text`; columns whose values are all numbers stand to the right.

    Columns beyond the terminal's width stand below, behind the first column again.
    """
    names = [spoken(name) for name in columns]
    texts = [[_cell(value) for value in row] for row in rows]
    widths = [max([cell_len(name), *(row[i].cell_len for row in texts)]) for i, name in enumerate(names)]
    for part in _parts_that_fit(widths, out.width):
        grid = Table(title=title and spoken(title), title_justify="left", box=None, pad_edge=False, header_style="bold")
        for i in part:
            numeric = bool(rows) and all(isinstance(row[i], int | float) for row in rows)
            grid.add_column(names[i], justify="right" if numeric else "left", overflow="fold")
        for row in texts:
            grid.add_row(*(row[i] for i in part))
        if part[-1] >= len(part):  # not the first
            out.print()
        out.print(grid)
        title = None


def _cell(value: object) -> Text:
    return value if isinstance(value, Text) else Text("" if value is None else ids.visible(str(value)))


def _parts_that_fit(widths: Sequence[int], limit: int) -> list[list[int]]:
    """Columns side by side, two spaces between them: as many as fit, each part behind the first column."""
    parts = [[0]]
    for i in range(1, len(widths)):
        side_by_side = [*parts[-1], i]
        if len(parts[-1]) > 1 and sum(widths[j] + 2 for j in side_by_side) - 2 > limit:
            parts.append([0, i])
        else:
            parts[-1] = side_by_side
    return parts


def next_step(*words: object, note: str, data_dir: object = None) -> None:
    """End a summary with the command that a user would run next, for the same data folder."""
    named_dir, config_file = map(click.get_current_context().find_root().params.get, ("data_dir", "config_file"))
    named = [("--data-dir", data_dir or named_dir), ("--config", config_file)]
    options = [str(word) for option, value in named if value is not None for word in (option, value)]
    command = shlex.join(["coarseloc", *options, *map(str, words)])
    out.print(Text.assemble(spoken("next: "), (command, "cyan"), (f"  # {spoken(note)}", "dim")))


def print_none_here(workspace: Workspace, what: str, command: str) -> None:
    """Say that nothing is stored, where, and how it comes to be."""
    folder = workspace.settings.data_dir
    out.print(f"no {spoken(what)} in {folder} yet: {spoken(command)}")
    demo = DEMO_FOLDER.absolute()
    if demo != folder and is_data_folder(demo):
        out.print(f"the demonstration's are in another data folder: coarseloc --data-dir {DEMO_FOLDER} …")


@contextmanager
def progress_bar(label: str) -> Iterator[types.Progress]:
    """A bar on stderr with count, rate and time left; where stderr is no terminal, a line now and then."""
    if not err.is_terminal:
        yield _progress_lines(label)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(spoken(label), total=None, rate="")

        def advance(completed: int, total: int, unit: str) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, completed=completed, total=total, rate=f"{speed:.1f} {unit}/s" if speed else unit)

        yield advance


def _progress_lines(label: str) -> types.Progress:
    """For logs and jobs: `search: 120 of 4800 frames, 12.3 a second, 6 min left`. What is soon done says nothing."""
    began = printed = time.monotonic()
    done_before: int | None = None

    def advance(completed: int, total: int, unit: str) -> None:
        nonlocal printed, done_before
        if done_before is None:  # an earlier run's, which took no time of this one
            done_before = completed
        now = time.monotonic()
        if now - printed < PROGRESS_EVERY_S:
            return
        printed = now
        rate = (completed - done_before) / (now - began)
        text = f"{spoken(label)}: {completed} of {total} {spoken(unit)}"
        if rate > 0:
            text = f"{text}, {rate:.3g} a second, {_duration((total - completed) / rate)} left"
        err.print(text, soft_wrap=True)

    return advance


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
