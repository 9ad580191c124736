"""`python -m benchmarks`: how fast this machine is at what users do, beside how else they would do it."""

from __future__ import annotations

import os
from pathlib import Path

import click

from benchmarks import machine, report, run, size
from benchmarks.figures import Results, figures_table
from coarseloc.cli.terminal import answer, err, json_option, out


@click.command()
@click.option("--quick", is_flag=True, help="Less of everything, in some minutes instead of twenty.")
@click.option(
    "--only", "part_name", default="", metavar="TEXT", help='Parts whose name holds this, such as "exact search".'
)
@click.option(
    "--out",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default="benchmarks/results",
    show_default=True,
    help="Where the raw numbers go.",
)
@click.option("--table", type=click.Path(dir_okay=False, path_type=Path), help="Write a Markdown page as well.")
@click.option(
    "--scratch",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where files are made meanwhile: 4 GB. [the system's own]",
)
@click.option("--anyway", is_flag=True, help="Write the page of the whole benchmark though the machine is busy.")
@json_option
def bench(
    quick: bool,
    part_name: str,
    folder: Path,
    table: Path | None,
    scratch: Path | None,
    anyway: bool,
    as_json: bool,
) -> None:
    """Measure ingest and search on this machine, side by side with what one would do otherwise.

    In one process and in interleaved rounds; what counts are the ratios. Stopped at any moment, the parts that are
    done are in the folder. True architectures with random weights: none of yours are needed, nor any data.
    """
    whole = not (quick or part_name)
    if machine.load() > 0.5 * machine.cores():
        by = ", ".join(machine.busiest()) or "none that uses 5 % just now"
        err.print(f"this machine is busy (load {machine.load()}; {by}): ratios hold roughly, absolute figures do not")
        if whole and table and not anyway:
            raise click.UsageError(f"{table} is not written on a busy machine: wait, stop them, or give --anyway")

    def keep(results: Results) -> Path:
        path = report.write_json(results, folder, "" if whole else "quick" if quick else "part")
        if table:
            report.write_markdown(results, table, path)
        return path

    results = run.run(
        size.QUICK if quick else size.FULL,
        part_name,
        scratch,
        lambda text: err.print(text, markup=False, soft_wrap=True),
        keep,
    )
    path = keep(results)

    def show() -> None:
        out.print("\n".join(["", *figures_table(results.figures), ""]), markup=False)
        out.print(f"raw: {os.path.relpath(path)}")

    answer(as_json, report.facts(results), show)


if __name__ == "__main__":
    bench()
