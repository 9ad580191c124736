"""Use cases that doubt: whether a map tells where it is, whether a flight's labels are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coarseloc.core.errors import InputError
from coarseloc.core.filters import Where
from coarseloc.core.ids import slug
from coarseloc.data_folder import DataFolder
from coarseloc.store import references, runs

if TYPE_CHECKING:
    from coarseloc.core.windows import WindowSource
    from coarseloc.store.references import StoredReferenceSet
    from search.evaluation.truth_check import TruthCheck
    from search.localizability import Exclusion, Localizability

_MAP_PICTURES = 600  # captures that a page's map is laid together from: more are thinned out


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """Where a page goes and how it reads."""

    file: Path
    language: str = "en"
    figures: Path | None = None
    note: str | None = None


class FolderChecks(DataFolder):
    """What a workspace says of maps and flights without placing anything."""

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
        geotiffs: folder for two rasters a backbone, expected error and twins. report: a page.
        """
        from search.localizability import measure_localizability

        (stored,) = self.reference_sets(Where(reference_sets=(reference_set,) if reference_set else ()))
        specs = self.stored_specs([stored], backbones, input_px, precision, fit)
        with self._show_progress(f"localizability {stored.name}") as progress:
            measured = measure_localizability(self.db, self.settings.mirrors, stored, specs, excluded, progress)
        rasters = self._write_rasters(stored, measured, geotiffs) if geotiffs else []
        if report is not None:
            from search.evaluation.report.localizability import write_localizability

            with self._show_progress("report") as progress:
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
            csv.write_text(truth_check.to_csv(check), encoding="utf-8")
        if report is not None:
            from search.evaluation.report.truth_check import write_truth_check

            with self._show_progress("report") as progress:
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
        if is_raster and not source.is_file():
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
                like = source if is_raster and source.is_file() else None
                crs = facts.parameters.get("crs")
                paths.append(
                    write_places(path, places.lon, places.lat, values, stride_m=measured.stride_m, like=like, crs=crs)
                )
        return paths

    def _ground(self, stored: StoredReferenceSet) -> WindowSource | None:
        """The map that a set was made from, for a page; None, and said, where it cannot be opened."""
        from search.evaluation.report.ground_map import read_small
        from search.map_localization import reference_map

        with self.db.read() as session:
            captures = references.captures(session, stored.id)
        try:
            return reference_map(stored.reference_set, captures[:: -(-len(captures) // _MAP_PICTURES) or 1], read_small)
        except InputError as error:
            self.notice(f"the page's maps have no picture of the ground: {error}")
            return None
