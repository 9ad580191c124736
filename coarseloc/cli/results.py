"""`coarseloc flights` and `coarseloc export`: what has been searched, and its records for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from coarseloc.cli.app import App, answer, json_option, out, pass_app, table
from coarseloc.cli.options import flight_id, method_option
from coarseloc.store import flights as store_flights
from coarseloc.store import runs
from search.export.files import FORMATS


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


@click.command()
@click.argument("flight")
@click.option("--out", "out_dir", type=click.Path(path_type=Path), required=True, help="Folder to write to.")
@click.option("--single", is_flag=True, help="One JSON document for the whole flight.")
@click.option(
    "--format",
    "formats",
    type=click.Choice(FORMATS),
    multiple=True,
    default=FORMATS,
    show_default=True,
)
@method_option
@json_option
@pass_app
def export(
    app: App, flight: str, out_dir: Path, single: bool, formats: Sequence[str], method: str, as_json: bool
) -> None:
    """CoarseLocalizationInfo of FLIGHT's newest runs: JSON per frame and backbone, GeoJSON, KML, CSV."""
    done = app.workspace.export(flight_id(flight), out_dir, single=single, formats=formats, method=method)
    answer(as_json, asdict(done), lambda: out.print(f"wrote {done}"))
