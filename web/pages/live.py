"""Show a flight that is being tracked: its track as it grows, the last frame, what was dropped; and the events that say
when to look again.

`coarseloc live` and this server meet in the data folder: the one appends a record a line, the other reads on. Neither
needs the other to run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from flask import Blueprint, Response, request, url_for
from pydantic import Field

from coarseloc.live.recordings import Recording, RecordingReader, line_start, recordings, whole_end, whole_lines
from search.export.records import LiveFrameInfo, TrackInfo
from web.language import _
from web.models import AnswerModel
from web.pages import page
from web.pages.tracks import FrameOnTrack, TrackChoice, TrackPoint, TrackView, track_figures
from web.problems import Problem
from web.state import WebState, current_state

FRAMES_SHOWN = 1000  # the latest; drawing them takes some 20 ms
ROWS_SHOWN = 20
SESSIONS_SHOWN = 20
_POLL_S = 0.25
_SILENCE_S = 5.0  # then a comment is sent, by which a client that has gone is noticed

routes = Blueprint("live", __name__)


class RecordingChoice(AnswerModel):
    """A session of `coarseloc live`; `name` chooses it in an address (`?session=`)."""

    name: str
    started_at: datetime = Field(description="UTC")


class LiveView(AnswerModel):
    """A flight that is, or was, tracked live."""

    sessions: list[RecordingChoice] = Field(description="the newest first")
    session: RecordingChoice | None = Field(description="the one shown: by default the newest")
    follows: bool = Field(description="it is the newest: a later one is shown in its place")
    events: str = Field(description="a path on this server: server-sent events, each a LiveFrameInfo")
    latest: LiveFrameInfo | None = Field(description="null until a frame has its estimate")
    recent: list[LiveFrameInfo] = Field(description="the newest first")
    track: TrackView | None


@page(routes, "/live", "live")
def live() -> LiveView:
    state = current_state()
    sessions = recordings(state.settings.data_dir)
    chosen = _chosen(sessions, request.args.get("session"))
    records = _records(state, chosen.path) if chosen else []
    named = request.args.get("session")
    return LiveView(
        sessions=[_choice(session) for session in reversed(sessions[-SESSIONS_SHOWN:])],
        session=_choice(chosen) if chosen else None,
        follows=named is None,
        events=url_for("live.events", session=named),
        latest=records[-1] if records else None,
        recent=records[: -ROWS_SHOWN - 1 : -1],
        track=_track(records) if records else None,
    )


@routes.get("/live/events")
def events() -> Response:
    """Send each record as it is written, from the address's `session` or of the newest one.

    An event's id says up to where it was read, so that a client that comes back misses nothing.
    """
    data_dir = current_state().settings.data_dir
    named = request.args.get("session")
    chosen = _chosen(recordings(data_dir), named)
    offset = _offset_after(chosen, request.headers.get("Last-Event-ID", ""))
    stream = _events(data_dir, chosen, named is None, offset)
    return Response(stream, mimetype="text/event-stream", headers={"Cache-Control": "no-store"})


def _events(data_dir: Path, chosen: Recording | None, follows_newest: bool, offset: int) -> Iterator[str]:
    """offset: from before the answer's head went out. A client looks at the page once it has the head, so that every
    record is either on that page or an event."""
    yield ": \n\n"  # the head of the answer goes out
    sent_s = time.monotonic()
    while True:
        if follows_newest and (sessions := recordings(data_dir)) and sessions[-1] != chosen:
            chosen, offset = sessions[-1], 0
            sent_s = time.monotonic()
            yield f"event: session\ndata: {json.dumps(chosen.name)}\n\n"
        if chosen is not None and chosen.path.is_file():
            for line in whole_lines(chosen.path, offset):
                offset, sent_s = line.end, time.monotonic()
                yield f"id: {line.end} {chosen.name}\nevent: frame\ndata: {line.content.decode()}\n\n"
        if time.monotonic() - sent_s > _SILENCE_S:
            sent_s = time.monotonic()
            yield ": \n\n"
        time.sleep(_POLL_S)


def _offset_after(chosen: Recording | None, last_id: str) -> int:
    """Where a client's last event ended; without one, where the recording ends now."""
    if chosen is None:
        return 0
    end = whole_end(chosen.path)
    offset, _space, name = last_id.partition(" ")
    is_current = name == chosen.name and offset.isdecimal()
    return line_start(chosen.path, min(int(offset), end)) if is_current else end


def _chosen(sessions: Sequence[Recording], named: str | None) -> Recording | None:
    if named is None:
        return sessions[-1] if sessions else None
    chosen = next((session for session in sessions if session.name == named), None)
    if chosen is None:
        raise Problem(404, _("There is no live session {name}. All are listed at /live.", name=named))
    return chosen


def _choice(recording: Recording) -> RecordingChoice:
    return RecordingChoice(name=recording.name, started_at=recording.started_at)


def _records(state: WebState, path: Path) -> list[LiveFrameInfo]:
    return state.memory.recall(("live", path), lambda: RecordingReader(path, FRAMES_SHOWN)).records()


def _track(records: Sequence[LiveFrameInfo]) -> TrackView:
    by_capture = all(record.taken_at is not None for record in records)
    times = [record.taken_at if by_capture else record.arrived_at for record in records]
    joined = [False, *(_continues(before.track, after.track) for before, after in pairwise(records))]
    points = {
        record.sequence: TrackPoint(info=record.track, errors=record.errors, continues=continues)
        for record, continues in zip(records, joined, strict=True)
    }
    choice = TrackChoice(key=0, evidence="fixes", options=[], map="")
    return TrackView(
        choices=[],
        chosen=choice,
        odometry=records[-1].track.odometry,
        causal=track_figures(points),
        smoothed=None,
        gaps=[],
        frames=[
            FrameOnTrack(
                index=record.frame_index,
                elapsed_s=(time - times[0]).total_seconds() if time and times[0] else None,
                truth=record.truth.location if record.truth else None,
                causal=points[record.sequence],
                smoothed=None,
                top1_jump_m=None,
            )
            for record, time in zip(records, times, strict=True)
        ],
    )


def _continues(before: TrackInfo, after: TrackInfo) -> bool:
    """As `core.tracks.continues`, of records."""
    return (
        before.location is not None
        and after.location is not None
        and before.reset_counter == after.reset_counter
        and before.point == after.point
    )
