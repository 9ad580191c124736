"""`coarseloc demo`: the main job from nothing, on a generated area, with the encoder that comes along."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import click

from coarseloc.cli.ingest import show_ingest
from coarseloc.cli.search import show_runs
from coarseloc.cli.terminal import out, progress_bar, workspace_on_terminal
from coarseloc.core import config
from coarseloc.core.filters import Where
from coarseloc.embedding.encoders import Encoders
from coarseloc.workspace import Workspace

FOLDER = Path("demo-data")
SEED = 2025
FOOTPRINT_M = 400.0
FLIGHT_ID = "251124155712"
FRAMES = 48
INPUT_PX = 224  # the model card's


@click.command()
@click.option("--fresh", is_flag=True, help="Remove the demonstration's folder and begin again.")
@click.pass_context
def demo(context: click.Context, fresh: bool) -> None:
    """Make an area and a flight, ingest, search, export, and say how to see more.

    Works in ./demo-data unless --data-dir says otherwise. Run again, it goes on or finds all done.
    """
    chosen = context.parent and context.parent.params["data_dir"]
    folder = Path(chosen or FOLDER).absolute()
    if fresh and folder.exists():
        with Workspace(config.load(folder)).vectors():  # a server at work in it is told of, not pulled from under
            pass
        shutil.rmtree(folder)
    workspace = workspace_on_terminal(config.load(folder))
    started = time.perf_counter()
    area = _area(folder)
    flight = _flight(folder, area)
    from coarseloc.imagery.flights import open_flight
    from coarseloc.imagery.orthophoto import open_orthophoto

    encoders = Encoders(workspace.settings, input_px=INPUT_PX)
    out.print("\n2. Ingest: the area as reference tiles, turned to eight headings, embedded")
    source = open_orthophoto(area, name="demo", footprint_m=FOOTPRINT_M, altitude_m=300, overlap=0.5)
    show_ingest(workspace.ingest(source, ["demo"], encoders=encoders))
    out.print("\n3. Search: the flight's frames against them")
    where = Where(reference_sets=("demo",))
    runs = workspace.search(open_flight(flight), where=where, backbones=["demo"], encoders=encoders)
    show_runs([run.facts() for run in runs])
    results = folder / "results"
    exported = workspace.export(FLIGHT_ID, results)
    out.print(f"\n4. Export: {exported}")
    out.print(f"\nAll in {time.perf_counter() - started:.0f} s. To see more:")
    out.print("  make serve                           the pages, at http://127.0.0.1:8000")
    out.print(f"  ls {_short(results)}                 CoarseLocalizationInfo, GeoJSON, KML, CSV")
    out.print(
        f"  .venv/bin/coarseloc --data-dir {_short(folder)} lookup {_short(flight)}/{FLIGHT_ID}_00001.jpg --angle 90"
    )


def _area(folder: Path) -> Path:
    """The orthophoto that references are cut from, and that the flight will see in other light and colours."""
    from coarseloc.simulate.terrain import write_area

    out.print("1. Make: an area of 3 × 2.4 km and a flight over it, in another season's light, with truth")
    path = folder / "area.tif"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_area(path.with_suffix(".partial.tif"), SEED).replace(path)
    return path


def _flight(folder: Path, area: Path) -> Path:
    from coarseloc.simulate.flight import simulate_flight

    flights = folder / "flights"
    flight = flights / FLIGHT_ID
    if len(list(flight.glob("*.jpg"))) == FRAMES and (flight / "labels.json").exists():
        return flight
    if flight.exists():  # an earlier run was stopped in the middle
        shutil.rmtree(flight)
    with progress_bar("frames") as progress:
        simulate_flight(
            area,
            flights,
            flight_id=FLIGHT_ID,
            frames=FRAMES,
            footprint_m=FOOTPRINT_M,
            seed=SEED,
            progress=progress,
        )
    return flight


def _short(path: Path) -> str:
    """Relative to where the user stands, where that is shorter."""
    working_dir = Path.cwd()
    return str(path.relative_to(working_dir)) if path.is_relative_to(working_dir) else str(path)
