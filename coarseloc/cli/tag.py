"""`coarseloc tag`: tags and notes on frames."""

from __future__ import annotations

import re
from collections.abc import Sequence

import click

from coarseloc.cli.options import flight_id
from coarseloc.cli.terminal import answer, json_option, next_step, out, pass_workspace, table
from coarseloc.core.errors import InputError
from coarseloc.core.marks import parse_tags
from coarseloc.workspace import Workspace

_FRAMES = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


@click.command()
@click.argument("flight")
@click.argument("frames", nargs=-1)
@click.option("--add", multiple=True, metavar="TAGS", help="Give the frames tags, such as glint or cloud,to-check.")
@click.option("--remove", multiple=True, metavar="TAGS", help="Take tags off the frames.")
@click.option("--note", metavar="TEXT", help='Write a note on each of the frames; "" takes it off.')
@json_option
@pass_workspace
def tag(
    workspace: Workspace,
    flight: str,
    frames: Sequence[str],
    add: Sequence[str],
    remove: Sequence[str],
    note: str | None,
    as_json: bool,
) -> None:
    """Mark FRAMES of FLIGHT (such as 3 and 7-12) with tags and a note; without options, list what is marked."""
    name = flight_id(flight)
    indices = _indices(workspace, name, frames) if frames else None
    writes = bool(add or remove or note is not None)
    if writes:
        if indices is None:
            raise InputError("no frames are named: give their numbers after the flight, such as 3 7-12")
        if note is None and not parse_tags((*add, *remove)):
            raise InputError("no tag is given: expected words after --add or --remove, such as glint or cloud,to-check")
        workspace.mark_frames(name, indices, add=add, remove=remove, note=note)
    marked = workspace.frame_marks(name, indices)
    facts = {
        "flight_id": name,
        "frames": [
            {"frame_index": index, "tags": list(marks.tags), "note": marks.note} for index, marks in marked.items()
        ],
    }

    def show() -> None:
        if writes:
            out.print(f"marked {len(indices or ())} frames of {name}")
        elif not marked:
            out.print(f"none of these frames of {name} is marked" if indices else f"no frame of {name} is marked")
            next_step("tag", name, "FRAMES", "--add", "to-check", note="mark some")
        if marked:
            rows = [(index, " ".join(marks.tags), marks.note) for index, marks in marked.items()]
            table("frame", "tags", "note", rows=rows)

    answer(as_json, facts, show)


def _indices(workspace: Workspace, flight: str, texts: Sequence[str]) -> list[int]:
    """The frames that numbers and ranges name; of a range those that the flight has."""
    there = workspace.frame_indices(flight)
    indices: dict[int, None] = {}
    for text in texts:
        match = _FRAMES.fullmatch(text)
        if match is None:
            raise InputError(f"{text!r} names no frame: expected a number, or a range such as 7-12")
        first, last = int(match[1]), int(match[2] or match[1])
        named = [index for index in there if first <= index <= last]
        if not named:
            raise InputError(f"flight {flight!r} has no frame {text}: it has {len(there)} frames")
        indices |= dict.fromkeys(named)
    return list(indices)
