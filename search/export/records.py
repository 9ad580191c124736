"""CoarseLocalizationInfo: the record other programs read. These models are the schema.

The first eight keys of a record are the ones its readers have always known; everything else is added, nothing is
renamed, and readers pass over what they do not know. `python -m search.export.records FOLDER` writes the published JSON
Schemas.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import GenerateJsonSchema

from coarseloc.core.clock import TimeSource
from coarseloc.core.tracks import MotionSource, TrackEvidence, TrackMode, TrackState
from coarseloc.core.types import AltitudeDatum

SCHEMA_VERSION: Final = "1.3"

Heading = Field(ge=0, lt=360, description="degrees clockwise from true north, that an image's upper edge faces")
BBoxArray = tuple[float, float, float, float]
Position = tuple[float, float]  # [lon, lat]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Location(_Record):
    """WGS84 degrees."""

    lon: float = Field(ge=-180, le=180)
    lat: float = Field(ge=-90, le=90)


class GridInfo(_Record):
    """A position in the projected CRS that was asked for: east and north in its units, to a thousandth."""

    crs: str = Field(description="authority and code, such as EPSG:32652")
    x: float
    y: float


Grid = Field(default=None, description="the same in the CRS that was asked for (--crs); null without one")


class TimingMs(_Record):
    """Milliseconds of this frame, after a warm-up, the device synchronised. Where `query.batch` is above 1, embed and
    search are its batch's, divided by the frames in it."""

    embed: float = Field(ge=0, description="resize, normalise and forward")
    search: float = Field(ge=0, description="the index call alone")
    total: float = Field(ge=0, description="embed + search")
    decode: float = Field(ge=0, description="reading and decoding the image; not part of total")
    verify: float | None = Field(
        default=None, ge=0, description="looking for the frame on the map; not part of total; null where it was not"
    )


class Result(_Record):
    """One ranked reference: a tile at one heading."""

    rank: int = Field(ge=1)
    path: str = Field(description="the capture's file; the thumbnail of a tile cut from an orthophoto")
    filename: str
    score: float = Field(description="cosine, higher is better")
    tile_id: str
    place_id: str = Field(description="the same for all headings and all sets that share this centre")
    angle_deg: int = Heading
    altitude_m: float | None = Field(description="above ground; null where nobody said")
    overlap: float = Field(ge=0, lt=1, description="fraction")
    reference_set: str = Field(description="the set that the tile is of")
    location: Location = Field(description="the tile's centre")
    bbox: BBoxArray = Field(description="[west, south, east, north]; west > east across the antimeridian")


class ThreadCounts(_Record):
    """How many may work at one call, on a CPU."""

    torch: int = Field(ge=1, description="of an embedding")
    faiss: int = Field(ge=1, description="of a search")
    omp: int = Field(ge=1, description="OpenMP's, of a call of FAISS that says nothing else")


class FrameFactsInfo(_Record):
    """What a frame's own files say of it; null where they do not."""

    taken_at: datetime | None = Field(default=None, description="by the flight's clock, no zone")
    time_source: TimeSource | None = Field(
        default=None, description="what gives the flight's times; index: nothing, only the order of the frames is known"
    )
    utc_offset_s: int | None = Field(default=None, description="taken_at minus UTC; null where nothing says")
    altitude_label_m: float | None = Field(default=None, description="above altitude_datum")
    altitude_datum: AltitudeDatum | None = Field(default=None, description="null where there is no altitude")
    yaw_deg: float | None = Field(default=None, description="that the frame's upper edge faces, clockwise from north")
    pitch_deg: float | None = Field(default=None, description="nose up: a label's of the aircraft, XMP's of the camera")
    roll_deg: float | None = Field(default=None, description="right wing down, of the same")


class QueryInfo(FrameFactsInfo):
    """What was asked: the frame, and how."""

    run: int = Field(description="the SearchRun in the database")
    path: str
    filename: str
    relative_path: str = Field(description="below the flight's folder: what the frame is known by")
    spec_digest: str = Field(description="of weights, input size, normalisation, pooling and precision")
    input_px: int
    precision: str
    fit: str = Field(default="squash", description="how a frame that is not square became so")
    batch: int = Field(ge=1, description="frames embedded at once; 1 unless throughput was asked for")
    angle_deg: int | None = Field(description="the one heading that was searched, null for all")
    where: dict[str, Any] = Field(description="the filters that were given, empty for none")
    device: str = Field(description="what embedded: cpu, cuda:0, …")
    threads: ThreadCounts | None = Field(default=None, description="null where the run does not record them")


class ReferenceSetInfo(_Record):
    """What was searched."""

    name: str
    kind: str
    altitude_m: float | None
    overlap: float
    footprint_m: float | None
    angles: list[int]
    references: int = Field(ge=0, description="rotated tiles searched")


class AgreementInfo(_Record):
    """How many backbones put the frame at the same place: of each the newest finished run that was asked the same."""

    backbones: int = Field(ge=0, description="within the distance, this one included")
    of: int = Field(ge=1, description="1: no other backbone has answered, so that there is nothing to agree with")
    within_m: float = Field(description="1.05 strides of the references, on the ellipsoid")


class CovarianceInfo(_Record):
    """Of a position, in square metres."""

    east_east: float = Field(ge=0)
    east_north: float
    north_north: float = Field(ge=0)


class EllipseInfo(_Record):
    """Semi-axes of an ellipse on the ground; the azimuth is the major one's, clockwise from true north."""

    major_m: float = Field(ge=0)
    minor_m: float = Field(ge=0)
    azimuth_deg: float = Field(ge=0, lt=180)


class FixPointInfo(_Record):
    """A position with its uncertainty."""

    lon: float = Field(ge=-180, le=180)
    lat: float = Field(ge=-90, le=90)
    covariance_m2: tuple[tuple[float, float], tuple[float, float]] = Field(description="[[EE, EN], [EN, NN]]")
    ellipse_95: EllipseInfo = Field(description="holds the position with 95 %")
    grid: GridInfo | None = Grid


class RunnerUpInfo(_Record):
    """The next best place of a frame."""

    lon: float = Field(ge=-180, le=180)
    lat: float = Field(ge=-90, le=90)
    heading_deg: float = Heading
    score: float


class FixConditionsInfo(_Record):
    """What a frame was looked for with."""

    footprint_m: float = Field(gt=0, description="the frame's expected width on the ground")
    footprint_source: str
    map_name: str
    map_gsd_m: float = Field(gt=0, description="the map's ground sample distance")
    map_sd_m: float = Field(ge=0, description="the map's own registration error, per axis")
    map_sd_source: str
    verify_ms: float = Field(ge=0, description="looking for it on the map")
    map_pictures: int | None = Field(
        default=None,
        ge=1,
        description="captures that the map around the fix is laid together from, 1: a tile without neighbours; "
        "null of an orthophoto and without a match",
    )


class FixInfo(_Record):
    """Where a frame lies on the map, or that it lies nowhere on it. Without a match there is no position."""

    match: bool | None = Field(description="false: no match, see reason; null: not looked for")
    reason: str | None = Field(description="why there is no match; null where there is one")
    ground: FixPointInfo | None = Field(description="under the frame's middle")
    aircraft: FixPointInfo | None = Field(description="null where the camera's height is unknown")
    heading_deg: float | None = Heading
    heading_sd_deg: float | None = Field(ge=0)
    tilt_deg: float | None = Field(description="of the camera from the vertical; null where it is unknown")
    scale: float | None = Field(description="width on the ground over `query.footprint_m`")
    score: float | None = Field(description="of the fit, at most 1; compares within one land and season")
    margin: float | None = Field(description="score above the next distinct place's")
    probability: float | None = Field(ge=0, le=1, description="that the place is right")
    method: str | None
    attitude: str | None = Field(
        description="where the camera's attitude is from: label, boresight, mounting, estimated, unknown"
    )
    fit_digest: str | None = Field(description="of the constants that covariance and probability were fitted with")
    corners: tuple[Position, Position, Position, Position] | None = Field(
        description="of the frame on the ground: upper left, upper right, lower right, lower left, [lon, lat] each"
    )
    runner_up: RunnerUpInfo | None = Field(description="the next best place; null where there is no match or no other")
    conditions: FixConditionsInfo | None = Field(description="what the frame was looked for with")


class AlternativeInfo(_Record):
    """Where else a frame may be. Never to be taken for its position."""

    lon: float = Field(ge=-180, le=180)
    lat: float = Field(ge=-90, le=90)
    heading_deg: float = Heading
    probability: float = Field(ge=0, le=1)


class TrackInfo(_Record):
    """Where a flight's track has a frame. It has a position only while it is tracking or recovered."""

    state: TrackState = Field(description="acquiring: not known yet; lost: no longer known")
    mode: TrackMode = Field(description="causal: by the frames so far; smoothed: by all of the flight")
    point: Literal["aircraft", "ground"] | None = Field(description="what `location` is of")
    location: FixPointInfo | None
    heading_deg: float | None = Heading
    heading_sd_deg: float | None = Field(ge=0)
    speed_mps: float | None = Field(ge=0, description="over ground; null where no time is known")
    probability: float = Field(ge=0, le=1, description="that the place is right")
    p_off_map: float = Field(ge=0, le=1, description="that the frame lies beyond the map")
    p_blind: float = Field(ge=0, le=1, description="that the ground does not register: cloud, water, changed fields")
    measured: bool = Field(description="this frame was found on the map; false: carried on by its motion")
    odometry: MotionSource = Field(description="what tells the motion between frames")
    reset_counter: int = Field(ge=0, description="goes up where the position jumps")
    alternatives: list[AlternativeInfo]
    evidence: TrackEvidence | None = Field(default=None, description="what told the track's places, in records of runs")
    options: list[str] | None = Field(
        default=None,
        description="what else the track was asked with: backbones whose ranks it goes by, and options such as "
        "`--yaw labels`, in records of runs",
    )


class EstimateInfo(_Record):
    """Where the frame was taken, and facing where."""

    location: Location
    heading_deg: float | None = Heading
    place_id: str | None
    score: float
    margin: float | None = Field(description="score of the best place above the second; null where only one was found")
    margin_at_least: float | None = Field(description="where only one place was found: the margin is at least this")
    method: str
    state: str = Field(description="located: the position is to be used")
    covariance_m2: CovarianceInfo | None = Field(description="null where the method states none")
    probability: float | None = Field(ge=0, le=1, description="that the place is right; null where nobody says")
    agreement: AgreementInfo
    fix: FixInfo
    track: TrackInfo | None = Field(default=None, description="null where the run was not tracked")
    grid: GridInfo | None = Grid


class TruthInfo(_Record):
    """What the flight's labels say."""

    location: Location
    heading_deg: float | None = Heading
    source: str
    grid: GridInfo | None = Grid


class ErrorsInfo(_Record):
    """The results held against the truth."""

    error_m: float | None = Field(description="great circle, from the estimate; null where there is none")
    best_error_m: float | None = Field(description="great circle, from the nearest of the results")
    heading_error_deg: float | None = Field(description="circular; null unless the truth lies in the best footprint")
    inside_footprint: bool = Field(description="the truth lies in the best result's footprint")
    on_map: bool = Field(description="some reference shows the truth; without one, no answer is right")
    fix_ground_m: float | None = Field(
        default=None, description="great circle, from the fix's point under the frame's middle; null without a match"
    )
    fix_aircraft_m: float | None = Field(default=None, description="great circle, from the fix's aircraft")
    track_m: float | None = Field(default=None, description="great circle, from the track's location; null without one")


class CoarseLocalizationInfo(_Record):
    """One frame under one backbone."""

    model_config = ConfigDict(title="CoarseLocalizationInfo")

    encoder: str
    backend: Literal["faiss-gpu", "faiss-cpu", "torch-cuda", "numpy", "torch-cpu"] = Field(description="what searched")
    dim: int = Field(ge=1)
    metric: Literal["ip"]
    topk: int = Field(ge=1)
    timing_ms: TimingMs
    results: list[Result] = Field(description="best first")
    index_build_ms: float = Field(ge=0, description="reading the vectors and building the index, when that was done")
    schema_version: Literal["1.3"]
    flight_id: str
    frame_index: int
    query: QueryInfo
    reference_set: ReferenceSetInfo
    estimate: EstimateInfo
    truth: TruthInfo | None = Field(default=None, description="only where it is known")
    errors: ErrorsInfo | None = Field(default=None, description="only where the truth is known")
    tags: list[str] | None = Field(default=None, description="that people gave the frame; only where it has any")
    note: str | None = Field(default=None, description="that people wrote on the frame; only where there is one")

    def to_json(self) -> dict[str, Any]:
        """Without `truth` and `errors` where there is no truth, and without `tags` and `note` where there are none;
        other unknown values are null."""
        unknown = {name for name in ("truth", "errors", "tags", "note") if getattr(self, name) is None}
        return self.model_dump(mode="json", exclude=unknown)


class FrameFailure(_Record):
    """A frame that could not be searched."""

    frame_index: int
    filename: str
    encoder: str
    reference_set: str
    angle_deg: int | None
    error: str


class FlightLocalizations(_Record):
    """A whole flight: every frame under every backbone, and the frames that failed."""

    model_config = ConfigDict(title="CoarseLocalizationFlight")

    schema_version: Literal["1.3"]
    flight_id: str
    started_at: datetime | None = Field(description="local time, no zone: the flight's id does not tell one")
    truth_source: str
    frames: int = Field(ge=0)
    localizations: list[CoarseLocalizationInfo]
    failures: list[FrameFailure]


class MapQueryInfo(FrameFactsInfo):
    """The image that was looked for."""

    path: str
    filename: str
    footprint_m: float | None = Field(description="the frame's width on the ground that was expected")
    footprint_source: str | None
    fov_deg: float | None = Field(description="of the camera, across the frame's width; null where it is unknown")
    stabilised: bool = Field(description="a gimbal holds the camera")
    distortion: tuple[float, ...] | None = Field(
        default=None, description="k1, k2, p1, p2, k3 of the lens, in OpenCV's order; null where none was said"
    )
    mount_yaw_deg: float | None = Field(default=None, description="of the camera in the aircraft; null: none was said")
    mount_pitch_deg: float | None = None
    mount_roll_deg: float | None = None
    camera_digest: str | None = Field(
        default=None, description="of all that was said of the camera, the errors of its attitude and boresights too"
    )


class MapInfo(_Record):
    """The map that it was looked for on."""

    name: str = Field(description="a GeoTIFF's path, or the reference set it is the source of")
    gsd_m: float = Field(gt=0, description="ground sample distance")
    bbox: BBoxArray = Field(description="[west, south, east, north] of what was looked at")
    registration_sd_m: float = Field(ge=0, description="the map's own registration error, per axis")
    registration_sd_source: str


class MapTimingMs(_Record):
    """Milliseconds of this frame."""

    decode: float | None = Field(
        ge=0, description="reading and decoding the image, not part of total; null where the answer was stored before"
    )
    verify: float = Field(ge=0, description="looking for it on the map")
    total: float = Field(ge=0, description="verify: there is no embedding and no search")


class MapEstimateInfo(_Record):
    fix: FixInfo


class FixErrorsInfo(_Record):
    """The fix held against the truth; null where there is no such point."""

    fix_ground_m: float | None = Field(description="great circle, from the point under the frame's middle")
    fix_aircraft_m: float | None = Field(description="great circle, from the aircraft's own point")
    heading_error_deg: float | None = Field(description="circular")


class MapLocalizationInfo(_Record):
    """One frame looked for on a whole map, without any embedding."""

    model_config = ConfigDict(title="MapLocalizationInfo")

    schema_version: Literal["1.0"]
    flight_id: str
    frame_index: int
    query: MapQueryInfo
    map: MapInfo
    timing_ms: MapTimingMs
    estimate: MapEstimateInfo | None = Field(description="null where the image could not be looked for")
    error: str | None = Field(description="why the image could not be looked for")
    truth: TruthInfo | None = Field(description="null where it is unknown")
    errors: FixErrorsInfo | None = Field(description="null where the truth is unknown or there is no match")


class TrackErrorsInfo(_Record):
    """A track's estimate held against the truth, which is the aircraft's position."""

    track_m: float = Field(ge=0, description="great circle, from the location")
    heading_error_deg: float | None = Field(description="circular; null where the true heading is unknown")


class FrameTrackInfo(_Record):
    """One frame of a flight's track."""

    model_config = ConfigDict(title="FrameTrackInfo")

    schema_version: Literal["1.0"]
    flight_id: str
    frame_index: int
    relative_path: str = Field(description="below the flight's folder: what the frame is known by")
    taken_at: datetime | None = Field(description="by the flight's clock, no zone")
    track: TrackInfo
    error: str | None = Field(description="why the frame's picture could not be looked at")
    truth: TruthInfo | None = Field(description="null where it is unknown")
    errors: TrackErrorsInfo | None = Field(description="null where the truth or the location is unknown")
    track_ms: float | None = Field(ge=0, description="decoding included; null where the evidence was stored before")
    larger_ms: float | None = Field(
        None, ge=0, description="embedding and search by the larger backbone of a cascade; null where it was not asked"
    )


class LiveFrameInfo(FrameTrackInfo):
    """One frame of a flight that is tracked while it is flown."""

    model_config = ConfigDict(title="LiveFrameInfo")

    sequence: int = Field(ge=1, description="counts all that came: what is missing was dropped or could not be read")
    dropped: int = Field(ge=0, description="frames dropped so far, since they would have been late")
    captured_at: datetime | None = Field(description="taken_at in UTC; null where it or its offset is not known")
    arrived_at: datetime = Field(description="UTC, by the clock of the machine that tracks")
    estimated_at: datetime = Field(description="UTC, by the same clock")
    age_s: float = Field(ge=0, description="from arrival to estimate")
    capture_age_s: float | None = Field(
        description="from captured_at to estimated_at, two machines' clocks: may be off by their difference"
    )


class TwinInfo(_Record):
    """A place and another one, far from it, that looks more or nearly as much like it as its own surroundings do."""

    location: Location
    twin_location: Location
    distance_m: float = Field(ge=0)
    score: float = Field(description="cosine of the two most alike views")
    margin: float = Field(description="the best right answer's cosine less that; below 0 the twin comes first")


class GroundInfo(_Record):
    """What one backbone recognises of a set's ground, each view a query against all the others."""

    backbone: str
    how: str = Field(description="input size and precision")
    views: int = Field(ge=0)
    places: int = Field(ge=0)
    ground_share: float = Field(ge=0, le=1, description="of the ground: the mean over places of their views' share")
    places_always: int = Field(ge=0, description="recognised at every heading")
    places_never: int = Field(ge=0, description="recognised at none")
    shares: dict[str, float] = Field(description="{what may not answer: share of views whose best answer is right}")
    share_by_heading: dict[int, float]
    median_error_m: float | None
    p90_error_m: float | None
    search_s: float = Field(ge=0, description="all views searched among all")
    twins: list[TwinInfo] = Field(description="the worst first, each place once")


class GainInfo(_Record):
    """What more headings, a further backbone or altitude buys: the same queries without it and with it."""

    kind: Literal["heading", "backbone", "altitude"]
    name: str
    queries: int = Field(ge=0)
    share_without: float = Field(ge=0, le=1)
    share_with: float = Field(ge=0, le=1)


class LocalizabilityInfo(_Record):
    """How well the ground of a reference set tells where it is."""

    model_config = ConfigDict(title="LocalizabilityInfo")

    schema_version: Literal["1.0"]
    reference_set: str
    footprint_m: float = Field(gt=0, description="an answer is right within it, centre to centre")
    stride_m: float = Field(gt=0)
    headings: list[int]
    excluded: Literal["view", "place", "neighbours"] = Field(description="what may not answer a view")
    backbones: list[GroundInfo]
    gains: list[GainInfo]
    not_measured: list[str] = Field(description="kinds of gains for which nothing is stored")
    rasters: list[str] = Field(description="GeoTIFFs written")


class WitnessStatementInfo(_Record):
    """Where one witness puts a frame."""

    witness: str
    kind: Literal["fix", "whole-map", "track", "best-place", "beside"]
    location: Location
    distance_m: float | None = Field(description="from what the label says; null without a label")
    tolerance_m: float = Field(description="within which it agrees with the label")
    probability: float | None
    heading_deg: float | None


class LabelInfo(_Record):
    """One frame's label and what its witnesses make of it."""

    frame_index: int
    relative_path: str
    verdict: Literal["not contradicted", "contradicted", "cannot say"]
    reason: str
    label: Location | None
    proposal: Location | None = Field(description="where the imagery puts a contradicted frame")
    heading_off_deg: float | None = Field(description="the imagery's heading less the label's yaw")
    heading_contradicted: bool
    testimonies: list[WitnessStatementInfo]


class LegOffsetInfo(_Record):
    """By how much the imagery lies beyond the labels on one leg: medians of its frames."""

    first: int
    last: int
    frames: int
    heading_deg: float
    east_m: float
    north_m: float
    right_m: float
    forward_m: float
    sd_m: float
    constant: bool = Field(description="more than chance")
    pitch_deg: float | None = Field(description="the same as an angle of the camera, as of `coarseloc boresight`")
    roll_deg: float | None


class ExplanationInfo(_Record):
    """Labels undone in one way, held against the imagery."""

    name: str
    sentence: str
    values: dict[str, float]
    median_m: float
    share_within: float = Field(description="of the frames, within their tolerance")
    frames: int
    accepted: bool
    tied: bool = Field(description="with the accepted one before it")


class HeadingOffsetInfo(_Record):
    """What the imagery's headings lie beyond the labels' yaws."""

    median_deg: float
    scatter_deg: float
    frames: int
    mirrored: bool = Field(description="yaws count counterclockwise")


class TruthCheckInfo(_Record):
    """A flight's labels held against the imagery."""

    model_config = ConfigDict(title="TruthCheckInfo")

    schema_version: Literal["1.0"]
    flight_id: str
    truth_source: str
    counts: dict[str, int] = Field(description="{verdict: frames}")
    witnesses: list[str]
    off_map: int = Field(description="labels where no reference shows the ground")
    nearest_m: float | None = Field(description="of these, the median distance to the nearest reference")
    map_shift_m: tuple[float, float] | None = Field(description="[east, north] of the map from the labels")
    heading: HeadingOffsetInfo | None
    legs: list[LegOffsetInfo]
    explanations: list[ExplanationInfo] = Field(description="the labels as they are first, then those that hold")
    frames: list[LabelInfo]


PreflightLevel = Literal["ok", "doubtful", "no"]


class FindingInfo(_Record):
    """One reason of a verdict."""

    topic: str = Field(description="map, flight, overlap, weights, cost or disk")
    level: PreflightLevel
    key: str
    sentence: str
    values: dict[str, Any]


class SourceInfo(_Record):
    """A map as tiles, before an ingest."""

    name: str
    kind: str
    path: str
    crs: str | None
    gsd_m: float | None = Field(description="of an orthophoto")
    picture_px: int | None = Field(description="a tile's side")
    footprint_m: float
    altitude_m: float | None
    overlap: float
    headings: list[int]
    tiles: int
    views: int
    outside: int = Field(description="places with less than half of ground")
    holes: int = Field(description="places of the grid in the box around all that are missing")
    uneven: int = Field(description="places that lack some headings")
    bbox: BBoxArray
    ground_km2: float
    failures: dict[str, int]
    sampled: int | None = Field(description="tiles that were read; null where nothing was measured")
    blank: int | None
    plain: int | None = Field(description="almost without contrast")


class FlightInfo(_Record):
    """A flight before a search."""

    flight_id: str
    path: str
    frames: int
    truth_source: str
    known_positions: int
    known_yaws: int
    known_altitudes: int = Field(description="above ground")
    time_source: str | None
    span_s: float | None
    interval_s: float | None
    footprint_m: float | None
    footprint_source: str | None
    off_map: int | None = Field(description="frames of known position where no tile shows the ground")
    nearest_m: float | None


class EncoderCostInfo(_Record):
    """What one backbone has to do."""

    backbone: str
    dim: int
    embeddings: int
    views: int
    embed_ms: float | None = Field(description="of one view in a batch; null where it was not measured")
    frame_ms: float | None = Field(description="of one frame alone")


class PreflightInfo(_Record):
    """What is to be expected of maps and a flight, and why."""

    model_config = ConfigDict(title="PreflightInfo")

    schema_version: Literal["1.0"]
    verdict: PreflightLevel
    findings: list[FindingInfo]
    notes: list[str] = Field(description="what readers chose, doubted or left unused")
    sources: list[SourceInfo]
    flight: FlightInfo | None
    backbones: list[EncoderCostInfo] = Field(description="of those asked for, whose weights are here")
    ingest_minutes: float | None
    search_minutes: float | None = Field(description="beside the fixes")
    disk_needed_bytes: int
    disk_free_bytes: int


SCHEMAS: dict[str, type[BaseModel]] = {
    "coarse-localization-info.v1.schema.json": CoarseLocalizationInfo,
    "coarse-localization-flight.v1.schema.json": FlightLocalizations,
    "map-localization-info.v1.schema.json": MapLocalizationInfo,
    "frame-track-info.v1.schema.json": FrameTrackInfo,
    "preflight-info.v1.schema.json": PreflightInfo,
    "localizability-info.v1.schema.json": LocalizabilityInfo,
    "truth-check-info.v1.schema.json": TruthCheckInfo,
    "live-frame-info.v1.schema.json": LiveFrameInfo,
}


class PublishedSchema(GenerateJsonSchema):
    """Without a title for each field: it only repeats the names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema(model: type[BaseModel]) -> str:
    """The model's JSON Schema (draft 2020-12) as the text that is published."""
    schema = {"$schema": PublishedSchema.schema_dialect, **model.model_json_schema(schema_generator=PublishedSchema)}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name, model in SCHEMAS.items():
        (Path(sys.argv[1]) / name).write_text(json_schema(model), encoding="utf-8")
