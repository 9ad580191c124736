"""Use cases on a map, of which no embedding is needed: fixes anywhere on it, tracks, tracks while a flight is flown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from coarseloc.checks import FolderChecks
from coarseloc.core.camera import Camera
from coarseloc.core.errors import InputError
from coarseloc.core.filters import Where
from coarseloc.core.types import Backbone, Flight, Frame, Near, UInt8
from coarseloc.embedding.encoders import Encoders
from coarseloc.store import flights, references, runs
from coarseloc.store.flights import StoredFlight
from coarseloc.store.references import StoredReferenceSet
from coarseloc.store.runs import StoredRun

if TYPE_CHECKING:
    from coarseloc.core.tracks import MotionSource, TrackEvidence
    from coarseloc.core.windows import WindowSource
    from coarseloc.live.session import LiveOutput, LiveRequest, LiveSession
    from coarseloc.live.sources import FrameSource
    from coarseloc.localize.tracking.tracker import LocalPlane
    from search.boresight import FlightBoresight
    from search.export.records import FrameTrackInfo, MapLocalizationInfo
    from search.map_localization import MapLocalizer
    from search.mirror_index import MirrorIndex
    from search.tracking.cascade import Cascade
    from search.tracking.flight_track import TrackRequest


@dataclass(frozen=True, slots=True)
class MapRequest:
    """The map that frames are looked for on: a GeoTIFF in any CRS, or the source of a reference set.

    sd_m: its registration error, per axis; by default as the set was ingested, else half a ground sample distance, but
    of a track 1 m at least.
    """

    path: Path | None = None
    crs: str | None = None  # of the GeoTIFF, where its file does not say it rightly
    reference_set: str | None = None
    near: Near | None = None  # look around here alone
    sd_m: float | None = None


class MapUseCases(FolderChecks):
    """A data folder with what is done on a map; a recorded flight's track begins with its hits."""

    def localize_on_map(
        self,
        flight: Flight,
        map_request: MapRequest,
        *,
        device: str | None = None,
        previous: Mapping[int, MapLocalizationInfo] | None = None,
        store: bool = False,
    ) -> Iterator[MapLocalizationInfo]:
        """Find a flight's frames on a whole map, without any embedding: a record as soon as a frame is looked for.

        On a reference set's source a frame is expected to have its footprint where the flight's camera does not say. A
        width that is not given is tried on the first frames, and scanned where it does not fit. previous: records of an
        earlier, interrupted run by frame index; those of the same question are given back as they are. store: keep the
        answers on a reference set, to go on with, and for `evaluate` to hold beside those of backbones; `previous` is
        not looked at then.
        """
        from search.environment import machine
        from search.export.map_infos import map_localization_info
        from search.whole_map import localize_flight

        localizer, stored_set = self._map_localizer(flight, map_request, device)
        for text in flight.notices:
            self.notice(text)
        if store and stored_set:
            facts = machine(localizer.device, "")
            environment = {key: facts[key] for key in ("device", "cpu")}
            answers = localize_flight(
                self.db, flight, stored_set, localizer, near=map_request.near, environment=environment,
                fit_widths=self._fit_widths, notice=self.notice,
            )  # fmt: skip
            records: Iterator[MapLocalizationInfo] = (
                map_localization_info(answer, localizer, flight) for answer in answers
            )
        else:
            records = self._map_records(flight, localizer, previous or {})
        first = list(islice(records, 1))  # widths are tried first, with a progress of their own
        with self.show_progress("localize") as progress:
            for count, record in enumerate(chain(first, records), start=1):
                yield record
                if progress:
                    progress(count, len(flight.frames), "frames")

    def _map_records(
        self, flight: Flight, localizer: MapLocalizer, previous: Mapping[int, MapLocalizationInfo]
    ) -> Iterator[MapLocalizationInfo]:
        from coarseloc.localize.flight_scale import FIRST_FRAMES
        from search.export.map_infos import answers_again, map_localization_info

        first = flight.frames[:FIRST_FRAMES]
        if not all(
            frame.index in previous and answers_again(previous[frame.index], localizer, frame) for frame in first
        ):
            self._fit_widths(localizer, flight.frames)
        for frame in flight.frames:
            record = previous.get(frame.index)
            if record is None or not answers_again(record, localizer, frame):
                record = map_localization_info(localizer.localize(frame), localizer, flight)
            yield record

    def _fit_widths(self, localizer: MapLocalizer, frames: Sequence[Frame]) -> None:
        with self.show_progress("width of the first frames"):
            notices = localizer.fit_widths(frames)
        for text in notices:
            self.notice(text)

    def _map_localizer(
        self, flight: Flight, request: MapRequest, device: str | None, read: Callable[[Frame], UInt8] | None = None
    ) -> tuple[MapLocalizer, StoredReferenceSet | None]:
        """(a map opened for a flight's frames, the reference set that it is the source of). read: gives pixels."""
        from coarseloc.embedding.device import resolve_device
        from search.map_localization import MapLocalizer

        source, name, stored_set = self._map_source(request)
        facts = stored_set.reference_set if stored_set else None
        localizer = MapLocalizer(
            source,
            name,
            flight.camera,
            reference_footprint_m=facts.footprint_m if facts else None,
            near=request.near,
            map_sd_m=facts.map_sd_m if facts and request.sd_m is None else request.sd_m,
            boresights=flight.camera.boresights_by_path([frame.relative_path for frame in flight.frames]),
            device=str(resolve_device(device or self.settings.device)),
            read=read,
        )
        return localizer, stored_set

    def _map_source(self, request: MapRequest) -> tuple[WindowSource, str, StoredReferenceSet | None]:
        """(the map's windows, its name for records, the reference set that it is the source of)."""
        from coarseloc.imagery.windows import OrthophotoWindows
        from search.reference_map import reference_map

        if (request.path is None) == (request.reference_set is None):
            raise InputError("give either a map (--map) or a reference set (--reference-set), whose source is the map")
        if request.path is None and request.crs is not None:
            raise InputError(
                "--crs is of the file that --map names: a reference set keeps the CRS it was ingested with"
            )
        if request.path is not None:
            windows = OrthophotoWindows(request.path, request.crs)
            for text in windows.notices:
                self.notice(text)
            return windows, str(request.path), None
        with self.db.read() as session:
            stored = references.find_reference_set(session, request.reference_set)
            captures = references.captures(session, stored.id)
        return reference_map(stored.reference_set, captures), f"reference set {stored.name}", stored

    def track(
        self,
        flight: Flight | str,
        *,
        map_request: MapRequest | None = None,
        evidence: TrackEvidence = "fixes",
        run_ids: Sequence[int] = (),
        odometry: Literal["frames", "none"] | Path = "frames",
        online: bool = False,
        cascade: tuple[str, str] | None = None,
        yaw: Literal["labels", "none"] = "none",
        speed_mps: tuple[float, float] | None = None,
        camera: Camera | None = None,
        device: str | None = None,
    ) -> Iterator[FrameTrackInfo]:
        """Track a flight: a causal record as soon as each frame is looked for; both tracks are stored.

        flight: opened, to be looked for on a map; else the id of a recorded one, whose newest run, or `run_ids`, says
        where frames may be, and of whose maps `map_request` states the error alone. evidence: the order of the hits of
        that question's newest run of each backbone, or of `run_ids` ("ranks"); registrations on the map ("fixes"); or
        those about the places of both ("both"). odometry: what tells the motion between frames: their pictures, a table
        (`imagery.motion_tables`) or nothing. online: no smoothed track. cascade: (small, large) backbones, where ranks
        are evidence: the hits of the small one's run, and of the large one only while the place is not sure. yaw: the
        labels', as evidence of ranks and of turns that odometry does not tell. speed_mps: (least, most) over ground,
        for motion that odometry does not tell. camera: what comes before the flight's own. Stopped, the same call goes
        on.
        """
        from coarseloc.imagery.motion_tables import read_motion_table
        from search.export.map_infos import frame_track_info
        from search.tracking.flight_track import TrackRequest, track_flight

        table = read_motion_table(odometry) if isinstance(odometry, Path) else None
        source: MotionSource = "file" if isinstance(odometry, Path) else odometry
        map_request = map_request or MapRequest()
        request = TrackRequest(evidence, source, table, online, cascade, yaw == "labels", speed_mps)
        if cascade and evidence == "fixes":
            raise InputError("--cascade is of the hits of backbones: give --evidence ranks or both with it")
        if odometry == "none":
            self.notice("without odometry the causal track is not to be relied on: take the smoothed one")
        if isinstance(flight, Flight):
            stored, options = self._map_track(flight, request, map_request, device)
        else:
            stored, options = self._run_track(flight, request, run_ids, camera, map_request.sd_m, device)
        places = track_flight(self.db, stored, request=request, notice=self.notice, **options)
        with self.show_progress("track") as progress:
            for count, place in enumerate(places, start=1):
                yield frame_track_info(
                    stored.flight, place.frame, place.estimate, place.error, place.track_ms, place.larger_ms
                )
                if progress:
                    progress(count, len(stored.flight.frames), "frames")

    def _map_track(
        self, flight: Flight, request: TrackRequest, map_request: MapRequest, device: str | None
    ) -> tuple[StoredFlight, dict[str, Any]]:
        """(a flight, recorded; what it is tracked on: a map)."""
        from coarseloc.imagery.flights import fingerprint
        from search.tracking.filters import by_fixes
        from search.tracking.grounds import MapGround
        from search.whole_map import map_parameters

        if request.evidence != "fixes":
            raise InputError(
                f"--evidence {request.evidence} needs hits: search the flight and track it by its id. On a map alone "
                "there are fixes"
            )
        localizer, stored_set = self._map_localizer(flight, map_request, device)
        self._fit_widths(localizer, flight.frames)
        with self.db.write() as session:
            stored = flights.save_flight(session, flight)
        for text in (*flight.notices, *stored.notices):
            self.notice(text)
        parameters = map_parameters(localizer, map_request.near)
        if stored_set is not None:
            parameters["sets"] = [stored_set.uid]
            facts = {"uid": stored_set.uid, **asdict(stored_set.reference_set)}
        else:
            assert map_request.path is not None  # noqa: S101 - a map or a set was opened
            parameters["map"] = fingerprint(map_request.path)
            facts = {"name": localizer.map.name}
        ground = MapGround(localizer)
        return stored, {
            "ground": ground,
            "track_filter": partial(by_fixes, ground=ground, online=request.online),
            "reference_sets": [facts],
            "ground_parameters": parameters,
        }

    def _run_track(
        self,
        flight_id: str,
        request: TrackRequest,
        run_ids: Sequence[int],
        camera: Camera | None,
        map_sd_m: float | None,
        device: str | None,
    ) -> tuple[StoredFlight, dict[str, Any]]:
        """(a recorded flight, what it is tracked on: the best places of runs)."""
        from coarseloc.embedding.device import resolve_device
        from coarseloc.imagery.flight_toml import camera_of
        from search.tracking.filters import by_both, by_fixes, by_ranks
        from search.tracking.grounds import run_ground
        from search.tracking.ranks import run_ranks

        with self.db.read() as session:
            stored = flights.find_flight(session, flight_id)
        chosen = self._tracked_runs(
            stored, run_ids, several=request.evidence != "fixes", backbone=request.cascade and request.cascade[0]
        )
        ground, parameters = run_ground(
            self.db, chosen[-1], camera_of(stored.flight.path, camera), map_sd_m=map_sd_m,
            device=str(resolve_device(device or self.settings.device)),
            notice=self.notice if request.evidence != "ranks" else lambda _: None,
        )  # fmt: skip
        if request.evidence == "fixes":
            track_filter: Callable[..., Any] = partial(by_fixes, ground=ground, online=request.online)
        else:
            ranks = run_ranks(self.db, chosen, ground.plane, self.notice)
            cascade = request.cascade and self._cascade(stored, chosen[-1], request.cascade[1], ground.plane, device)
            options: dict[str, Any] = {"ranks": ranks, "online": request.online, "cascade": cascade}
            if request.evidence == "ranks":
                track_filter = partial(by_ranks, plane=ground.plane, **options)
            elif ground.has_maps:
                track_filter = partial(by_both, ground=ground, **options)
            else:
                raise InputError("--evidence both needs the references' imagery, which cannot be opened: take ranks")
        return stored, {
            "ground": ground,
            "track_filter": track_filter,
            "runs": [run.id for run in chosen],
            "reference_sets": [asdict(facts) for facts in chosen[-1].reference_sets],
            "ground_parameters": parameters,
        }

    def _cascade(
        self, stored: StoredFlight, run: StoredRun, name: str, plane: LocalPlane, device: str | None
    ) -> Cascade:
        """A larger backbone for a run's frames: of its own run of the same question, else embedded when it is asked."""
        from search.export.infos import newest_runs
        from search.tracking.cascade import embedded_cascade, recorded_cascade

        larger = self._backbone(name)
        if larger == run.spec.backbone:
            raise InputError(f"--cascade names {larger} twice: expected a small backbone and a larger one")
        for candidate in reversed(newest_runs(self.db, stored.flight.flight_id)):
            if candidate.question == run.question and candidate.spec.backbone == larger:
                self.notice(f"the hits of {larger} are those of run {candidate.id}; its times are of then")
                return recorded_cascade(self.db, candidate, plane)
        with self.db.read() as session:
            sets = [searched for searched in references.reference_sets(session) if searched.uid in run.set_uids]
        if len(sets) < len(run.set_uids):
            raise InputError(
                f"the references of run {run.id} are gone: {larger} cannot search them. Search the flight anew"
            )
        (spec,) = self.stored_specs(sets, [larger])
        heading = run.parameters.get("angle_deg")
        where = Where.from_json(run.parameters["where"])
        if heading is not None:
            where = replace(where, angles=(heading,))

        def opened() -> tuple[Backbone, MirrorIndex]:
            encoder = Encoders(self.settings, device).load_matching(spec.embedding_spec)
            return encoder, self.exact_index(sets, spec, where)

        frames = {frame.index: frame for frame in stored.flight.frames}
        return embedded_cascade(larger, opened, frames, plane, run.parameters["k"])

    def _backbone(self, name: str) -> str:
        """A backbone's own name, of any spelling that the table knows. Raises InputError where it has none."""
        from coarseloc.embedding import specs

        return specs.row(name, specs.table(self.settings.backbones)).name

    def _tracked_runs(
        self, stored: StoredFlight, run_ids: Sequence[int], *, several: bool, backbone: str | None = None
    ) -> list[StoredRun]:
        """The runs asked for; else the newest, with those of other backbones that were asked the same where several
        serve. backbone: the one whose run alone is meant."""
        from search.export.infos import newest_runs

        flight_id = stored.flight.flight_id
        if not run_ids:
            newest = newest_runs(self.db, flight_id)
            if backbone is not None:
                name = self._backbone(backbone)
                by_backbone = [run for run in newest if run.spec.backbone == name]
                if not by_backbone:
                    names = ", ".join(sorted({run.spec.backbone for run in newest}))
                    raise InputError(
                        f"flight {flight_id} has no search by {name}, only by {names}: a cascade begins with a run of "
                        "its small backbone"
                    )
                return by_backbone[-1:]
            latest = newest[-1]
            return [run for run in newest if run.question == latest.question] if several else [latest]
        with self.db.read() as session:
            chosen = [runs.find_run(session, run_id) for run_id in run_ids]
        for run in chosen:
            if run.flight_id != flight_id:
                raise InputError(f"run {run.id} is of flight {run.flight_id}, not of {flight_id}")
            if run.question != chosen[0].question:
                raise InputError(f"runs {chosen[0].id} and {run.id} were not asked the same: they make no one track")
        if len(chosen) > 1 and not several:
            raise InputError("--evidence fixes takes the places of one run: give one --run")
        return chosen

    def live(
        self,
        source: FrameSource,
        map_request: MapRequest,
        *,
        device: str | None = None,
        request: LiveRequest | None = None,
        open_outputs: Callable[[], Sequence[LiveOutput]] = list,
    ) -> LiveSession:
        """Track a flight while it is flown, on a map: iterate over what this returns.

        Its records are kept as JSON lines in the data folder too, where the page Live reads them. open_outputs: called
        once all else is known to be right; what it returns is closed when the session ends.
        """
        from coarseloc.imagery.terrain import terrain_heights_m
        from coarseloc.live.outputs import JsonLines
        from coarseloc.live.recordings import new_recording
        from coarseloc.live.session import HeldPictures, LiveRequest, LiveSession
        from coarseloc.localize.flight_scale import FIRST_FRAMES
        from search.tracking.grounds import MapGround

        flight, pictures = source.flight, HeldPictures()
        localizer, _ = self._map_localizer(flight, map_request, device, pictures.read)
        for text in flight.notices:
            self.notice(text)
        request = request or LiveRequest()
        if request.odometry == "none":
            self.notice("without odometry the causal track is not to be relied on")
        if request.dem is not None:
            terrain_heights_m(request.dem, [])  # raises where it is of no use, before the flight begins

        def open_ground(first: Sequence[Frame]) -> MapGround:
            self._fit_widths(localizer, first)
            return MapGround(localizer)

        outputs = [*open_outputs(), JsonLines(new_recording(self.settings.data_dir, flight.flight_id))]
        trial_frames = FIRST_FRAMES if flight.camera.footprint_m is None else 1
        return LiveSession(source, open_ground, pictures, request, outputs, self.notice, trial_frames)

    def boresight(
        self, flight_id: str, *, run_id: int | None = None, camera: Camera | None = None, apply: bool = False
    ) -> tuple[FlightBoresight, Path | None]:
        """Estimate the angle between a recorded flight's camera and the vertical, leg by leg, from its fixes and truth.

        camera: what comes before the flight's flight.toml. apply: write the legs there, for later fixes; returns the
        file's path then.
        """
        from coarseloc.imagery.flight_toml import camera_of, write_boresights
        from search.boresight import flight_boresight

        with self.db.read() as session:
            folder = flights.find_flight(session, flight_id).flight.path
        estimate = flight_boresight(self.db, flight_id, camera_of(folder, camera), run_id)
        return estimate, write_boresights(folder, estimate.legs()) if apply else None
