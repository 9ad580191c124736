"""Fixes of a recorded run: each frame's best places looked at in metres, stored as the method "fix" beside the others.

A search's answers are stored before: nobody waits for a fix, and none is lost with it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from typing import Any

from coarseloc.core.camera import Camera, CameraAttitude, FootprintRule, FootprintWidth
from coarseloc.core.errors import ImageryError, InputError, StoreError
from coarseloc.core.fixes import FixAnswer, FixConditions, FrameFix, NotVerified, Pose2D, map_error
from coarseloc.core.types import Frame, LonLat, Progress
from coarseloc.core.windows import WindowSource
from coarseloc.imagery.decode import read_image
from coarseloc.imagery.mosaics import CaptureWindows
from coarseloc.localize.flight_scale import FrameWidths
from coarseloc.localize.localizer import ms_since
from coarseloc.localize.places import Place, places_of
from coarseloc.localize.registration.coarse import CandidateWindow, candidate_window, candidates_around
from coarseloc.localize.registration.fix import FITTED
from coarseloc.localize.registration.frame_fix import SearchedMap, fix_frame
from coarseloc.localize.registration.geometry import FrameGeometry
from coarseloc.localize.registration.settings import RegistrationSettings
from coarseloc.store import Database, fixes, flights, localizations, references, runs
from coarseloc.store.localizations import FIX
from coarseloc.store.references import StoredReferenceSet
from coarseloc.store.runs import FrameResult
from search.recorder import fix_recorder
from search.reference_map import reference_map

_log = logging.getLogger("coarseloc")

_CACHED_CAPTURES = 64  # decoded, of the latest mosaics
_KEPT_WINDOWS = 64  # around the latest places, with their fields: half a megabyte each
_NEIGHBOURS = 0.75  # strides from a place to the farthest frame that it is still the nearest place of, and some


@dataclass(frozen=True, slots=True)
class FixRequest:
    """What frames are looked for with."""

    camera: Camera = field(default_factory=Camera)
    places: int = 10  # of each frame's best, that are looked at
    map_sd_m: float | None = None  # of all maps, in place of what was said when they were ingested

    def to_json(self) -> dict[str, Any]:
        """All that decides a fix beside run and map: equal requests go on with each other's work."""
        return {
            "places": self.places,
            "camera": asdict(self.camera),
            "map_sd_m": self.map_sd_m,
            "fit_digest": FITTED.digest,
        }


@dataclass(frozen=True, slots=True)
class ReferenceMap:
    """A reference set's source, opened to look for frames on; or why it cannot be (`refusal`)."""

    name: str
    footprint_m: float | None
    reach_m: float  # of a frame's middle from the centre of the place that shows it, on either axis
    source: WindowSource | None
    sd_m: float = 0.0
    sd_source: str = ""
    refusal: str = ""


def open_reference_maps(
    db: Database, reference_sets: Sequence[StoredReferenceSet], map_sd_m: float | None = None
) -> dict[str, ReferenceMap]:
    """{reference set's name: its map}; sets cut from one file in one CRS share its windows."""
    opened: dict[tuple[str, str | None], WindowSource] = {}
    return {stored.name: _open_map(db, stored, map_sd_m, opened) for stored in reference_sets}


def verify_run(
    db: Database,
    run_id: int,
    maps: Mapping[str, ReferenceMap],
    request: FixRequest,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    notice: Callable[[str], None] = _log.warning,
) -> None:
    """Look for every frame of a run among its best places; those that have a fix already are passed over.

    Frames are saved every few seconds; stopped at any moment, the same call goes on. A frame whose references' files
    are gone is stored as not verified, with the reason.
    """
    with db.read() as session:
        run = runs.find_run(session, run_id)
        flight = flights.find_flight(session, run.flight_id)
        results = [result for result in runs.results(session, run_id) if result.error is None and result.hits]
    with db.write() as session:
        localization = localizations.start_localization(
            session, flight.id, FIX, [run.id], [asdict(facts) for facts in run.reference_sets], request.to_json()
        )
        fixed = fixes.fixed_frames(session, localization)
    todo = [result.frame for result in results if flight.frame_keys[result.frame.index] not in fixed]
    if todo:
        verifier = Verifier(run.reference_set.footprint_m, results, maps, request, device)
        for text in verifier.fit_widths():
            notice(text)
        with fix_recorder(db, localization) as recorder:
            for completed, frame in enumerate(todo, start=len(results) - len(todo) + 1):
                recorder.add((flight.frame_keys[frame.index], verifier.fix(frame)))
                if progress:
                    progress(completed, len(results), "frames")
    with db.write() as session:
        localizations.finish_localization(session, localization)


# --- one frame ----------------------------------------------------------------------------------


class Verifier:
    """Looks for a run's frames among their first places, wherever their maps can be looked at."""

    def __init__(
        self,
        footprint_m: float | None,
        results: Sequence[FrameResult],
        maps: Mapping[str, ReferenceMap],
        request: FixRequest,
        device: str = "cpu",
    ) -> None:
        """footprint_m: of what was searched. results: of all the run's frames that have hits, in order."""
        self._hits = {result.frame.index: result.hits for result in results}
        self._frames = [result.frame for result in results]
        self._maps, self._request, self._device = maps, request, device
        rule = FootprintRule(request.camera, footprint_m)
        self._widths = FrameWidths(rule, self._fix_at, lambda fix: fix.answer)
        self._boresights = request.camera.boresights_by_path([frame.relative_path for frame in self._frames])
        self._candidate_at = lru_cache(_KEPT_WINDOWS)(partial(candidate_window, keeps_field=True))

    @property
    def camera(self) -> Camera:
        return self._request.camera

    def width(self, frame: Frame) -> FootprintWidth:
        """Of one frame on the ground. Raises InputError where nothing says."""
        return self._widths.width(frame)

    def attitude(self, frame: Frame) -> CameraAttitude | None:
        """The camera's, where labels, a boresight or its mounting tell it."""
        return self.camera.attitude(
            frame.truth.pitch_deg, frame.truth.roll_deg, self._boresights.get(frame.relative_path)
        )

    def fit_widths(self) -> list[str]:
        """Try the width of frames on a flight's first ones, scan its scale where it does not fit; returns notices.

        Nothing is said where nothing says the width of any frame: each frame's own fix does.
        """
        try:
            return self._widths.fit(self._frames)
        except InputError:
            return []

    def fix(self, frame: Frame) -> FrameFix:
        """A frame's fix, or why it was not looked for."""
        try:
            width = self.width(frame)
        except InputError as error:
            return FrameFix(NotVerified(str(error)))
        return self._widths.localize(frame, width)

    def _fix_at(self, frame: Frame, width: FootprintWidth, settings: RegistrationSettings) -> FrameFix:
        places = places_of(self._hits.get(frame.index, ()))[: self._request.places]
        by_map = _places_by_map(places, self._maps)
        if not by_map:
            return FrameFix(NotVerified(_refusal(places, self._maps)))
        try:
            pixels = read_image(frame.path)
            started = time.perf_counter()
            searched = [
                SearchedMap(source, reference.sd_m, self._candidates(source, reference, centers))
                for reference, centers in by_map
                if (source := reference.source) is not None
            ]
            boresight = self._boresights.get(frame.relative_path)
            index, answer = fix_frame(
                pixels, width.metres, self._request.camera, frame.truth, searched,
                whole_map=False, boresight=boresight, settings=settings, device=self._device,
            )  # fmt: skip
        except (InputError, ImageryError) as error:
            return FrameFix(NotVerified(str(error)))
        reference, gsd_m = by_map[index][0], searched[index].source.gsd_m
        conditions = FixConditions(
            *width, reference.name, gsd_m, reference.sd_m, reference.sd_source, ms_since(started),
            map_pictures=_pictures_around(searched[index].source, answer, width.metres),
        )  # fmt: skip
        return FrameFix(answer, conditions)

    def _candidates(
        self, source: WindowSource, reference: ReferenceMap, centers: Sequence[LonLat]
    ) -> Callable[[FrameGeometry, RegistrationSettings], Iterator[CandidateWindow]]:
        def candidates(geometry: FrameGeometry, settings: RegistrationSettings) -> Iterator[CandidateWindow]:
            reach_m = max(settings.reach_footprints * geometry.footprint_m, reference.reach_m)
            return candidates_around(source, geometry, centers, reach_m, settings, self._candidate_at)

        return candidates


def _pictures_around(source: WindowSource, answer: FixAnswer, footprint_m: float) -> int | None:
    """How many captures the map is laid together from under a frame; None of an orthophoto and without a match."""
    if not isinstance(source, CaptureWindows) or not isinstance(answer, Pose2D):
        return None
    return source.pictures_around(answer.ground, footprint_m * answer.scale)


def _places_by_map(
    places: Sequence[Place], maps: Mapping[str, ReferenceMap]
) -> list[tuple[ReferenceMap, list[LonLat]]]:
    """The centres of places on each map; sets cut from one source are one map, with the longest reach."""
    grouped: dict[int, tuple[ReferenceMap, list[LonLat]]] = {}
    for place in places:
        reference = maps.get(place.tile.reference_set)
        if reference is None or reference.source is None:
            continue
        widest, centers = grouped.get(id(reference.source), (reference, []))
        widest = max(widest, reference, key=lambda candidate: candidate.reach_m)
        grouped[id(reference.source)] = (widest, [*centers, place.tile.center])
    return list(grouped.values())


def _refusal(places: Sequence[Place], maps: Mapping[str, ReferenceMap]) -> str:
    names = dict.fromkeys(place.tile.reference_set for place in places)
    reasons = [maps[name].refusal if name in maps else f"reference set {name!r} is gone" for name in names]
    return "; ".join(dict.fromkeys(reasons)) or "it has no hits"


# --- maps ---------------------------------------------------------------------------------------


def _open_map(
    db: Database,
    stored: StoredReferenceSet,
    map_sd_m: float | None,
    opened: dict[tuple[str, str | None], WindowSource],
) -> ReferenceMap:
    facts = stored.reference_set
    stride_m = (facts.footprint_m or 0.0) * (1.0 - facts.overlap)
    file = facts.source, facts.parameters.get("crs")
    with db.read() as session:
        captures = references.captures(session, stored.id)
    try:
        source = opened.get(file) or reference_map(facts, captures, lru_cache(_CACHED_CAPTURES)(read_image))
    except (InputError, ImageryError, StoreError) as error:
        return ReferenceMap(stored.name, facts.footprint_m, _NEIGHBOURS * stride_m, None, refusal=str(error))
    if not captures:
        opened[file] = source
    sd_m = map_sd_m if map_sd_m is not None else facts.map_sd_m
    return ReferenceMap(stored.name, facts.footprint_m, _NEIGHBOURS * stride_m, source, *map_error(source.gsd_m, sd_m))
