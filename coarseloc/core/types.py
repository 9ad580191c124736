"""The domain's words as frozen values, and the two interfaces that have several implementations.

No I/O and no torch here. Angles are headings in degrees clockwise from true north that an image's
upper edge faces; positions are WGS84 degrees in named fields; heights are metres above ground.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from coarseloc.core import ids
from coarseloc.core.camera import Camera
from coarseloc.core.clock import FlightClock

T = TypeVar("T")

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class LonLat(NamedTuple):
    """A position in WGS84 degrees."""

    lon: float
    lat: float


class BBox(NamedTuple):
    """Bounds in WGS84 degrees, in GeoJSON order. `west > east` means the box crosses the antimeridian."""

    west: float
    south: float
    east: float
    north: float


class Near(NamedTuple):
    """Within `radius_m` metres (great circle) of a position."""

    lon: float
    lat: float
    radius_m: float


# --- references ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReferenceSet:
    """One named build: a source cut or captured at one altitude and overlap, turned to `angles`."""

    name: str
    kind: str  # "captures" or "orthophoto"
    source: str
    altitude_m: float | None  # above ground; None where nobody said
    overlap: float  # fraction in [0, 1)
    footprint_m: float | None  # side of a tile on the ground
    angles: tuple[int, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)  # whatever else the build depended on
    map_sd_m: float | None = None  # the map's own registration error, per axis; None where nobody said

    @property
    def picture_px(self) -> tuple[int, int] | None:
        """Width and height of its pictures; None for captures ingested before that was recorded."""
        if self.kind == "orthophoto":
            return self.parameters.get("tile_px", 1), self.parameters.get("tile_px", 1)
        width, height = self.parameters.get("picture_px") or (0, 0)
        return (width, height) if width and height else None


@dataclass(frozen=True, slots=True)
class Tile:
    """An unturned square footprint on the ground; its centre is the place. `index` counts from 1 at the
    north-west corner, west to east, then north to south."""

    index: int
    center: LonLat
    bbox: BBox


@dataclass(frozen=True, slots=True)
class View:
    """A RotatedTile's picture: the tile at one angle, read and ready to embed."""

    angle_deg: int
    pixels: UInt8  # [H, W, 3], RGB
    content_digest: str  # SHA-256 of what was seen: equal digests need no new embedding
    ground_fraction: float  # share of the pixels that hold ground, 1.0 unless the source ends here
    path: Path | None  # the image file, where the view is one (captures)


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing that could not be used, and why: a row of the failures table."""

    item: str  # what the user knows it by: a path, or "tile 12 at 045"
    stage: str  # "list", "read", "embed"
    kind: str  # "unreadable", "missing-label", "duplicate-tile", "wrong-crs", …
    message: str


class TileSource(Protocol):
    """Where reference tiles come from: turned captures, or an orthophoto cut on the fly."""

    reference_set: ReferenceSet
    tiles: Sequence[Tile]
    failures: Sequence[Failure]  # found while listing: missing labels, duplicates
    notices: Sequence[str]  # what its reader chose, doubted or left unused

    def angles_of(self, tile: Tile) -> tuple[int, ...]:
        """The headings at which this tile exists in the source."""
        ...

    def source_fingerprint(self, tile: Tile, angle_deg: int) -> str:
        """A cheap text that changes when the picture may have changed (file size and mtime, cut parameters)."""
        ...

    def views(self, tile: Tile, angles: Sequence[int]) -> Iterator[View | Failure]:
        """Read the tile once and yield it at each angle, or why it cannot be. Safe to call from threads."""
        ...


# --- flights ------------------------------------------------------------------------------------

GPS_SD_M = 3.0  # per axis, of a position that a GPS receiver without corrections gave
SIMULATED_SD_M = 0.0


AltitudeDatum = Literal["ground", "sea", "takeoff", "ellipsoid", "unknown"]
"""What an altitude is above; `takeoff` is the ground where the flight began."""


@dataclass(frozen=True, slots=True)
class Pose:
    """What a label, CSV, EXIF or XMP says of an image; every field may be unknown."""

    location: LonLat | None = None
    altitude_label_m: float | None = None  # above `altitude_datum`
    yaw_deg: float | None = None
    pitch_deg: float | None = None
    roll_deg: float | None = None
    altitude_datum: AltitudeDatum = "unknown"

    @property
    def above_ground_m(self) -> float | None:
        """The altitude, where its datum does not say that it is above something else: the one that a frame's width may
        be computed from. That of an unknown datum may be wrong, and that above take-off is where the ground rises."""
        return None if self.altitude_datum in ("sea", "ellipsoid") else self.altitude_label_m


@dataclass(frozen=True, slots=True)
class Frame:
    """One downward image of a flight. Within its flight it is known by `relative_path`, and by `index` once that
    is stored."""

    index: int
    path: Path
    relative_path: str  # POSIX, NFC, below the flight's folder
    truth: Pose = Pose()
    time: datetime | None = None  # by its flight's clock, no zone
    fingerprint: str | None = None  # changes when the file's content does

    @property
    def filename(self) -> str:
        return self.path.name


@dataclass(frozen=True, slots=True)
class Flight:
    """One sortie: a folder of frames. Its id is the folder's name, the local start time."""

    flight_id: str
    path: Path
    frames: tuple[Frame, ...]
    started_at: datetime | None = None  # local time, no zone: the id does not tell one
    truth_source: str = "none"  # "labels", "csv", "exif" or "none": of positions
    notices: tuple[str, ...] = ()  # what its reader guessed, left unused or found contradicting itself
    camera: Camera = field(default_factory=Camera)
    truth_sd_m: float = GPS_SD_M  # the truth's own error, per axis
    clock: FlightClock = field(default_factory=FlightClock)


# --- embeddings ---------------------------------------------------------------------------------


Fit = Literal["squash", "crop", "pad"]
"""How a picture that is not square becomes the model's square input: both sides are scaled to it, its middle square is
cut out, or the mean colour is laid around it."""
FITS: tuple[Fit, ...] = ("squash", "crop", "pad")

Doubt = Literal["radians", "roll", "far", "exif", "coarse", "course", "turned", "order", "null"]
"""What may be doubtful about labels, and answered with "it is so": the unit of yaws and places, headings in the roll,
places far off the others, off EXIF's, rounded or repeated, yaws beside the course; captures' yaws off the folders'
angles, their tiles' order; latitude 0, longitude 0."""
DOUBTS: tuple[Doubt, ...] = get_args(Doubt)


@dataclass(frozen=True, slots=True)
class EmbeddingSpec:
    """Everything that decides an embedding's numbers. Vectors of different digests never mix."""

    backbone: str
    dim: int
    weights_digest: str
    input_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pooling: str  # "cls" or "mean"
    precision: str = "fp32"
    fit: Fit = "squash"

    def facts(self) -> dict[str, Any]:
        """Return its fields as stored. A `fit` of "squash" is left out: specs from before there was a choice keep their
        digests."""
        facts = asdict(self)
        return facts if self.fit != "squash" else {name: value for name, value in facts.items() if name != "fit"}

    @property
    def digest(self) -> str:
        return ids.digest(self.facts())

    @property
    def how(self) -> str:
        """Describe it beside other specs of its backbone: `224 px fp32`, and its `fit` if not "squash"."""
        return f"{self.input_px} px {self.precision}" + ("" if self.fit == "squash" else f" {self.fit}")

    @property
    def collection(self) -> str:
        """The vector store's collection: one per backbone and digest."""
        return f"{ids.slug(self.backbone)}-{self.digest[:12]}"


class Backbone(Protocol):
    """A loaded encoder. Frames and tiles pass through this one `embed`."""

    spec: EmbeddingSpec
    device: str  # "cpu", "cuda:0", …

    def embed(self, images: UInt8) -> Float32:
        """uint8 [B, H, W, 3] RGB → float32 [B, D], each row of unit L2 norm; returns when it is computed
        (a GPU is synchronised)."""
        ...

    def embed_many(self, images: Sequence[UInt8]) -> Float32:
        """The same for images of differing sizes, in their order."""
        ...

    def patch_tokens(self, images: UInt8) -> Float32:
        """uint8 [B, H, W, 3] RGB → float32 [B, S, S, D], the tokens of S x S patches after the final norm, the first
        row northmost in a north-up image; not normalised."""
        ...


# --- vectors ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TileFacts:
    """What is known of a rotated tile beside its vector: the vector store's payload, a mirror's column,
    a result's fields."""

    point_id: str
    reference_set: str
    tile_id: str
    place_id: str
    angle_deg: int
    altitude_m: float | None
    overlap: float
    center: LonLat
    bbox: BBox


@dataclass(frozen=True, slots=True)
class Point:
    """One row for the vector store."""

    facts: TileFacts
    vector: Float32  # [D], unit norm

    @property
    def id(self) -> str:
        return self.facts.point_id


class ScoredPoint(NamedTuple):
    """A vector store's answer: the point's id and its cosine."""

    id: str
    score: float


# --- results ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hit:
    """One ranked RotatedTile."""

    rank: int  # from 1
    score: float  # cosine, higher is better
    tile: TileFacts
    path: str  # the picture: the capture's file, or the thumbnail of a cut tile
    filename: str


@dataclass(frozen=True, slots=True)
class RankedTile:
    """One ranked rotated tile, before its picture is located."""

    rank: int  # from 1
    score: float  # cosine
    tile: TileFacts
    path: str | None  # the capture's file; None for a cut tile
    content_digest: str  # names the thumbnail
    key: int  # of the live tile while a search answers, of its snapshot once the answer is stored


class Covariance(NamedTuple):
    """Of a position, in square metres."""

    east_east: float
    east_north: float
    north_north: float

    def matrix(self) -> Floats:
        """float64 [2, 2], by (east, north)."""
        return np.array([[self.east_east, self.east_north], [self.east_north, self.north_north]])


@dataclass(frozen=True, slots=True)
class Estimate:
    """Where a frame was taken, and facing where, by one method."""

    location: LonLat
    heading_deg: float | None
    score: float
    margin: float | None  # the best place's score above the next one's; None where there is only one hit
    margin_at_least: bool = False  # all hits are of one place: the next one is further below than `margin`
    tile: TileFacts | None = None  # the best place's best tile
    covariance_m2: Covariance | None = None
    probability: float | None = None  # that the place is right
    state: str = "located"

    @property
    def place_id(self) -> str | None:
        return self.tile.place_id if self.tile else None


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds of one frame. `embed` is resize, normalise and forward with the device synchronised;
    `search` is the index call alone; `total` is their sum. Decoding the image is `decode`, outside `total`."""

    decode_ms: float
    embed_ms: float
    search_ms: float

    @property
    def total_ms(self) -> float:
        return self.embed_ms + self.search_ms


Progress = Callable[[int, int, str], None]
"""Called with (done, total, what) by long work; must be cheap."""


def batches(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of up to `size` rows in order, reading rows lazily (`itertools.batched` is Python 3.12's)."""
    iterator = iter(rows)
    while batch := list(islice(iterator, size)):
        yield batch
