"""Tags and notes of frames. They belong to the frame: searching its flight again, or renaming it, leaves them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import ColumnElement, delete, false, func, or_, select, union
from sqlalchemy.orm import Session

from coarseloc.core import ids
from coarseloc.core.errors import InputError
from coarseloc.core.marks import MOST_TAGS, UNMARKED, FrameMarks, parse_note, parse_tags
from coarseloc.core.types import batches
from coarseloc.store.tables import FlightRow, FrameNoteRow, FrameRow, FrameTagRow, upsert

_AT_ONCE = 500  # frames in one statement


def frame_marks(
    session: Session, flight_id: str, frame_indices: Collection[int] | None = None
) -> dict[int, FrameMarks]:
    """Read {frame index: marks} of a flight's frames that have any, in the order of their indices; of all or some."""
    condition = FlightRow.flight_id == ids.label(flight_id)
    if frame_indices is not None:
        condition &= FrameRow.index.in_(frame_indices)
    return {index: marks for (_, index), marks in sorted(_marks(session, condition).items())}


def marks_of_flights(
    session: Session, indices_by_flight: Mapping[str, Collection[int]]
) -> dict[tuple[str, int], FrameMarks]:
    """Read {(flight, frame index): marks} of some frames of several flights; of those that have any."""
    conditions = [
        (FlightRow.flight_id == flight_id) & FrameRow.index.in_(indices)
        for flight_id, indices in indices_by_flight.items()
    ]
    return _marks(session, or_(false(), *conditions))


def _marks(session: Session, condition: ColumnElement[bool]) -> dict[tuple[str, int], FrameMarks]:
    frame = (FlightRow.flight_id, FrameRow.index)
    joined = FlightRow.id == FrameRow.flight_pk
    tags = select(*frame, FrameTagRow.tag).join(FrameRow, joined).join(FrameTagRow).where(condition)
    notes = select(*frame, FrameNoteRow.text).join(FrameRow, joined).join(FrameNoteRow).where(condition)
    marks: dict[tuple[str, int], FrameMarks] = {}
    for flight_id, index, tag in session.execute(tags.order_by(FrameTagRow.tag)):
        marks[flight_id, index] = FrameMarks((*marks.get((flight_id, index), UNMARKED).tags, tag))
    for flight_id, index, text in session.execute(notes):
        marks[flight_id, index] = FrameMarks(marks.get((flight_id, index), UNMARKED).tags, text)
    return marks


def tags_in_use(session: Session) -> dict[str, int]:
    """Count {tag: frames of all flights}, by tag."""
    query = select(FrameTagRow.tag, func.count()).group_by(FrameTagRow.tag).order_by(FrameTagRow.tag)
    return {tag: count for tag, count in session.execute(query)}


def tagged_frames(session: Session, tags: Collection[str]) -> dict[str, set[int]]:
    """Read {flight: indices of its frames} that have any of these tags."""
    query = (
        select(FlightRow.flight_id, FrameRow.index)
        .join(FrameRow, FrameRow.flight_pk == FlightRow.id)
        .join(FrameTagRow)
        .where(FrameTagRow.tag.in_(tags))
    )
    frames: dict[str, set[int]] = {}
    for flight_id, index in session.execute(query):
        frames.setdefault(flight_id, set()).add(index)
    return frames


def count_marked(session: Session, flight_pk: int) -> int:
    """Count a flight's frames that have a tag or a note."""
    marked = union(select(FrameTagRow.frame_id), select(FrameNoteRow.frame_id)).subquery()
    query = select(func.count()).select_from(FrameRow).join(marked, marked.c.frame_id == FrameRow.id)
    return session.scalar(query.where(FrameRow.flight_pk == flight_pk)) or 0


def mark_frames(
    session: Session,
    flight_id: str,
    frame_indices: Sequence[int],
    *,
    add: Sequence[str] = (),
    remove: Sequence[str] = (),
    note: str | None = None,
) -> int:
    """Give frames of a flight tags, take tags off, and write their note; return how many frames that is.

    add, remove: texts with tags in them, see `core.marks.parse_tags`; a tag in both stays. note: "" takes it off, None
    leaves it. Raises InputError for frames that the flight has not, and for what is no tag or no note; nothing is
    written then.
    """
    added = parse_tags(add)
    removed = set(parse_tags(remove)) - set(added)
    text = None if note is None else parse_note(note)
    keys = _frame_keys(session, flight_id, frame_indices)
    for batch in batches(keys, _AT_ONCE):
        session.execute(delete(FrameTagRow).where(FrameTagRow.frame_id.in_(batch), FrameTagRow.tag.in_(removed)))
    upsert(session, FrameTagRow, [{"frame_id": key, "tag": tag} for key in keys for tag in added], ("frame_id", "tag"))
    _check_number(session, keys)
    if text:
        upsert(session, FrameNoteRow, [{"frame_id": key, "text": text} for key in keys], ("frame_id",))
    elif text is not None:
        for batch in batches(keys, _AT_ONCE):
            session.execute(delete(FrameNoteRow).where(FrameNoteRow.frame_id.in_(batch)))
    return len(keys)


def _frame_keys(session: Session, flight_id: str, frame_indices: Sequence[int]) -> dict[int, int]:
    """{primary key: index} of frames. Raises InputError naming those that the flight has not."""
    query = select(FrameRow.index, FrameRow.id).join(FlightRow, FlightRow.id == FrameRow.flight_pk)
    of_flight = {index: key for index, key in session.execute(query.where(FlightRow.flight_id == ids.label(flight_id)))}
    if missing := sorted(set(frame_indices) - of_flight.keys()):
        there = f"it has {len(of_flight)}, from {min(of_flight)} to {max(of_flight)}" if of_flight else "it has none"
        more = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise InputError(f"flight {flight_id!r} has no frame {missing[0]}{more}: {there}")
    return {of_flight[index]: index for index in frame_indices}


def _check_number(session: Session, keys: Mapping[int, int]) -> None:
    for batch in batches(keys, _AT_ONCE):
        counts = (
            select(FrameTagRow.frame_id, func.count())
            .where(FrameTagRow.frame_id.in_(batch))
            .group_by(FrameTagRow.frame_id)
            .having(func.count() > MOST_TAGS)
        )
        for key, count in session.execute(counts):
            raise InputError(f"frame {keys[key]} would have {count} tags: expected {MOST_TAGS} at most")
