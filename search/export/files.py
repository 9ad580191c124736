"""A flight's newest runs as JSON, GeoJSON, KML and CSV files, and its stored tracks as files of their own, each written
whole or not at all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from coarseloc.core import files, ids
from coarseloc.core.clock import utc_offset_text
from coarseloc.core.errors import InputError
from coarseloc.core.types import Flight, Progress
from coarseloc.store import Database, flights, localizations, runs
from coarseloc.store.localizations import BEST_PLACE
from coarseloc.store.runs import StoredRun
from search.export import track_features
from search.export.features import LAYERS, FlightFeatures, layer_text
from search.export.formats import Document, csv_row, to_csv
from search.export.gpx import track_gpx
from search.export.infos import FrameInfo, frame_infos, group_by_question, newest_runs
from search.export.kml import flight_kml, track_kml
from search.export.mcap import require_mcap, track_mcap
from search.export.nmea import track_nmea
from search.export.tracks import FlightTrack, flight_tracks, with_terrain

if TYPE_CHECKING:
    from search.export.grid import ProjectedGrid

FORMATS = ("json", "geojson", "kml", "csv")  # of runs
TRACK_FORMATS = ("track-geojson", "track-kml", "gpx", "nmea", "mcap")
_WITHOUT_UTC = ("track-geojson", "track-kml")

TrackRefusal = Literal["no-track", "no-time", "no-utc", "no-extra"]


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """The folder and number of the files written."""

    folder: str
    flight_id: str
    runs: int
    records: int
    failures: int  # frames without a record, once for each run
    files: int
    unmatched: int = 0  # of those: searched, but without a fix, where fixes were asked for
    crs: str | None = None  # of x and y
    crs_accuracy_m: float | None = None  # of the transformation from WGS84, as PROJ states it
    tracks: int = 0
    notices: tuple[str, ...] = ()

    def __str__(self) -> str:
        unsearched = self.failures - self.unmatched
        failed = f", {unsearched} could not be searched" if unsearched else ""
        unmatched = f", {self.unmatched} have no fix" if self.unmatched else ""
        grid = f"; x and y in {self.crs}, {self._accuracy()}" if self.crs else ""
        tracks = f"{self.tracks} track{'s' if self.tracks > 1 else ''}" if self.tracks else ""
        records = f"{self.records} records" if self.runs or not tracks else ""
        contents = " and ".join(filter(None, (records, tracks)))
        counts = f"{contents} of flight {self.flight_id} in {self.files} files"
        return f"{counts} to {self.folder}{failed}{unmatched}{grid}"

    def _accuracy(self) -> str:
        if self.crs_accuracy_m is None:
            return "whose datum is tied to WGS84 with an accuracy that PROJ does not state"
        if self.crs_accuracy_m == 0.0:
            return "on the datum of WGS84"
        return f"whose datum is tied to WGS84 within {self.crs_accuracy_m:g} m"


def export(
    db: Database,
    thumbnails: Path,
    flight_id: str,
    out_dir: Path,
    *,
    single: bool = False,
    formats: Sequence[str] | None = None,
    reference_set: str | None = None,
    method: str = BEST_PLACE,
    crs: str | None = None,
    utc_offset_s: int | None = None,
    dem: Path | None = None,
    track_name: str | None = None,
    progress: Progress | None = None,
) -> ExportSummary:
    """Write a flight's newest runs (`FORMATS`) and stored tracks (`TRACK_FORMATS`); without `formats`, what it has of
    them, but for what needs UTC.

    Runs are the newest finished ones of each reference set, backbone, heading and filter. "json":
    `<flight>_<frame>_<backbone>.json` each, in a folder per reference set where there are several, or one
    `<flight>.json` with `single`; "geojson": truth, estimates and fixes as points, and where frames were looked for in
    metres a file for each of `LAYERS`; "kml" and "csv": one file. Frames without a record are in the CSV, in the
    KML and GeoJSON as failures, in the single document and in the count. Tracks are those of `flight_tracks`:
    `<flight>_track.…`, with the reference set's name where there are several. crs: positions in this projected CRS too.
    utc_offset_s: of the frames' times, for tracks, in place of what is stored. dem: heights of the ground, for tracks.
    track_name: which of several tracks (`StoredLocalization.track_name`); in records one without options before others.
    Raises StoreError (unknown flight, nothing finished) and InputError (unknown format or CRS, no UTC for a format that
    needs it, folder not writable), before anything is written where it can be known then.
    """
    formats = default_formats(db, flight_id, reference_set) if formats is None else formats
    if unknown := set(formats) - {*FORMATS, *TRACK_FORMATS}:
        known = ", ".join((*FORMATS, *TRACK_FORMATS))
        raise InputError(f"format {', '.join(sorted(unknown))} is not known: expected some of {known}")
    grid = projected_grid(crs)
    of_runs, of_tracks = set(formats) & set(FORMATS), set(formats) & set(TRACK_FORMATS)
    if utc_offset_s is not None and not of_tracks:
        raise InputError(f"--utc-offset is for tracks ({', '.join(TRACK_FORMATS)}), and none is exported: leave it out")
    if dem is not None and not of_tracks:
        raise InputError(f"--dem is for tracks ({', '.join(TRACK_FORMATS)}), and none is exported: leave it out")
    newest = newest_runs(db, flight_id, reference_set) if of_runs else []
    tracks = flight_tracks(db, flight_id, reference_set, method, utc_offset_s) if of_tracks else []
    if track_name is not None and of_tracks:
        tracks = _tracks_named(tracks, track_name)
    if dem is not None:
        tracks = [with_terrain(track, dem) for track in tracks]
    contents = track_contents(tracks, formats, grid)
    with db.read() as session:
        flight = flights.find_flight(session, flight_id).flight
    counts: Counter[str] = Counter()
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        if newest:
            infos = _all_infos(db, thumbnails, flight, newest, method, grid, track_name)
            counts = _write_runs(out_dir, flight, newest, infos, formats, single, grid, progress)
        for name, content in contents.items():
            files.write_bytes(out_dir / name, content)
    except OSError as error:
        raise InputError(
            f"{error.filename or out_dir} cannot be written: {error.strerror}; give another --out"
        ) from None
    return ExportSummary(
        str(out_dir),
        flight_id,
        len(newest),
        counts["records"],
        counts["failures"],
        counts["files"] + len(contents),
        counts["unmatched"],
        grid.crs if grid else None,
        grid.accuracy_m if grid else None,
        len(tracks),
        _track_notices(tracks, formats, flight.clock.utc_offset_s),
    )


def default_formats(db: Database, flight_id: str, reference_set: str | None = None) -> tuple[str, ...]:
    """The formats that a flight has something for, but for those that need UTC; all of runs where it has nothing."""
    with db.read() as session:
        flights.find_flight(session, flight_id)
        has_runs = bool(runs.latest_runs(session, flight_id, reference_set))
        newest = localizations.newest_tracks(session, flight_id)
    has_tracks = any(reference_set in (None, stored.reference_set) for stored in newest)
    return (*(FORMATS if has_runs or not has_tracks else ()), *(_WITHOUT_UTC if has_tracks else ()))


def _write_runs(
    out_dir: Path,
    flight: Flight,
    newest: Sequence[StoredRun],
    infos: Iterator[FrameInfo],
    formats: Sequence[str],
    single: bool,
    grid: ProjectedGrid | None,
    progress: Progress | None,
) -> Counter[str]:
    """Write the files of runs; count records, failures, unmatched, files."""
    name, file_name = ids.file_name(flight.flight_id), _file_names(newest)
    document, features = Document(flight), FlightFeatures(flight, grid)
    texts = [document.head()]
    rows: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    for completed, frame_info in enumerate(infos, start=1):
        rows.append(csv_row(flight, frame_info, grid))
        features.add(frame_info)
        counts["failures" if frame_info.info is None else "records"] += 1
        counts["unmatched"] += frame_info.info is None and frame_info.result.fix is not None
        if "json" in formats and single:
            texts.append(document.add(frame_info))
        elif "json" in formats and frame_info.info is not None:
            counts["files"] += 1
            write_json(out_dir / file_name(frame_info), frame_info.info.to_json())
        if progress:
            progress(completed, len(newest) * len(flight.frames), "frames")
    if single and "json" in formats:
        counts["files"] += 1
        _write(out_dir / f"{name}.json", "".join([*texts, document.tail()]))
    if "geojson" in formats:
        counts["files"] += 1
        write_json(out_dir / f"{name}.geojson", features.to_geojson())
        counts["files"] += _write_layers(out_dir, name, features)
    if "kml" in formats:
        counts["files"] += 1
        _write(out_dir / f"{name}.kml", flight_kml(features))
    if "csv" in formats:
        counts["files"] += 1
        _write(out_dir / f"{name}.csv", to_csv(rows))
    return counts


def _tracks_named(tracks: Sequence[FlightTrack], name: str) -> list[FlightTrack]:
    named = [track for track in tracks if track.stored.track_name == name]
    if not named:
        names = ", ".join(repr(other) for other in sorted({track.stored.track_name for track in tracks}))
        raise InputError(f"no track {name!r} is stored: expected one of {names}")
    return named


def track_contents(
    tracks: Sequence[FlightTrack], formats: Sequence[str], grid: ProjectedGrid | None
) -> dict[str, bytes]:
    """{file's name: its content} of tracks. Raises InputError where a format needs UTC and it is not known."""
    texts: dict[str, str] = {}
    contents: dict[str, bytes] = {}
    for name, track in zip(_track_names(tracks), tracks, strict=True):
        if "track-geojson" in formats:
            texts[f"{name}.geojson"] = layer_text(track_features.lines(track))
            texts[f"{name}_points.geojson"] = layer_text(track_features.points(track, grid))
            texts[f"{name}_ellipses.geojson"] = layer_text(track_features.ellipses(track))
        if "track-kml" in formats:
            texts[f"{name}.kml"] = track_kml(track)
        if "gpx" in formats:
            texts[f"{name}.gpx"] = track_gpx(track)
        if "nmea" in formats:
            texts[f"{name}.nmea"] = track_nmea(track)
        if "mcap" in formats:
            contents[f"{name}.mcap"] = track_mcap(track)
    return contents | {name: text.encode() for name, text in texts.items()}


def track_refusal(tracks: Sequence[FlightTrack], format_name: str) -> TrackRefusal | None:
    """Why `track_contents` would not write these tracks in a format, without writing them; None where it would."""
    if not tracks:
        return "no-track"
    if format_name in _WITHOUT_UTC:
        return None
    if any(tracked.frame.time is None for track in tracks for tracked in track.frames):
        return "no-time"
    if not all(track.has_utc for track in tracks):
        return "no-utc"
    if format_name == "mcap":
        try:
            require_mcap()
        except InputError:
            return "no-extra"
    return None


def _track_notices(
    tracks: Sequence[FlightTrack], formats: Sequence[str], stored_offset_s: int | None
) -> tuple[str, ...]:
    notices = []
    offset_s = tracks[0].flight.clock.utc_offset_s if tracks else None
    if offset_s is not None and stored_offset_s is not None and stored_offset_s != offset_s:
        notices.append(
            f"the flight is stored with times {utc_offset_text(stored_offset_s)} of UTC, and "
            f"{utc_offset_text(offset_s)} is stated: that is taken"
        )
    placed = [tracked for track in tracks for tracked in track.frames if tracked.position is not None]
    flat = sum(tracked.height_msl_m is None for tracked in placed)
    if flat and any(tracked.terrain_m is not None for tracked in placed):
        notices.append(
            f"{flat} of {len(placed)} places have no height: no terrain beneath them, or a label whose altitude is not "
            "above the ground"
        )
    if "track-kml" in formats and not all(track.has_utc for track in tracks):
        notices.append(
            "the track's KML has lines without times: nothing says when the frames were taken, or how far that is from "
            "UTC (--utc-offset)"
        )
    return tuple(notices)


def projected_grid(crs: str | None) -> ProjectedGrid | None:
    """The grid that a CRS's code names. Raises InputError where it is not known or does not serve."""
    if crs is None:
        return None
    from search.export.grid import ProjectedGrid

    return ProjectedGrid(crs)


def run_rows(db: Database, thumbnails: Path, run_id: int, method: str = BEST_PLACE) -> list[dict[str, Any]]:
    """One run's frames as the rows of its CSV, with values instead of texts."""
    with db.read() as session:
        run = runs.find_run(session, run_id)
        flight = flights.find_flight(session, run.flight_id).flight
    return [csv_row(flight, frame_info) for frame_info in frame_infos(db, thumbnails, flight, [run], method=method)]


def _all_infos(
    db: Database,
    thumbnails: Path,
    flight: Flight,
    stored_runs: Sequence[StoredRun],
    method: str,
    grid: ProjectedGrid | None,
    track_name: str | None,
) -> Iterator[FrameInfo]:
    for group in group_by_question(stored_runs):  # one group's results in memory at a time
        yield from frame_infos(db, thumbnails, flight, group, method=method, grid=grid, track_name=track_name)


# --- names --------------------------------------------------------------------------------------


def _file_names(stored_runs: Sequence[StoredRun]) -> Callable[[FrameInfo], str]:
    """`<flight>_<frame>_<backbone>.json`; runs that would share a name carry their number too."""
    several = len({run.reference_set.name for run in stored_runs}) > 1
    folders = {run.id: f"{ids.file_name(run.reference_set.name)}/" if several else "" for run in stored_runs}
    endings = {run.id: _file_suffix(run) for run in stored_runs}
    uses = Counter((folders[run.id], endings[run.id]) for run in stored_runs)

    def name(frame_info: FrameInfo) -> str:
        run = frame_info.run
        folder, ending = folders[run.id], endings[run.id]
        number = "" if uses[folder, ending] == 1 else f"_run{run.id}"
        return f"{folder}{ids.file_name(run.flight_id)}_{frame_info.result.frame.index:05d}_{ending}{number}.json"

    return name


def _file_suffix(run: StoredRun) -> str:
    angle = run.parameters["angle_deg"]
    return ids.slug(run.spec.backbone) + ("" if angle is None else f"_{angle:03d}")


def _track_names(tracks: Sequence[FlightTrack]) -> list[str]:
    """`<flight>_track`; of several tracks with what they differ in: the reference set's name, the evidence, the
    options, their number."""
    names = [f"{ids.file_name(track.flight.flight_id)}_track" for track in tracks]
    for labels in (
        [ids.slug(track.stored.reference_set) for track in tracks],
        [ids.slug(track.stored.evidence) for track in tracks],
        [ids.slug(" ".join(track.stored.track_options or ("plain",))) for track in tracks],
        [str(track.stored.id) for track in tracks],
    ):
        if len(set(names)) < len(tracks):
            names = [f"{name}_{label}" for name, label in zip(names, labels, strict=True)]
    return names


# --- files --------------------------------------------------------------------------------------


def _write_layers(out_dir: Path, name: str, features: FlightFeatures) -> int:
    """Write a file for each layer of the fixes, empty over an earlier export's; none where nobody looked for any."""
    paths = {layer: out_dir / f"{name}_{layer}.geojson" for layer in LAYERS}
    written = {layer: path for layer, path in paths.items() if features.verified or path.exists()}
    for layer, path in written.items():
        _write(path, layer_text(features.layer(layer)))
    return len(written)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON document, whole or not at all."""
    _write(path, json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def _write(path: Path, text: str) -> None:
    """Write a file beside the final one, then rename it into place."""
    path.parent.mkdir(exist_ok=True)
    files.write_text(path, text)
