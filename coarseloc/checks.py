"""Use cases that doubt: whether a map and a flight are worth hours, whether a map tells where it is, whether a flight's
labels are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coarseloc.core import files
from coarseloc.core.camera import Camera
from coarseloc.core.errors import CoarselocError, InputError, WeightsError
from coarseloc.core.filters import Where
from coarseloc.core.ids import slug
from coarseloc.core.types import EmbeddingSpec, TileSource, View
from coarseloc.data_folder import DataFolder
from coarseloc.embedding.encoders import Encoders
from coarseloc.store import embeddings, references, runs
from coarseloc.store.references import StoredCapture

if TYPE_CHECKING:
    from coarseloc.core.windows import WindowSource
    from coarseloc.imagery.stated_labels import StatedLabels
    from coarseloc.store.references import StoredReferenceSet
    from search.evaluation.truth_check import TruthCheck
    from search.localizability import Exclusion, Localizability
    from search.preflight.findings import Finding
    from search.preflight.preflight import Preflight

_SHEETS = (".tif", ".tiff", ".jp2", ".img")  # a folder that holds such files is one map of several sheets
_MAP_PICTURES = 600  # captures that a page's map is laid together from: more are thinned out


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """Where a page goes and how it reads."""

    file: Path
    language: str = "en"
    figures: Path | None = None
    note: str | None = None


def _headings() -> Sequence[int]:
    from coarseloc.core.rotation import HEADINGS  # it imports Pillow, which most commands do not need

    return HEADINGS


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How maps named by their files are cut, or captures read, as at an ingest."""

    footprint_m: float | None = None
    altitude_m: float | None = None
    fov_deg: float | None = None
    overlap: float = 0.5
    angles: Sequence[int] = field(default_factory=_headings)
    crs: str | None = None
    border_is_ground: bool = False
    tile_px: int | None = None
    labels: Path | StatedLabels | None = None
    turned: str = "cw"


class FolderChecks(DataFolder):
    """What a workspace says of maps and flights without placing anything."""

    def preflight(
        self,
        names: Sequence[str] = (),
        flight_dir: Path | None = None,
        *,
        options: SourceOptions | None = None,
        backbones: Sequence[str] = (),
        encoders: Encoders | None = None,
        camera: Camera | None = None,
        flight_labels: Path | StatedLabels | None = None,
        measured: bool = True,
        report: ReportRequest | None = None,
    ) -> Preflight:
        """Look at maps and a flight before an ingest and a search, and weigh what they cost; nothing is recorded.

        names: GeoTIFFs, roots of captures or stored reference sets; all that are stored by default. backbones: as of
        `ingest`. measured: read a few tiles and embed them, which takes seconds a backbone. What cannot be opened is a
        finding of its own, "no".
        """
        from coarseloc.embedding.device import resolve_device
        from coarseloc.imagery.flights import open_flight
        from search.preflight.findings import Finding
        from search.preflight.preflight import run_preflight

        encoders = encoders or Encoders(self.settings)
        refusals: list[Finding] = []
        flight = None
        if flight_dir is not None:
            try:
                flight = open_flight(flight_dir, labels=flight_labels, camera=camera)
            except CoarselocError as error:
                refusals.append(Finding("flight", "no", "unopened", {"reason": str(error)}))
        sources: list[TileSource] = []
        for name in names or [summary.reference_set.name for summary in self.reference_summaries()]:
            try:
                sources += self._named_source(name, options or SourceOptions())
            except CoarselocError as error:
                refusals.append(Finding("map", "no", "unopened", {"reason": str(error)}))
        if not sources and not refusals and flight is None:
            raise InputError(
                "nothing to look at: name GeoTIFFs, folders of captures or reference sets, or a --flight; there is no "
                "reference set yet"
            )
        specs, found = self._asked_specs(encoders, backbones, sources)
        with self.show_progress("preflight"):
            result = run_preflight(
                self.db, sources, flight, specs, encoders.load, refusals=[*refusals, *found],
                data_dir=self.settings.data_dir, thumbnails=self.settings.thumbnails,
                device=str(resolve_device(encoders.device)), measured=measured,
            )  # fmt: skip
        if report is not None:
            from search.evaluation.report.preflight import write_preflight

            grounds = [self._ground_of_source(source) for source in sources]
            for text in write_preflight(
                result, grounds, report.file, language=report.language, figures=report.figures, note=report.note
            ):
                self.notice(text)
        return result

    def _named_source(self, name: str, options: SourceOptions) -> Sequence[TileSource]:
        """A stored set by its name, as it was ingested; else a file or a folder."""
        from coarseloc.imagery.captures import open_captures
        from coarseloc.imagery.orthophoto import open_orthophoto
        from coarseloc.imagery.stated_labels import StatedLabels

        with self.db.read() as session:
            stored = {stored.name: stored.reference_set for stored in references.reference_sets(session)}
        path = Path(name)
        if name in stored and not path.exists():
            facts = stored[name]
            if facts.kind == "captures":
                stated = StatedLabels(
                    crs=facts.parameters.get("label_crs"), accepted=frozenset(facts.parameters.get("accepted", ()))
                )
                opened = open_captures(
                    Path(facts.source),
                    footprint_m=facts.footprint_m,
                    turned=facts.parameters.get("turned", "cw"),
                    labels=stated,
                )
                return [source for source in opened if source.reference_set.name == name] or opened
            return [
                open_orthophoto(
                    Path(facts.source), name=name, footprint_m=facts.footprint_m, altitude_m=facts.altitude_m,
                    overlap=facts.overlap, angles=facts.angles, tile_px=facts.parameters.get("tile_px"),
                    crs=facts.parameters.get("crs"),
                    border_is_ground=bool(facts.parameters.get("border_is_ground")),
                )
            ]  # fmt: skip
        if path.is_dir() and not any(file.suffix.lower() in _SHEETS for file in path.iterdir()):
            return open_captures(path, labels=options.labels, footprint_m=options.footprint_m, turned=options.turned)
        if not path.exists():
            raise InputError(
                f"{name} is no file, no folder and no reference set; here are {', '.join(stored) or 'none'}"
            )
        return [
            open_orthophoto(
                path, footprint_m=options.footprint_m, altitude_m=options.altitude_m,
                fov_deg=None if options.footprint_m else options.fov_deg, overlap=options.overlap,
                angles=options.angles, tile_px=options.tile_px, crs=options.crs,
                border_is_ground=options.border_is_ground,
            )
        ]  # fmt: skip

    def _asked_specs(
        self, encoders: Encoders, names: Sequence[str], sources: Sequence[TileSource]
    ) -> tuple[list[EmbeddingSpec], list[Finding]]:
        """(the specs of the backbones asked for whose weights are here, what is to be said of each); of stored sets
        those that they are embedded with, where none is asked for."""
        from search.preflight.findings import Finding

        with self.db.read() as session:
            ids = {stored.name: stored.id for stored in references.reference_sets(session)}
            of_sets = [
                embeddings.specs(session, ids[source.reference_set.name])
                for source in sources
                if source.reference_set.name in ids
            ]
        known = {stored.backbone: stored for stored_specs in of_sets for stored in stored_specs} if not names else {}
        if not names and not known:
            try:
                specs = encoders.specs([])
            except WeightsError as error:
                return [], [Finding("weights", "no", "no-backbone", {"reason": str(error)})]
            return specs, [Finding("weights", "ok", "weights", {"backbone": spec.backbone}) for spec in specs]
        asked = list(dict.fromkeys(names)) or list(known)
        absent = {name: missing for name in asked if (missing := encoders.missing(name)) is not None}
        here = [name for name in asked if name not in absent]
        findings = [Finding("weights", "ok", "weights", {"backbone": name}) for name in here]
        for name, missing in absent.items():
            values = {"backbone": name, "reason": missing.reason, "remedy": missing.remedy}
            findings.append(Finding("weights", "doubtful" if here else "no", "no-weights", values))
        specs = [
            encoders.spec(name, stored.input_px, stored.precision, stored.fit)
            if (stored := known.get(name))
            else encoders.spec(name)
            for name in here
        ]
        return specs, findings

    def _ground_of_source(self, source: TileSource) -> WindowSource | None:
        """What a map looks like, for a page."""
        from search.evaluation.report.ground_map import read_small
        from search.reference_map import reference_map

        step = -(-len(source.tiles) // _MAP_PICTURES) or 1
        captures = []
        if source.reference_set.kind == "captures":
            for tile in source.tiles[::step]:
                angle = source.angles_of(tile)[0]
                view = next(iter(source.views(tile, [angle])), None)
                if isinstance(view, View) and view.path is not None:
                    captures.append(StoredCapture(str(view.path), tile, angle))
        try:
            return reference_map(source.reference_set, captures, read_small)
        except InputError as error:
            self.notice(f"the page's map has no picture of the ground: {error}")
            return None

    def localizability(
        self,
        reference_set: str | None = None,
        backbones: Sequence[str] = (),
        *,
        excluded: Exclusion = "place",
        geotiffs: Path | None = None,
        report: ReportRequest | None = None,
        input_px: int | None = None,
        precision: str | None = None,
        fit: Any = None,
    ) -> tuple[Localizability, list[Path]]:
        """Ask a set's views where they are among its others; returns what came of it and the rasters written.

        backbones: of those that the set is embedded with, all by default. excluded: what may not answer a view.
        geotiffs: folder for two rasters a backbone, expected error and twins. report: a page. What each place comes to
        is stored in the data folder, for the pages' maps.
        """
        from search.localizability import measure_localizability
        from search.measured_ground import embedding_versions, store_ground

        (stored,) = self.reference_sets(Where(reference_sets=(reference_set,) if reference_set else ()))
        specs = self.stored_specs([stored], backbones, input_px, precision, fit)
        versions = embedding_versions(self.db, stored, specs)
        with self.show_progress(f"localizability {stored.name}") as progress:
            measured = measure_localizability(self.db, self.settings.mirrors, stored, specs, excluded, progress)
        store_ground(self.settings.localizability, stored, specs, versions, measured)
        rasters = self._write_rasters(stored, measured, geotiffs) if geotiffs else []
        if report is not None:
            from search.evaluation.report.localizability import write_localizability

            with self.show_progress("report") as progress:
                texts = write_localizability(
                    measured, self._ground(stored), report.file, language=report.language, figures=report.figures,
                    note=report.note, progress=progress,
                )  # fmt: skip
            for text in texts:
                self.notice(text)
        return measured, rasters

    def check_truth(
        self, flight_id: str, *, csv: Path | None = None, report: ReportRequest | None = None
    ) -> TruthCheck:
        """Hold a recorded flight's labels against what its runs, whole-map answers and tracks say of the imagery.

        csv: a table to correct with, which `--labels` reads. report: a page. Nothing that is stored is changed.
        """
        from search.evaluation import truth_check

        check = truth_check.check_truth(self.db, flight_id)
        if csv is not None:
            csv.parent.mkdir(parents=True, exist_ok=True)
            files.write_text(csv, truth_check.to_csv(check))
        if report is not None:
            from search.evaluation.report.truth_check import write_truth_check

            with self.show_progress("report") as progress:
                texts = write_truth_check(
                    check, self._ground_of_flight(flight_id), report.file, language=report.language,
                    figures=report.figures, note=report.note, progress=progress,
                )  # fmt: skip
            for text in texts:
                self.notice(text)
        return check

    def _ground_of_flight(self, flight_id: str) -> WindowSource | None:
        """The map of the first set that the flight's newest run searched and that is still here."""
        with self.db.read() as session:
            newest = runs.latest_runs(session, flight_id)
            live = {stored.uid: stored for stored in references.reference_sets(session)}
        searched = [live[uid] for uid in (newest[-1].set_uids if newest else ()) if uid in live]
        return self._ground(searched[0]) if searched else None

    def _write_rasters(self, stored: StoredReferenceSet, measured: Localizability, folder: Path) -> list[Path]:
        from coarseloc.imagery.geotiff import write_places

        facts = stored.reference_set
        source = Path(facts.source)
        is_raster = facts.kind == "orthophoto"
        if is_raster and not source.exists():
            self.notice(f"{source} is gone: the rasters are in WGS84 degrees (EPSG:4326), not in its CRS")
        paths = []
        for backbone in measured.backbones:
            places = backbone.places
            bands = {
                "error": {
                    "expected error, m": places.error_m,
                    "share of headings whose best answer is right": places.right_share,
                },
                "twins": {
                    "margin before the twin, cosine": places.margin,
                    "distance of the twin, m": places.twin_m,
                    "cosine of the twin": places.twin_score,
                },
            }
            for kind, values in bands.items():
                path = folder / f"{slug(stored.name)}-{slug(backbone.backbone)}-{kind}.tif"
                like = source if is_raster and source.exists() else None
                crs = facts.parameters.get("crs")
                paths.append(
                    write_places(path, places.lon, places.lat, values, stride_m=measured.stride_m, like=like, crs=crs)
                )
        return paths

    def _ground(self, stored: StoredReferenceSet) -> WindowSource | None:
        """The map that a set was made from, for a page; None, and said, where it cannot be opened."""
        from search.evaluation.report.ground_map import read_small
        from search.reference_map import reference_map

        with self.db.read() as session:
            captures = references.captures(session, stored.id)
        try:
            return reference_map(stored.reference_set, captures[:: -(-len(captures) // _MAP_PICTURES) or 1], read_small)
        except InputError as error:
            self.notice(f"the page's maps have no picture of the ground: {error}")
            return None
