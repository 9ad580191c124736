"""`coarseloc simulate …`: areas, flights and capture trees with known truth, for trying things out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from coarseloc.cli.options import Angles, Overlap
from coarseloc.cli.terminal import next_step, out, progress_bar
from coarseloc.core.errors import InputError
from coarseloc.core.rotation import HEADINGS

_positive = click.FloatRange(min=0, min_open=True)


@click.group()
def simulate() -> None:
    """Make test material with known truth: an area, a flight over it, a capture tree."""


@simulate.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--season", type=int, default=0, show_default=True, help="The same place in another month.")
@click.option("--style", default="mixed", show_default=True, help="mixed, city, suburb, farmland, forest or coast.")
@click.option("--width-m", type=_positive, default=3000.0, show_default=True)
@click.option("--height-m", type=_positive, default=2400.0, show_default=True)
@click.option("--gsd-m", type=_positive, default=2.0, show_default=True, help="Metres per pixel.")
def area(file: Path, **options: Any) -> None:
    """Write a generated area as a GeoTIFF."""
    from coarseloc.simulate.terrain import write_area

    if file.exists():
        raise InputError(f"{file} is there already: choose another name, or remove it")
    file.parent.mkdir(parents=True, exist_ok=True)
    out.print(f"wrote {write_area(file, **options)}")
    next_step("simulate", "flight", file, "--out", "flights", "--footprint-m", 400, note="a flight over it, with truth")


@simulate.command()
@click.argument("orthophoto", type=click.Path(path_type=Path, exists=True))
@click.option("--out", "out_dir", type=click.Path(path_type=Path), required=True, help="The flight's folder goes here.")
@click.option("--flight-id", default="251124155712", show_default=True)
@click.option("--frames", type=click.IntRange(min=1), default=60, show_default=True)
@click.option("--footprint-m", type=_positive, required=True, help="What a level frame sees, on a side.")
@click.option("--path", type=click.Choice(["track", "random"]), default="track", show_default=True)
@click.option("--side-px", type=click.IntRange(min=16), default=512, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--plain", is_flag=True, help="Only turn and place: no tilt, light, blur, noise or season.")
def flight(orthophoto: Path, out_dir: Path, plain: bool, **options: Any) -> None:
    """Photograph an orthophoto from the air, with the truth in a label JSON."""
    from coarseloc.simulate.camera import Changes
    from coarseloc.simulate.flight import simulate_flight

    with progress_bar("frames") as progress:
        simulated = simulate_flight(
            orthophoto, out_dir, changes=Changes.none() if plain else None, progress=progress, **options
        )
    out.print(f"wrote {simulated.path} with {len(simulated.frames)} frames")
    next_step("search", simulated.path, note="once references are ingested")


@simulate.command()
@click.argument("orthophoto", type=click.Path(path_type=Path, exists=True))
@click.option("--out", "out_root", type=click.Path(path_type=Path), required=True, help="The capture tree's root.")
@click.option("--footprint-m", type=_positive, required=True)
@click.option("--altitude-m", type=_positive, default=300.0, show_default=True, help="As the capture names say it.")
@click.option("--overlap", type=Overlap(), default="50", show_default=True)
@click.option("--angles", type=Angles(), default=HEADINGS, help="Headings to turn to. [0,45,…,315]")
@click.option("--tile-px", type=click.IntRange(min=16))
@click.option("--stamp", default="251210182149", show_default=True, help="The captures' time, YYMMDDhhmmss.")
def captures(
    orthophoto: Path,
    out_root: Path,
    footprint_m: float,
    altitude_m: float,
    overlap: float,
    angles: tuple[int, ...],
    tile_px: int | None,
    stamp: str,
) -> None:
    """Cut an orthophoto into turned captures with labels, exactly as `ingest captures` reads them."""
    from coarseloc.imagery.orthophoto import open_orthophoto
    from coarseloc.simulate.captures import write_captures

    source = open_orthophoto(
        orthophoto, footprint_m=footprint_m, altitude_m=altitude_m, overlap=overlap, angles=angles, tile_px=tile_px
    )
    with progress_bar("images") as progress:
        folders = write_captures(source, out_root, stamp=stamp, progress=progress)
    out.print(f"wrote {len(folders)} captures of {len(source.tiles)} images under {out_root}")
    next_step("ingest", "captures", out_root, note="as reference tiles")
