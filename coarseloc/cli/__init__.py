"""The front door: `coarseloc …`. The one package here that may import ingest, search and web.

Exit codes: 0 done, 1 a defect of coarseloc (with its traceback), 2 something the user can mend (one clear
line, nothing half written), 130 interrupted (what was done is kept, the same command goes on).
"""

from __future__ import annotations

import errno
import gc
import io
import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from coarseloc import __version__
from coarseloc.core import ids
from coarseloc.core.errors import CoarselocError, StoreError

# The machine's troubles, wherever they strike: the user's to mend, like bad input.
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO)


# {group: {name: (module:function, first sentence of its help)}}. `coarseloc --help` lists them without importing a
# module; tests/integration/test_cli.py holds the sentences against the commands' own.
GROUPS = {
    "Start": {
        "demo": ("demo:demo", "Make an area and a flight, ingest, search, export, and say how to see more."),
        "simulate": (
            "simulate:simulate",
            "Make test material with known truth: an area, a flight over it, a capture tree.",
        ),
        "preflight": (
            "preflight:preflight",
            "Before hours are spent: whether maps and a flight fit, what speaks against it, and what it would cost.",
        ),
        "backbones": ("admin:backbones", "Each encoder, and where its weights were found or how to get them."),
    },
    "References": {
        "ingest": ("ingest:ingest", "Embed reference tiles and store them."),
        "references": ("ingest:references", "The reference sets that are here."),
        "localizability": (
            "localizability:localizability",
            "Where the ground of SET tells where it is, and where it has twins: its views as queries against the "
            "others.",
        ),
    },
    "Flights": {
        "search": (
            "search:search",
            "Match every frame in FLIGHT_DIR against the references, exactly, and time it; then fix it in metres.",
        ),
        "track": (
            "track:track",
            "One track of all frames of FLIGHT: where each lies, how sure that is, or that it is not known.",
        ),
        "localize": ("localize:localize", 'Where frames lie on a map: metres, heading and an ellipse, or "no match".'),
        "tag": (
            "tag:tag",
            "Mark FRAMES of FLIGHT (such as 3 and 7-12) with tags and a note; without options, list what is marked.",
        ),
        "live": (
            "live:live",
            "Track a flight while it is flown: an estimate for each new frame, to a file, a socket or the page Live.",
        ),
        "lookup": (
            "search:lookup",
            "The references most like IMAGE among those that match the filters, answered by Qdrant.",
        ),
        "boresight": (
            "boresight:boresight",
            "The constant angle between the camera and the vertical on each leg of FLIGHT, and the map's shift.",
        ),
    },
    "Results": {
        "flights": ("flights:flights", "The flights that were searched, with their runs; rename or delete one."),
        "export": (
            "export:export",
            "FLIGHT's newest runs (CoarseLocalizationInfo, GeoJSON, KML, CSV) and stored tracks (GPX, NMEA, MCAP …).",
        ),
        "evaluate": (
            "evaluation:evaluate",
            "Score runs against the truth: FLIGHT means its newest run of each backbone.",
        ),
        "report": (
            "evaluation:report",
            "One self-contained HTML file of runs: scores, times, errors, agreement, worst frames, with their tables.",
        ),
        "bundle": (
            "bundle:bundle",
            "A flight's runs as one file to hand on: made, checked without the data, and run again.",
        ),
        "truth-check": (
            "truth_check:truth_check",
            "Frames of FLIGHT whose label the imagery contradicts, and what is wrong with all labels together.",
        ),
        "serve": ("admin:serve", "The web pages."),
    },
    "Studies": {
        "rotation": (
            "studies:rotation",
            "How stable embeddings stay when the aircraft turns, and which way to be robust to it pays.",
        ),
        "altitude": (
            "studies:altitude",
            "How stable embeddings stay when the aircraft climbs, and what a pyramid of references buys.",
        ),
        "bench": ("bench:bench", "How fast your backbones are on your device, at each input size."),
    },
    "Upkeep": {
        "jobs": ("jobs:jobs", "Long work: what runs, how far it is, what stopped; pause, stop and resume it."),
        "doctor": (
            "admin:doctor",
            "Versions, device, FAISS, stores, what is pending, disk: what a report of a fault should hold.",
        ),
        "backup": ("admin:backup", "Write the embedded database as of now to FILE, while others use it."),
        "migrate": (
            "admin:migrate",
            "Bring the database's schema to this version's; the embedded default does this by itself.",
        ),
        "drain": ("admin:drain", "Bring the vector store up to the database; ingest does this by itself where it can."),
        "reconcile": (
            "admin:reconcile",
            "Compare the vector store with the database and the database's tallies with its rows, and say what "
            "differs.",
        ),
        "rebuild": ("admin:rebuild", "Drop the vector store's collections and replay the database into new ones."),
    },
}
COMMANDS = {name: command for commands in GROUPS.values() for name, command in commands.items()}


_ARGUMENTS = "coarseloc.arguments"  # keys of click's `Context.meta`
_JOB = "coarseloc.job"


class LazyGroup(click.Group):
    """A group whose commands are imported when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, function = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(f"coarseloc.cli.{module}"), function)
        if not gc.isenabled():  # as the console script begins
            gc.freeze()
            gc.enable()
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and note how it ends where it is a job."""
        ctx.meta[_ARGUMENTS] = [*ctx._protected_args, *ctx.args]
        try:
            result = self._invoke(ctx)
        except BaseException as error:
            _finish_job(ctx, error)
            raise
        _finish_job(ctx, None)
        return result

    def _invoke(self, ctx: click.Context) -> Any:
        """Where a command stumbles over rows that are not as they were written, these are named instead."""
        try:
            return super().invoke(ctx)
        except (CoarselocError, click.ClickException, click.exceptions.Exit, click.Abort, OSError):
            raise
        except Exception as error:
            if ctx.obj is None or not (damaged := ctx.obj.damage()):
                raise
            raise StoreError(f"the database is damaged: {'; '.join(damaged)}") from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))
        for group, commands in GROUPS.items():
            with formatter.section(group):
                formatter.write_dl([(name.ljust(width), sentence) for name, (_, sentence) in commands.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where all state lives. [COARSELOC_DATA_DIR]")
@click.option(
    "--lang", "language", type=click.Choice(["en", "ko"]), help="Of messages and reports. [COARSELOC_LANG, LANG, en]"
)
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings as TOML. [COARSELOC_CONFIG]")
@click.version_option(__version__, prog_name="coarseloc")
@click.pass_context
def cli(context: click.Context, data_dir: Path | None, language: str | None, config_file: Path | None) -> None:
    """Where is the aircraft, from what it sees: reference tiles in, flight frames matched, positions out."""
    from coarseloc import jobs
    from coarseloc.cli.terminal import speak, workspace_on_terminal
    from coarseloc.core import config
    from coarseloc.i18n.messages import language_of_environment

    context.params["language"] = language or language_of_environment(os.environ)
    speak(context.params["language"])
    context.obj = workspace_on_terminal(config.load(data_dir, config_file))
    arguments = context.meta[_ARGUMENTS]
    if arguments and (arguments[0] in jobs.KINDS or jobs.VARIABLE in os.environ):
        workspace = context.obj
        context.meta[_JOB] = recorder = jobs.JobRecorder(lambda: workspace.db, arguments)
        workspace.show_progress = recorder.reporter(workspace.show_progress)
    context.call_on_close(context.obj.close)


def _finish_job(context: click.Context, error: BaseException | None) -> None:
    """Write into the job's record, where there is one, how its command ended."""
    recorder = context.meta.get(_JOB)
    if recorder is None:
        return
    if error is None:
        code, message = 0, ""
    elif isinstance(error, click.exceptions.Exit):
        code, message = error.exit_code, ""
    elif isinstance(error, KeyboardInterrupt | click.Abort):
        code, message = 130, ""
    elif isinstance(error, click.ClickException):
        code, message = 2, error.format_message()
    else:
        code, message = (2 if isinstance(error, CoarselocError | OSError) else 1), str(error) or repr(error)
    with suppress(CoarselocError):  # the database itself may be what failed, and that is told
        recorder.finish(code, message)


def main() -> None:
    """The console script's command: errors become one line on stderr and an exit code."""
    interrupts: list[int] = []

    def interrupt(number: int, _frame: object) -> None:
        interrupts.append(number)
        raise KeyboardInterrupt

    previous = signal.getsignal(signal.SIGINT)
    if previous is signal.default_int_handler:  # a command that serves puts its own in place
        signal.signal(signal.SIGINT, interrupt)
    try:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # names of every script on a terminal of one
        result = cli.main(standalone_mode=False)
        code = result if isinstance(result, int) else 0
        sys.stdout.flush()
    except (KeyboardInterrupt, click.exceptions.Abort):
        code = _tell_interrupted()
    except Exception as error:
        # What an interrupt has broken is no error of its own.
        code = _tell_interrupted() if interrupts else _tell(error)
    finally:
        if previous is not None:
            signal.signal(signal.SIGINT, previous)
    sys.exit(code)


def _tell_interrupted() -> int:
    from coarseloc.cli.terminal import spoken

    click.echo(f"coarseloc: {spoken('interrupted; the same command goes on')}", err=True)
    return 130


def _tell(error: Exception) -> int:
    """Say what went wrong in a line and return the exit code; raises what is a defect of coarseloc."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.ClickException):
        buffer = io.StringIO()
        error.show(buffer)
        click.echo(ids.visible(buffer.getvalue()), err=True, nl=False)
    elif isinstance(error, CoarselocError):
        from coarseloc.cli.terminal import spoken

        click.echo(ids.visible(f"coarseloc: {spoken(str(error))}"), err=True)
    elif isinstance(error, BrokenPipeError):  # `coarseloc … | head`
        _abandon_output()
        return 0
    elif isinstance(error, OSError) and error.errno in _OF_THE_DISK:
        where = error.filename or "a file or the output"
        click.echo(
            f"coarseloc: {where}: {error.strerror}. Make room there or make it writable, or set "
            "COARSELOC_DATA_DIR to another disk; the same command goes on",
            err=True,
        )
        _abandon_output()
    else:
        raise error
    return 2


def _abandon_output() -> None:
    """Let what is still to be written to standard output go nowhere: at its end Python would fail on it again."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
