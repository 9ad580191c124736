"""`coarseloc demo`: the main job from nothing, on a generated area, with the encoder that comes along."""

from __future__ import annotations

import shlex
import shutil
import time
from pathlib import Path

import click

from coarseloc.cli.ingest import show_ingest
from coarseloc.cli.search import show_runs
from coarseloc.cli.terminal import next_step, out, progress_bar, workspace_on_terminal
from coarseloc.core import config
from coarseloc.core.errors import InputError
from coarseloc.core.filters import Where
from coarseloc.embedding.encoders import Encoders
from coarseloc.workspace import Workspace

REFERENCE_SET = "demo"
SEED = 2025
FOOTPRINT_M = 400.0
FLIGHT_ID = "251124155712"
FRAMES = 48
INPUT_PX = 224  # the model card's
_OF_THE_DEMONSTRATION = {
    "area.tif", "area.partial.tif", "flights", "results", "ingest.lock", "mirrors", "thumbnails", "uploads", "vectors",
}  # fmt: skip


@click.command()
@click.option("--fresh", is_flag=True, help="Remove the demonstration's folder and begin again.")
@click.pass_context
def demo(context: click.Context, fresh: bool) -> None:
    """Make an area and a flight, ingest, search, export, and say how to see more.

    Works in ./demo-data unless --data-dir or COARSELOC_DATA_DIR says otherwise. Run again, it goes on or finds all
    done.
    """
    named = context.find_root().params["data_dir"]
    folder = (config.named_data_dir(named) or config.DEMO_FOLDER).expanduser().absolute()
    if fresh and folder.exists():
        _remove(folder)
    workspace = workspace_on_terminal(config.load(folder))
    started = time.perf_counter()
    area = _area(folder)
    flight = _flight(folder, area)
    from coarseloc.imagery.flights import open_flight
    from coarseloc.imagery.orthophoto import open_orthophoto

    encoders = Encoders(workspace.settings, input_px=INPUT_PX)
    out.print("\n2. Ingest: the area as reference tiles, turned to eight headings, embedded")
    source = open_orthophoto(area, name=REFERENCE_SET, footprint_m=FOOTPRINT_M, altitude_m=300, overlap=0.5)
    show_ingest(workspace.ingest(source, ["demo"], encoders=encoders))
    out.print("\n3. Search: the flight's frames against them")
    where = Where(reference_sets=(REFERENCE_SET,))
    runs = workspace.search(open_flight(flight), where=where, backbones=["demo"], encoders=encoders)
    show_runs([run.facts() for run in runs])
    results = folder / "results"
    exported = workspace.export(FLIGHT_ID, results)
    out.print(f"\n4. Export: {exported}")
    out.print(f"\nAll in {time.perf_counter() - started:.0f} s, in {_short(folder)}. To see more:")
    short_path = _short(folder)
    next_step("serve", data_dir=short_path, note="the pages, at http://127.0.0.1:8000")
    next_step("track", FLIGHT_ID, data_dir=short_path, note="the flight as one track")
    image = f"{_short(flight)}/{FLIGHT_ID}_00001.jpg"
    next_step("lookup", image, "--angle", "90", data_dir=short_path, note="one image, filtered")
    out.print(f"CoarseLocalizationInfo, GeoJSON, KML and CSV are in {_short(results)}.")
    out.print(f"To do all that follows in this folder: export COARSELOC_DATA_DIR={shlex.quote(str(folder))}")


def _remove(folder: Path) -> None:
    """Remove the demonstration. Raises InputError where the folder holds anything of the user's own."""
    entries = {path.name for path in folder.iterdir()}
    own = {name for name in entries if not name.startswith((".", config.DATABASE_FILE))} - _OF_THE_DEMONSTRATION
    if config.is_data_folder(folder):
        workspace = Workspace(config.load(folder))
        own |= {summary.reference_set.name for summary in workspace.reference_summaries()} - {REFERENCE_SET}
        own |= {listed.flight.flight.flight_id for listed in workspace.flights()} - {FLIGHT_ID}
        with workspace.vectors():  # a server at work in it is told of, not pulled from under
            pass
        workspace.close()
    if own:
        raise InputError(
            f"{folder} holds more than the demonstration: {', '.join(sorted(own))}. --fresh would remove that too: "
            "remove the folder yourself, or name another with --data-dir"
        )
    shutil.rmtree(folder)


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
