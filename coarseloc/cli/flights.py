"""`coarseloc flights`: what has been searched."""

from __future__ import annotations

from typing import Any

import click

from coarseloc.cli.app import App, answer, json_option, out, pass_app, table
from coarseloc.store import flights as store_flights
from coarseloc.store import runs


@click.command()
@json_option
@pass_app
def flights(app: App, as_json: bool) -> None:
    """The flights that were searched, with their runs."""
    with app.db.read() as session:
        known = {name: store_flights.find_flight(session, name) for name in store_flights.flight_ids(session)}
        done = {flight_id: runs.latest_runs(session, flight_id) for flight_id in known}
    facts: list[dict[str, Any]] = [
        {
            "flight_id": flight_id,
            "path": str(stored.flight.path),
            "started_at": stored.flight.started_at,
            "frames": len(stored.flight.frames),
            "truth": stored.flight.truth_source,
            "runs": [
                {
                    "run": run.id,
                    "reference_set": run.reference_set.name,
                    "backbone": run.spec.backbone,
                    "parameters": run.parameters,
                    "finished_at": run.finished_at,
                }
                for run in done[flight_id]
            ],
        }
        for flight_id, stored in known.items()
    ]
    rows = [
        (f["flight_id"], f["frames"], f["truth"], ", ".join(dict.fromkeys(r["backbone"] for r in f["runs"])), f["path"])
        for f in facts
    ]
    columns = ("flight", "frames", "truth", "backbones", "folder")
    answer(as_json, facts, lambda: table(*columns, rows=rows) if rows else out.print("no flight yet"))
