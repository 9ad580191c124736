"""What a tracked flight's frames are looked for on: a whole map, or the best places of a recorded run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from coarseloc.core import geo
from coarseloc.core.camera import GIVEN, Camera, CameraAttitude, camera_from_json
from coarseloc.core.fixes import FrameFix, NotVerified
from coarseloc.core.types import BBox, Floats, Frame, LonLat
from coarseloc.core.windows import WindowSource
from coarseloc.localize.tracking.kalman import PoseMeasurement
from coarseloc.localize.tracking.map_search import MapFrameSearch
from coarseloc.localize.tracking.stored_fixes import StoredFixSearch
from coarseloc.localize.tracking.tracker import FrameSearch, LocalPlane, PlaceSearch
from coarseloc.store import Database, localizations, references, runs, snapshots
from coarseloc.store.localizations import FIX
from coarseloc.store.runs import StoredRun
from search.map_localization import MapLocalizer
from search.tracking.frames import Picture
from search.verification import FixRequest, ReferenceMap, Verifier, open_reference_maps

_LEAST_MAP_SD_M = 1.0  # where nobody states it: one map's error is the same for all frames, and is not averaged away


class MapGround:
    """All of a map."""

    def __init__(self, localizer: MapLocalizer) -> None:
        facts = localizer.map
        self._localizer = localizer
        self.bounds: BBox = facts.bounds
        self.plane = LocalPlane(geo.box_center(self.bounds))
        self.map_sd_m = _track_sd_m(facts.registration_sd_m, facts.registration_sd_source)
        self.camera: Camera = localizer.camera

    def footprint_m(self, frame: Frame) -> float:
        """See `Ground`."""
        return self._localizer.footprint(frame).metres

    def attitude(self, frame: Frame) -> CameraAttitude | None:
        """See `Ground`."""
        return self._localizer.attitude(frame)

    def search(self, picture: Picture) -> PlaceSearch:
        """See `Ground`."""
        localizer = self._localizer
        return MapFrameSearch(
            picture.pixels, picture.footprint_m, localizer.camera, localizer.source, self.plane,
            localizer.attitude(picture.frame), localizer.windows, localizer.device,
        )  # fmt: skip


class RunGround:
    """A run's maps: about an expected place by their pictures, elsewhere by the frame's fix among its best places."""

    def __init__(
        self,
        verifier: Verifier,
        fixes: Mapping[int, FrameFix],
        maps: Mapping[str, ReferenceMap],
        places: Floats,
        device: str = "cpu",
    ) -> None:
        """fixes: stored ones by frame index; others are looked for when they are needed. places: float64 [P, 6], lon,
        lat, west, south, east and north of all that the run searched. Where no map can be opened, only stored fixes
        serve."""
        self._verifier, self._fixes, self._device = verifier, fixes, device
        self._sources: list[WindowSource] = list(
            {id(source): source for reference in maps.values() if (source := reference.source) is not None}.values()
        )
        self.bounds = geo.bounds(places[:, [2, 4]], places[:, [3, 5]])
        self.plane = LocalPlane(geo.box_center(self.bounds))
        self.map_sd_m = max(
            (_track_sd_m(reference.sd_m, reference.sd_source) for reference in maps.values() if reference.source),
            default=_LEAST_MAP_SD_M,
        )
        self.camera: Camera = verifier.camera
        self._places: dict[int, Sequence[LonLat]] = {}

    @property
    def has_maps(self) -> bool:
        return bool(self._sources)

    def look_at(self, frame_index: int, places: Sequence[LonLat]) -> None:
        """Look for a frame at these places in place of its run's best ones."""
        self._places[frame_index] = places

    def footprint_m(self, frame: Frame) -> float:
        """See `Ground`: as its stored fix was looked for, else as the run's camera and references say."""
        fix = self._fixes.get(frame.index)
        if fix is not None and fix.conditions is not None:
            return fix.conditions.footprint_m
        return self._verifier.width(frame).metres

    def attitude(self, frame: Frame) -> CameraAttitude | None:
        """See `Ground`."""
        return self._verifier.attitude(frame)

    def search(self, picture: Picture) -> PlaceSearch:
        """See `Ground`."""
        frame = picture.frame
        places = self._places.get(frame.index)

        def best_places() -> PlaceSearch:
            fix = self._fixes.get(frame.index)
            if fix is None or fix.match is None:
                fix = self._verifier.fix(frame) if self._sources else FrameFix(NotVerified("no map can be opened"))
            map_sd_m = fix.conditions.map_sd_m if fix.conditions else 0.0
            return StoredFixSearch(fix.answer, self.plane, self.bounds, picture.footprint_m, picture.aspect, map_sd_m)

        nearby = [
            MapFrameSearch(
                picture.pixels, picture.footprint_m, self.camera, source, self.plane, self.attitude(frame),
                device=self._device, places=places,
            )
            for source in self._sources
        ]  # fmt: skip
        return _RunFrameSearch(nearby, best_places if places is None else None)


@dataclass(frozen=True, slots=True)
class _RunFrameSearch:
    """A `PlaceSearch` on several maps, and among a frame's best places."""

    nearby: Sequence[FrameSearch]
    best_places: Callable[[], PlaceSearch] | None  # of its run; None: the maps' searches have places of their own

    def around(self, state: Floats, covariance: Floats) -> Sequence[PoseMeasurement]:
        """See `PlaceSearch`: on each map that reaches there."""
        if not self.nearby and self.best_places:
            return self.best_places().around(state, covariance)
        covering = [search for search in self.nearby if search.coverage(state) > 0]
        return [measurement for search in covering for measurement in search.around(state, covariance)]

    def everywhere(self) -> Sequence[PoseMeasurement]:
        """See `PlaceSearch`."""
        if self.best_places:
            return self.best_places().everywhere()
        return [measurement for search in self.nearby for measurement in search.everywhere()]


def run_ground(
    db: Database,
    run: StoredRun,
    camera: Camera,
    *,
    map_sd_m: float | None = None,
    device: str = "cpu",
    notice: Callable[[str], None],
) -> tuple[RunGround, dict[str, Any]]:
    """(a recorded run as a ground, all that decides it beside the run).

    camera: what is known beyond that of the run's fixes. map_sd_m: of all maps, in place of what was said when they
    were ingested. A map that cannot be opened is told of.
    """
    with db.read() as session:
        key = localizations.newest_localization(session, run.id, FIX)
        localization = None if key is None else localizations.find_localization(session, key)
        fixes = localizations.frame_fixes(session, run.id)
        results = [result for result in runs.results(session, run.id) if result.error is None and result.hits]
        places = snapshots.search_map(session, run.search_map)
        searched = [stored for stored in references.reference_sets(session) if stored.uid in run.set_uids]
    if localization is not None:
        camera = camera.over(camera_from_json(localization.parameters["camera"]))
    maps = open_reference_maps(db, searched, map_sd_m)
    for name in [stored.name for stored in searched if maps[stored.name].refusal]:
        notice(f"reference set {name}: only fixes that are stored are tracked: {maps[name].refusal}")
    if not searched:
        notice("the references of this run are gone: only fixes that are stored are tracked")
    verifier = Verifier(run.reference_set.footprint_m, results, maps, FixRequest(camera, map_sd_m=map_sd_m), device)
    if localization is None:
        for text in verifier.fit_widths():
            notice(text)
    parameters = {
        "camera": asdict(camera),
        "map_sd_m": map_sd_m,
        "fixes": None if localization is None else localization.id,
        "maps": sorted(name for name, reference in maps.items() if reference.source),
    }
    return RunGround(verifier, fixes, maps, places, device), parameters


def _track_sd_m(sd_m: float, source: str) -> float:
    """A map's registration error as a track takes it: as stated, else a metre at least."""
    return sd_m if source == GIVEN else max(sd_m, _LEAST_MAP_SD_M)
