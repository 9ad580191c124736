"""Take what people write on frames: tags and notes, of the gallery's picked rows or of one frame."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, redirect, request
from pydantic import Field
from werkzeug.wrappers import Response as AnyResponse

from coarseloc.core.marks import UNMARKED, parse_tags
from coarseloc.store import marks
from web.gallery_rows import gallery_table, parse_key
from web.language import _
from web.models import AnswerModel, Note, Tags, Url, json_response
from web.pages import address
from web.problems import Problem, accepts_html
from web.selection import stored_flight
from web.state import current_state

routes = Blueprint("marks", __name__)

ACTIONS = ("add", "remove", "note")


class MarksReceipt(AnswerModel):
    """How many frames were marked, and where they are shown."""

    frames: int = Field(ge=1)
    url: str = Url


class FrameMarksView(AnswerModel):
    """What is written on a frame now."""

    tags: list[str] = Tags
    note: str = Note


@routes.post("/gallery/marks")
def mark_rows() -> AnyResponse:
    """Give the frames of the gallery's picked rows tags, take tags off, or write their note; then show the gallery as
    this address asks for it."""
    changes, frames_by_flight = _changes(), _picked_frames()
    with current_state().database.write() as session:
        count = sum(
            marks.mark_frames(session, flight_id, sorted(indices), **changes)
            for flight_id, indices in frames_by_flight.items()
        )
    url = address("gallery.gallery", {}, request.args.to_dict(flat=False))
    return redirect(url, 303) if accepts_html() else json_response(MarksReceipt(frames=count, url=url))


@routes.post("/flights/<flight_id>/<int:frame>/marks")
def mark_frame(flight_id: str, frame: int) -> AnyResponse:
    """Write a frame's tags and its note anew."""
    state, tags = current_state(), parse_tags(request.form.getlist("tags"))
    if not stored_flight(state.database, flight_id, [frame]).flight.frames:
        raise Problem(404, _("There is no frame {index} in flight {name}.", index=frame, name=flight_id))
    with state.database.write() as session:
        before = marks.frame_marks(session, flight_id, [frame]).get(frame, UNMARKED)
        note = request.form.get("note", "")
        marks.mark_frames(session, flight_id, [frame], add=tags, remove=before.tags, note=note)
        after = marks.frame_marks(session, flight_id, [frame]).get(frame, UNMARKED)
    if accepts_html():
        query = request.args.to_dict(flat=False)
        return redirect(address("frame.frame", {"flight_id": flight_id, "frame": frame}, query), 303)
    return json_response(FrameMarksView(tags=list(after.tags), note=after.note))


def _changes() -> dict[str, Any]:
    """What the form asks for, as `mark_frames` takes it. Raises Problem 400 where it asks for nothing."""
    action, tags = request.form.get("do", ""), parse_tags(request.form.getlist("tags"))
    if action not in ACTIONS:
        known = ", ".join(ACTIONS)
        raise Problem(400, _("{value} is no way to mark frames: ask for {known}.", value=action, known=known))
    if action == "note":
        return {"note": request.form.get("note", "")}
    if not tags:
        raise Problem(400, _("No tag is given. Write one, such as to-check."))
    return {action: tags}


def _picked_frames() -> dict[str, set[int]]:
    """{flight: indices} of the rows that the form picks. Raises Problem 400 where there is none."""
    table = gallery_table()
    frames: dict[str, set[int]] = {}
    for row in table.rows_of([parse_key(text) for text in request.form.getlist("pick")]).tolist():
        frames.setdefault(table.text(row, "flight"), set()).add(int(table.frame[row]))
    if not frames:
        raise Problem(400, _("No frame is picked. Pick those that are meant, then mark them."))
    return frames
