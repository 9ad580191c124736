"""`coarseloc flights`: what has been searched."""

from __future__ import annotations

from typing import Any

import click

from coarseloc.cli.terminal import answer, json_option, next_step, pass_workspace, print_none_here, table
from coarseloc.workspace import Workspace


@click.command()
@json_option
@pass_workspace
def flights(workspace: Workspace, as_json: bool) -> None:
    """The flights that were searched, with their runs."""
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
