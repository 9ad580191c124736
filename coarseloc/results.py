"""What the use cases of a workspace return: ingests, runs and answers, each as values, as rows and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coarseloc.core.errors import InputError
from coarseloc.core.types import Estimate, Hit, Timing

if TYPE_CHECKING:
    from coarseloc.store.runs import StoredRun
    from coarseloc.vectors.sync import DrainSummary
    from coarseloc.workspace import Workspace
    from ingest.worker import IngestSummary
    from search.evaluation.summary import RunSummary
    from search.export.records import MapLocalizationInfo


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What became of each source, and of the vector store; `note` says why it was not brought up to date."""

    summaries: list[IngestSummary]
    drained: DrainSummary | None
    note: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Where one picture was taken, by one backbone: ranked references and the estimate, None without any."""

    backbone: str
    estimate: Estimate | None
    hits: tuple[Hit, ...]
    timing: Timing
    backend: str  # what ranked the references, such as "faiss-cpu" or "qdrant-edge"

    def rows(self) -> list[dict[str, Any]]:
        """Return the hits in the shape of every export."""
        from search.export.infos import hit_result

        return [hit_result(hit).model_dump(mode="json") for hit in self.hits]

    def to_dataframe(self) -> Any:
        """`rows` as a pandas DataFrame."""
        return _dataframe(self.rows())


@dataclass(frozen=True, slots=True)
class Run:
    """One SearchRun of a flight: a backbone, and its figures."""

    workspace: Workspace
    stored: StoredRun
    summary: RunSummary
    notices: tuple[str, ...] = ()  # what its user should know of the flight's files and of the search

    @property
    def id(self) -> int:
        return self.stored.id

    @property
    def flight_id(self) -> str:
        return self.stored.flight_id

    @property
    def backbone(self) -> str:
        return self.stored.spec.backbone

    def facts(self) -> dict[str, Any]:
        """Return the run and its figures, as `coarseloc search --json` prints them."""
        from search.evaluation.summary import summary_to_json

        return {**summary_to_json(self.stored, self.summary), "notices": list(self.notices)}

    def rows(self, method: str = "best-place") -> list[dict[str, Any]]:
        """Return one row a frame, as `coarseloc export --format csv` writes it."""
        from search.export.files import run_rows

        return run_rows(self.workspace.db, self.workspace.settings.thumbnails, self.id, method)

    def to_dataframe(self, method: str = "best-place") -> Any:
        """`rows` as a pandas DataFrame."""
        return _dataframe(self.rows(method))


class Runs(list[Run]):
    """The runs of one search: one a backbone, or one a backbone and heading."""

    def rows(self, method: str = "best-place") -> list[dict[str, Any]]:
        return [row for run in self for row in run.rows(method)]

    def to_dataframe(self, method: str = "best-place") -> Any:
        """The rows of all runs as one pandas DataFrame; `encoder` tells them apart."""
        return _dataframe(self.rows(method))


class Fixes(list["MapLocalizationInfo"]):
    """Records of frames looked for on a whole map, in their order."""

    def rows(self) -> list[dict[str, Any]]:
        """Return one flat row a frame; without a match it has no position."""
        return [_fix_row(record) for record in self]

    def to_dataframe(self) -> Any:
        """`rows` as a pandas DataFrame."""
        return _dataframe(self.rows())


def _fix_row(record: MapLocalizationInfo) -> dict[str, Any]:
    fix, errors = record.estimate and record.estimate.fix, record.errors
    row: dict[str, Any] = {"flight_id": record.flight_id, "frame_index": record.frame_index}
    row |= {"filename": record.query.filename, "match": fix and fix.match, "reason": fix and fix.reason}
    for prefix, point in (("", fix and fix.ground), ("aircraft_", fix and fix.aircraft)):
        row |= {f"{prefix}lon": point and point.lon, f"{prefix}lat": point and point.lat}
        row[f"{prefix}ellipse_95_m"] = point and point.ellipse_95.major_m
    row |= {name: fix and getattr(fix, name) for name in ("heading_deg", "heading_sd_deg", "probability")}
    row |= {name: errors and getattr(errors, name) for name in ("fix_ground_m", "fix_aircraft_m", "heading_error_deg")}
    return row | {"verify_ms": record.timing_ms.verify, "error": record.error}


def _dataframe(rows: Sequence[dict[str, Any]]) -> Any:
    try:
        import pandas
    except ModuleNotFoundError:
        raise InputError(
            "pandas is not installed: `pip install pandas`, or take .rows(), which gives the same as dictionaries"
        ) from None
    return pandas.DataFrame(list(rows))
