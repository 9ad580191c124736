"""The front door: `coarseloc …`. The one package here that may import ingest, search and web.

Exit codes: 0 done, 1 a defect of coarseloc (with its traceback), 2 something the user can mend (one clear
line, nothing half written), 130 interrupted (what was done is kept, the same command goes on).
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import click

from coarseloc import __version__
from coarseloc.cli import admin, demo, evaluation, ingest, laboratory, results, search, simulate
from coarseloc.cli.app import App
from coarseloc.core import config
from coarseloc.core.errors import CoarselocError

# The machine's troubles, wherever they strike: the user's to mend, like bad input.
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where all state lives. [COARSELOC_DATA_DIR]")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings as TOML. [COARSELOC_CONFIG]")
@click.version_option(__version__, prog_name="coarseloc")
@click.pass_context
def cli(context: click.Context, data_dir: Path | None, config_file: Path | None) -> None:
    """Where is the aircraft, from what it sees: reference tiles in, flight frames matched, positions out."""
    app = App(config.load(data_dir, config_file))
    context.obj = app
    context.call_on_close(app.close)


for command in (
    demo.demo,
    ingest.ingest,
    search.search,
    search.lookup,
    results.export,
    results.flights,
    evaluation.evaluate,
    evaluation.report,
    laboratory.rotation,
    laboratory.altitude,
    ingest.references,
    admin.backbones,
    admin.serve,
    admin.drain,
    admin.reconcile,
    admin.rebuild,
    admin.migrate,
    admin.backup,
    admin.doctor,
    simulate.simulate,
):
    cli.add_command(command)


def main() -> None:
    """The console script: errors become one line on stderr and an exit code."""
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        code = 130
    except click.ClickException as error:
        error.show()
        code = 2
    except CoarselocError as error:
        click.echo(f"coarseloc: {error}", err=True)
        code = 2
    except KeyboardInterrupt:
        click.echo("coarseloc: interrupted; the same command goes on", err=True)
        code = 130
    except BrokenPipeError:  # `coarseloc … | head`
        sys.stderr.close()
        code = 0
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        click.echo(
            f"coarseloc: {error.filename or 'a file'}: {error.strerror}. Make room there or make it writable, or set "
            "COARSELOC_DATA_DIR to another disk; the same command goes on",
            err=True,
        )
        code = 2
    sys.exit(code if isinstance(code, int) else 0)
