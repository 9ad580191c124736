"""What goes into a bundle: selected from the stores, never computed again.

    flight.json            the flight, and of each frame its truth, its file's SHA-256, its tags and its note
    runs/<n>.json          a run: parameters, spec with the weights' digest, environment, sets, fixes' parameters
    runs/<n>.jsonl         its frames, one a line: hits, best place, fix, times
    references/<n>.csv     a set, one view a row: tile, heading, place, its picture's SHA-256, its vectors' BLAKE2b
    answers/<n>.json(l)    answers that no search gives again: tracks, and those on whole maps
    report.html            as `coarseloc report` writes it

No path of the machine that wrote it is inside.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from coarseloc import __version__
from coarseloc.core import files
from coarseloc.core.clock import in_utc
from coarseloc.core.errors import InputError
from coarseloc.core.marks import UNMARKED, FrameMarks
from coarseloc.core.types import Frame, Progress
from coarseloc.imagery.flights import fingerprint
from coarseloc.store import Database, Session, flights, localizations, marks, references, runs, snapshots, tallies
from coarseloc.store.fixes import fixes
from coarseloc.store.flights import StoredFlight
from coarseloc.store.localizations import FIX, StoredLocalization
from coarseloc.store.references import StoredReferenceSet
from coarseloc.store.runs import StoredRun
from coarseloc.store.view_digests import view_digests
from search.bundle.archive import Members, Sign, json_bytes, line_bytes, write_archive
from search.bundle.records import fix_facts, frame_facts, hit_facts, plain
from search.environment import code_digest

REPORT = "report.html"
_FRAMES_AT_ONCE = 200
AS_SEARCHED, CHANGED, GONE = "as-searched", "changed-since", "gone"

Notice = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BundleContents:
    """A flight with what is bundled of it."""

    flight: StoredFlight
    runs: Sequence[StoredRun]
    answers: Sequence[StoredLocalization]
    live_sets: Mapping[str, StoredReferenceSet]  # {uid: set}, of those that runs searched and that are still here
    set_numbers: Mapping[str, int]  # {uid: number in the bundle}
    report: bytes | None
    marks: Mapping[int, FrameMarks]  # {frame index: its tags and note}
    notices: list[str] = field(default_factory=list)

    @property
    def facts(self) -> dict[str, Any]:
        """What the manifest says beside its members."""
        return {
            "flight_id": self.flight.flight.flight_id,
            "flight_uid": self.flight.uid,
            "runs": [run.id for run in self.runs],
            "answers": len(self.answers),
            "written_by": {"coarseloc": __version__, "code_sha256": code_digest()},
        }


@dataclass(frozen=True, slots=True)
class BundleSummary:
    """The bundle that was written."""

    file: str
    digest: str  # SHA-256 of its manifest
    bytes: int
    flight_id: str
    frames: int
    runs: int
    answers: int
    signed: bool
    notices: tuple[str, ...] = ()


def write_bundle(
    db: Database,
    flight_id: str,
    chosen: Sequence[StoredRun],
    file: Path,
    report: bytes | None = None,
    sign: Sign | None = None,
    progress: Progress | None = None,
    notice: Notice = print,
) -> BundleSummary:
    """Write runs of a flight as one file, whole or not at all. See the module, and `archive.write_archive`."""
    contents = select_contents(db, flight_id, chosen, report)
    digest = write_archive(file, contents.facts, bundle_members(db, contents, progress), sign)
    for text in contents.notices:
        notice(text)
    return BundleSummary(
        str(file),
        digest,
        file.stat().st_size,
        contents.flight.flight.flight_id,
        len(contents.flight.flight.frames),
        len(contents.runs),
        len(contents.answers),
        sign is not None,
        tuple(contents.notices),
    )


def select_contents(db: Database, flight_id: str, chosen: Sequence[StoredRun], report: bytes | None) -> BundleContents:
    """Select what is bundled of a flight: its runs, their sets, its tracks and answers on whole maps."""
    with db.read() as session:
        flight = flights.find_flight(session, flight_id)
        live = {stored.uid: stored for stored in references.reference_sets(session)}
        answers = [
            *localizations.newest_map_localizations(session, flight_id),
            *localizations.newest_tracks(session, flight_id),
        ]
        on_frames = marks.frame_marks(session, flight_id)
    uids = dict.fromkeys(uid for run in chosen for uid in run.set_uids)
    numbers = {uid: number for number, uid in enumerate(uids, 1)}
    live_sets = {uid: live[uid] for uid in uids if uid in live}
    return BundleContents(flight, chosen, answers, live_sets, numbers, report, on_frames)


def bundle_members(db: Database, contents: BundleContents, progress: Progress | None = None) -> Members:
    """Yield every member; what could not be told of the flight's files and references is in `contents.notices` then."""
    yield "flight.json", [json_bytes(_flight_facts(contents, progress))]
    texts = _PathlessTexts(contents)
    for number, run in enumerate(contents.runs, 1):
        with db.read() as session:
            yield f"runs/{number}.json", [json_bytes(texts.strip(_run_facts(session, contents, run)))]
            yield f"runs/{number}.jsonl", _frame_lines(session, contents, run, texts)
    for uid, stored in contents.live_sets.items():
        with db.read() as session:
            yield f"references/{contents.set_numbers[uid]}.csv", _reference_rows(session, contents, stored)
    for number, stored_answer in enumerate(contents.answers, 1):
        with db.read() as session:
            yield f"answers/{number}.json", [json_bytes(texts.strip(_answer_facts(stored_answer)))]
            yield f"answers/{number}.jsonl", _answer_lines(session, stored_answer, texts)
    if contents.report is not None:
        yield REPORT, [contents.report]


# --- the flight -----------------------------------------------------------------------------------


def _flight_facts(contents: BundleContents, progress: Progress | None) -> dict[str, Any]:
    stored = contents.flight
    flight = stored.flight
    frames = []
    for count, frame in enumerate(flight.frames, 1):
        on_frame = contents.marks.get(frame.index, UNMARKED)
        frames.append(_frame_of_flight(frame, frame.index in stored.missing) | plain(on_frame))
        if progress:
            progress(count, len(flight.frames), "frames")
    for state in (CHANGED, GONE):
        if count := sum(frame["state"] == state for frame in frames):
            contents.notices.append(
                f"{count} frames are {state}: what was searched cannot be told of them any more, and the bundle holds "
                "no digest of theirs"
            )
    return {
        "flight_id": flight.flight_id,
        "flight_uid": stored.uid,
        "started_at": plain(flight.started_at),
        "truth_source": flight.truth_source,
        "truth_sd_m": flight.truth_sd_m,
        "clock": plain(flight.clock),
        "frames": frames,
    }


def _frame_of_flight(frame: Frame, missing: bool) -> dict[str, Any]:
    digest, size, state = None, None, GONE
    if not missing and (now := fingerprint(frame.path)):
        state = AS_SEARCHED if frame.fingerprint in (None, now) else CHANGED
    if state == AS_SEARCHED:
        digest, size = file_sha256(frame.path)
    return {
        "frame_index": frame.index,
        "relative_path": frame.relative_path,
        "taken_at": plain(frame.time),
        "state": state,
        "sha256": digest,
        "bytes": size,
        "truth": plain(frame.truth),
    }


def file_sha256(path: Path) -> tuple[str, int]:
    """(SHA-256 of a file's content, hexadecimal; its bytes). Raises InputError where it cannot be read."""
    try:
        files.refuse_special(path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return digest, file.tell()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


# --- runs -----------------------------------------------------------------------------------------


def _run_facts(session: Session, contents: BundleContents, run: StoredRun) -> dict[str, Any]:
    state = _references_state(session, contents, run)
    if state != AS_SEARCHED:
        names = ", ".join(facts.name for facts in run.reference_sets)
        contents.notices.append(
            f"run {run.id}: its references ({names}) are {state}: the digests of their pictures as they were searched "
            "are known of its hits alone"
        )
    fix = localizations.newest_localization(session, run.id, FIX)
    places = snapshots.search_map(session, run.search_map)
    return {
        "run": run.id,
        "flight_id": run.flight_id,
        "spec": run.spec.embedding_spec.facts(),
        "spec_digest": run.spec.digest,
        "sets": [
            {"number": contents.set_numbers[uid], "uid": uid, **plain(facts), "source": Path(facts.source).name}
            for uid, facts in zip(run.set_uids, run.reference_sets, strict=True)
        ],
        "references_state": state,
        "references": run.references,
        "places": {"count": len(places), "sha256": hashlib.sha256(places.tobytes()).hexdigest()},
        "parameters": dict(run.parameters),
        "fix_parameters": None if fix is None else localizations.find_localization(session, fix).parameters,
        "environment": dict(run.environment),
        "index_build_ms": run.index_build_ms,
        "created_at": plain(in_utc(run.created_at)),
        "finished_at": run.finished_at and plain(in_utc(run.finished_at)),
    }


def _references_state(session: Session, contents: BundleContents, run: StoredRun) -> str:
    """Whether the sets hold what the run searched: by the versions of their embeddings, which grow with every write."""
    if not all(uid in contents.live_sets for uid in run.set_uids):
        return GONE
    versions = [tallies.tally(session, contents.live_sets[uid].id, run.spec.id).version for uid in run.set_uids]
    return AS_SEARCHED if "+".join(versions) == run.parameters.get("index_version") else CHANGED


def _frame_lines(session: Session, contents: BundleContents, run: StoredRun, texts: _PathlessTexts) -> Iterator[bytes]:
    names = {facts.name: contents.set_numbers[uid] for uid, facts in zip(run.set_uids, run.reference_sets, strict=True)}
    indices = [frame.index for frame in contents.flight.flight.frames]
    for start in range(0, len(indices), _FRAMES_AT_ONCE):
        for result in runs.results(session, run.id, indices[start : start + _FRAMES_AT_ONCE]):
            hits = [hit_facts(hit, names) for hit in result.hits]
            facts = frame_facts(result.frame.index, result.error, result.timing, hits, result.estimate, result.fix)
            yield line_bytes(texts.strip(facts))


def _reference_rows(session: Session, contents: BundleContents, stored: StoredReferenceSet) -> Iterator[bytes]:
    specs = {run.spec.id: run.spec.digest for run in contents.runs if stored.uid in run.set_uids}
    columns = ("tile_index", "angle_deg", "place_id", "lon", "lat", "west", "south", "east", "north", "content_sha256")
    yield _csv_line([*columns, *(vector_column(digest) for digest in specs.values())])
    for view in view_digests(session, stored.id, list(specs)):
        yield _csv_line(
            [view.tile_index, view.angle_deg, view.place_id, *view.center, *view.bbox, view.content_digest]
            + [digest or "" for digest in view.vectors]
        )


def vector_column(spec_digest: str) -> str:
    """The column of a set's table that holds the digests of the vectors of a spec."""
    return f"vector_blake2b_{spec_digest[:12]}"


def _csv_line(row: Sequence[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue().encode()


# --- other answers --------------------------------------------------------------------------------


def _answer_facts(stored: StoredLocalization) -> dict[str, Any]:
    return {
        "method": stored.method,
        "reference_set": stored.reference_set,
        "set_uids": list(stored.set_uids),
        "backbones": list(stored.backbones),
        "parameters": plain(stored.parameters),
        "created_at": plain(in_utc(stored.created_at)),
        "finished_at": stored.finished_at and plain(in_utc(stored.finished_at)),
    }


def _answer_lines(session: Session, stored: StoredLocalization, texts: _PathlessTexts) -> Iterator[bytes]:
    if stored.method == localizations.WHOLE_MAP:
        for index, fix in sorted(fixes(session, stored.id).items()):
            yield line_bytes(texts.strip({"frame_index": index, "fix": fix_facts(fix)}))
    else:
        for index, estimate in localizations.track(session, stored).items():
            facts = {name: value for name, value in plain(estimate).items() if name != "index"}
            yield line_bytes(texts.strip({"frame_index": index, **facts}))


class _PathlessTexts:
    """Takes the folders of this machine out of texts: what is left are the names below them."""

    def __init__(self, contents: BundleContents) -> None:
        paths = {contents.flight.flight.path, contents.flight.flight.path.parent}
        for run in contents.runs:
            paths |= {Path(facts.source).parent for facts in run.reference_sets}
        paths |= {Path(answer.reference_set).parent for answer in contents.answers}
        folders = {str(path) for path in paths if path.is_absolute() and path != path.parent}
        self._folders = sorted(folders, key=len, reverse=True)

    def strip(self, value: Any) -> Any:
        if isinstance(value, str):
            for folder in self._folders:
                value = value.replace(f"{folder}/", "")
            return PurePath(value).name if PurePath(value).is_absolute() else value
        if isinstance(value, dict):
            return {name: self.strip(part) for name, part in value.items()}
        return [self.strip(part) for part in value] if isinstance(value, list) else value
