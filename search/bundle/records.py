"""The shapes inside a bundle: how answers are written, and what is asked of them when they are read again.

Written is everything that a stored answer says, each field by its own name, positions as {lon, lat}. Read is a file
that somebody else may have made: its models take what a reproduction needs and refuse what is of another kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import PurePosixPath
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from coarseloc.core.camera import Camera
from coarseloc.core.errors import InputError
from coarseloc.core.fixes import FrameFix, NoMatch, Pose2D
from coarseloc.core.types import AltitudeDatum, EmbeddingSpec, Estimate, RankedTile, Timing

Shape = TypeVar("Shape", bound="BundleRecord")

NOT_COMPARED = ("verify_ms", "map_name")  # of a fix's conditions: a time, and a name of this data folder's own


def plain(value: Any) -> Any:
    """A value of the domain as JSON holds it: dataclasses and named tuples by their fields, times in ISO 8601."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain(part) for name, part in value._asdict().items()}
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value.isoformat() if hasattr(value, "isoformat") else value


# --- written --------------------------------------------------------------------------------------


def hit_facts(hit: RankedTile, set_numbers: Mapping[str, int]) -> dict[str, Any]:
    """set_numbers: {reference set's name: its number in the bundle}."""
    tile = hit.tile
    return {
        "rank": hit.rank,
        "score": float(hit.score),
        "set": set_numbers[tile.reference_set],
        "tile_index": int(tile.tile_id.rpartition("/")[2]),
        "angle_deg": tile.angle_deg,
        "place_id": tile.place_id,
        "location": plain(tile.center),
        "bbox": list(tile.bbox),  # [west, south, east, north]
        "content_sha256": hit.content_digest,
    }


def estimate_facts(estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    facts: dict[str, Any] = plain(estimate)
    del facts["tile"]
    return facts | {"place_id": estimate.place_id, "score": float(estimate.score)}


def fix_facts(fix: FrameFix | None) -> dict[str, Any] | None:
    """A fix as it is stored: of a frame without a match no position."""
    if fix is None:
        return None
    answer = fix.answer
    facts: dict[str, Any] = {"match": fix.match, "reason": fix.reason, "conditions": plain(fix.conditions)}
    if isinstance(answer, NoMatch):
        facts |= {name: getattr(answer, name) for name in ("score", "margin", "probability", "fit_digest")}
    return facts | {"pose": plain(answer) if isinstance(answer, Pose2D) else None}


def frame_facts(
    frame_index: int,
    error: str | None,
    timing: Timing | None,
    hits: Sequence[dict[str, Any]],
    estimate: Estimate | None,
    fix: FrameFix | None,
) -> dict[str, Any]:
    """One frame of a run, a line of the bundle."""
    return {
        "frame_index": frame_index,
        "error": error,
        "timing_ms": timing and {"decode": timing.decode_ms, "embed": timing.embed_ms, "search": timing.search_ms},
        "hits": hits,
        "best_place": estimate_facts(estimate),
        "fix": fix_facts(fix),
    }


# --- read -----------------------------------------------------------------------------------------


class BundleRecord(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class BundlePosition(BundleRecord):
    lon: float
    lat: float


class BundleTruth(BundleRecord):
    location: BundlePosition | None
    altitude_label_m: float | None
    altitude_datum: AltitudeDatum
    yaw_deg: float | None
    pitch_deg: float | None
    roll_deg: float | None


class BundleFrame(BundleRecord):
    frame_index: int
    relative_path: str
    sha256: str | None  # None: it could not be told, `state` says why
    state: str
    truth: BundleTruth

    @field_validator("relative_path")
    @classmethod
    def _below_the_folder(cls, value: str) -> str:
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts or "\x00" in value or not path.parts:
            raise ValueError("a frame lies below its flight's folder")
        return value


class BundleFlight(BundleRecord):
    flight_id: str
    flight_uid: str
    frames: list[BundleFrame]


class BundleSet(BundleRecord):
    number: int
    uid: str
    name: str


class BundleParameters(BundleRecord):
    k: int = Field(ge=1, le=1000)
    batch: int = Field(ge=1, le=4096)
    where: dict[str, Any]
    angle_deg: int | None


class BundleFixParameters(BundleRecord):
    places: int = Field(ge=1, le=100)
    camera: Camera
    map_sd_m: float | None
    fit_digest: str


class BundleRun(BundleRecord):
    run: int
    spec: EmbeddingSpec
    sets: list[BundleSet]
    references_state: str
    parameters: BundleParameters
    fix_parameters: BundleFixParameters | None
    environment: dict[str, Any]


class BundleHit(BundleRecord):
    rank: int
    score: float
    set: int
    tile_index: int
    angle_deg: int
    content_sha256: str

    @property
    def tile(self) -> tuple[int, int, int]:
        return self.set, self.tile_index, self.angle_deg

    @property
    def tile_text(self) -> str:
        return f"tile {self.tile_index} at {self.angle_deg:03d} of set {self.set}"


class BundleEstimate(BundleRecord):
    location: BundlePosition
    heading_deg: float | None


class BundlePose(BundleRecord):
    ground: BundlePosition
    aircraft: BundlePosition | None
    heading_deg: float


class BundleFix(BundleRecord):
    match: bool | None
    reason: str | None
    pose: BundlePose | None


class BundleAnswer(BundleRecord):
    """One frame's line."""

    frame_index: int
    error: str | None
    hits: list[BundleHit]
    best_place: BundleEstimate | None
    fix: BundleFix | None


def parse(shape: type[Shape], facts: Any, name: str) -> Shape:
    """Read what a member says. Raises InputError naming it where it is of another kind."""
    try:
        return shape.model_validate(facts)
    except (ValidationError, RecursionError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "nested too deeply"}
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{name} of the bundle cannot be used: {where or 'it'}: {first['msg']}") from None
