"""`coarseloc flights`: what has been searched."""

from __future__ import annotations

import shlex
from typing import Any

import click

from coarseloc.cli.options import flight_id
from coarseloc.cli.terminal import answer, json_option, next_step, out, pass_workspace, print_none_here, table
from coarseloc.workspace import Workspace


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def flights(context: click.Context, as_json: bool) -> None:
    """The flights that were searched, with their runs; rename or delete one."""
    if context.invoked_subcommand is None:
        _list(context.obj, as_json)


def _list(workspace: Workspace, as_json: bool) -> None:
    facts: list[dict[str, Any]] = [
        {
            "flight_id": listed.flight.flight.flight_id,
            "path": str(listed.flight.flight.path),
            "started_at": listed.flight.flight.started_at,
            "frames": len(listed.flight.flight.frames),
            "truth": listed.flight.flight.truth_source,
            "runs": [
                {
                    "run": run.id,
                    "reference_set": run.reference_set.name,
                    "backbone": run.spec.backbone,
                    "parameters": run.parameters,
                    "finished_at": run.finished_at,
                }
                for run in listed.runs
            ],
        }
        for listed in workspace.flights()
    ]
    rows = [
        (f["flight_id"], f["frames"], f["truth"], ", ".join(dict.fromkeys(r["backbone"] for r in f["runs"])), f["path"])
        for f in facts
    ]
    columns = ("flight", "frames", "truth", "backbones", "folder")

    def show() -> None:
        if not rows:
            print_none_here(workspace, "flight", "search one with `coarseloc search`")
            return
        table(*columns, rows=rows)
        next_step("evaluate", facts[-1]["flight_id"], note="how good its runs are; without truth: `export`, `track`")

    answer(as_json, facts, show)


@flights.command()
@click.argument("flight")
@click.argument("new_name")
@pass_workspace
def rename(workspace: Workspace, flight: str, new_name: str) -> None:
    """Give FLIGHT another name. Its runs and tracks stay; its folder keeps its own name."""
    workspace.rename_flight(flight_id(flight), new_name)
    out.print(
        f"{flight_id(flight)} is {new_name} now; search its folder again with --flight-id {shlex.quote(new_name)}"
    )


@flights.command()
@click.argument("flight")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_workspace
def delete(workspace: Workspace, flight: str, yes: bool) -> None:
    """Delete FLIGHT with every answer for it and its frames' tags and notes. Its images and labels stay."""
    name = flight_id(flight)
    counts = workspace.flight_results(name)
    contents = f"{counts['runs']} runs with {counts['hits']} hits, {counts['answers']} answers (places, fixes, tracks)"
    contents += f", and what is written on {counts['marked']} frames" if counts["marked"] else ""
    if not yes:
        click.confirm(f"Delete flight {name!r} with {contents}? Its images stay.", abort=True)
    workspace.delete_flight(name)
    out.print(f"deleted {name} with {contents}")
