"""`coarseloc boresight`: the angle between a camera's line of sight and the vertical, from fixes and truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from coarseloc.cli.options import camera_options, flight_id
from coarseloc.cli.terminal import answer, json_option, out, pass_workspace, table
from coarseloc.core.camera import Camera
from coarseloc.workspace import Workspace

if TYPE_CHECKING:
    from search.boresight import FlightBoresight


@click.command()
@click.argument("flight", metavar="FLIGHT")
@click.option("--run", "run_id", type=int, help="The search run whose fixes are taken. [the newest that has any]")
@click.option("--apply", is_flag=True, help="Write the legs into the flight's flight.toml: later fixes use them.")
@camera_options
@json_option
@pass_workspace
def boresight(
    workspace: Workspace, flight: str, run_id: int | None, apply: bool, camera: Camera, as_json: bool
) -> None:
    """The constant angle between the camera and the vertical on each leg of FLIGHT, and the map's shift.

    From frames that have both a fix (`coarseloc search`) and a true position. Nothing is changed unless --apply is
    given: then the next search takes the frames' attitude from it.
    """
    estimate, file = workspace.boresight(flight_id(flight), run_id=run_id, camera=camera, apply=apply)
    facts = {**estimate.facts(), "written": None if file is None else str(file)}
    answer(as_json, facts, lambda: _show(estimate, file))


def _show(flight: FlightBoresight, file: Path | None) -> None:
    estimate = flight.boresight
    rows = [
        (
            f"{leg.first}–{leg.last}",
            leg.frames,
            f"{leg.heading_deg:.0f}",
            f"{leg.pitch_deg:+.2f}",
            f"{leg.roll_deg:+.2f}",
            f"{leg.sd_deg:.2f}",
            f"{leg.scatter_deg:.2f}",
            "jump" if leg.jump else "",
        )
        for leg in estimate.legs
    ]
    attitude = "beyond the labels' attitude" if flight.attitude else "from the vertical: no labels give the attitude"
    table(
        "frames", "n", "heading °", "pitch °", "roll °", "± °", "scatter °", "", rows=rows,
        title=f"boresight of flight {flight.run.flight_id}, {attitude}",
    )  # fmt: skip
    if estimate.shift_m is None:
        out.print("the map's shift cannot be told: all legs have nearly one heading, so it is in pitch and roll")
    else:
        east, north = estimate.shift_m
        out.print(f"the map lies {east:+.1f} m east, {north:+.1f} m north of the truth (± {estimate.shift_sd_m:.1f} m)")
    if jumps := sum(leg.jump for leg in estimate.legs):
        out.print(f"the camera moved {jumps} times: see the legs marked jump", style="yellow")
    if estimate.unused:
        out.print(f"{len(estimate.unused)} frames on turns and short legs say nothing")
    out.print(f"written to {file}" if file else "nothing is changed: --apply writes the legs into flight.toml")
