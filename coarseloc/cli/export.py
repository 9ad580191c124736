"""`coarseloc export`: a flight's records for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from coarseloc.cli.app import App, answer, json_option, out, pass_app
from coarseloc.cli.options import flight_id, method_option
from search.export.files import FORMATS


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
