"""What each JSON answer holds: the models of `/api/openapi.json`.

Views answer with plain dictionaries, and these say what is in them; `tests/integration/test_web_contract.py` holds
one against the other, key by key. What `coarseloc export` writes is described by `search.export.records`.
Nothing is renamed or taken away; what is added, older readers pass over.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from coarseloc.core.filters import WhereJson
from search.export.records import AgreementInfo, BBoxArray, Heading, Location, Result

Url = Field(description="a path on this server")
Verdict = Literal["on", "near", "far"]


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Problem(Answer):
    """Why a request was not answered, and what to do (RFC 9457)."""

    type: Literal["about:blank"]
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    request_id: str = Field(description="names the request in the server's log")


# --- parts of several answers ---------------------------------------------------------------------


class FlightFacts(Answer):
    id: str
    frames: int = Field(ge=0)
    started_at: str | None = Field(description="local time, no zone")
    truth_source: str = Field(description="labels, table, exif or none")


class NamedFlight(Answer):
    id: str
    frames: int = Field(ge=0)


class Asked(Answer):
    """What sets searches of one flight apart; `key` chooses one in an address (`?asked=`)."""

    key: str
    label: str
    angle_deg: int | None = Field(description="the one heading that was searched, null for all")
    where: WhereJson
    k: int | None


class Shown(Answer):
    """Which searches this answer is of, and which others there are."""

    reference_sets: list[str]
    reference_set: str | None
    asked: list[Asked]
    asked_key: str | None


class Model(Answer):
    """One search of a flight, by its backbone; `key` chooses it in an address (`?model=`)."""

    key: str
    backbone: str
    title: str
    params_m: float | None = Field(description="millions of parameters")
    pretraining: str | None
    dim: int
    input_px: int
    precision: str
    run: int
    reference_set: str
    references: int = Field(ge=0, description="rotated tiles searched")
    parameters: dict[str, Any]
    environment: dict[str, Any]


class JudgedModel(Model):
    """With medians over its frames; null where no frame has the figure."""

    done: int = Field(ge=0)
    failed: int = Field(ge=0)
    off_map: int = Field(ge=0, description="truth is known, and no reference shows it: no part of the median error")
    median_score: float | None
    median_margin: float | None
    median_error_m: float | None = Field(description="null where truth is not known")
    median_embed_ms: float | None
    median_search_ms: float | None
    median_total_ms: float | None


class MapFrame(Answer):
    """The bounds of a map, and metres per degree at its centre."""

    extent: BBoxArray
    origin: Location
    metres_per_degree: dict[Literal["lon", "lat"], float]


class GroundMap(MapFrame):
    """The bounds of a reference set, and where its ground and its tiles are."""

    reference_set: str
    footprint_m: float | None
    ground: str = Url
    tiles: str = Url


class Margin(Answer):
    """How far the best place's score is above the next one's."""

    score: float
    at_least: bool = Field(description="all hits are of one place: the next one is farther below")


class FrameEstimate(Answer):
    location: Location
    heading_deg: float | None = Heading
    place_id: str | None
    state: str
    score: float
    margin: Margin | None = Field(description="null where there is only one hit")
    agreement: AgreementInfo | None = Field(description="null where an image was looked up: nobody else has answered")
    error_m: float | None
    heading_error_deg: float | None = Field(description="null unless the truth lies in the best footprint")
    verdict: Verdict | None
    on_map: bool | None = Field(description="some reference shows the truth")


class Hit(Result):
    """One ranked reference, a tile at one heading, with what a page shows beside it."""

    drop: float = Field(ge=0, description="below rank 1")
    kept: float = Field(ge=0, le=1, description="1 at rank 1, 0 at the largest drop shown")
    image: str = Url
    image_full: str = Url
    distance_m: float | None = Field(description="from the truth; null where it is not known")
    verdict: Verdict | None = Field(description="the truth lies on the tile, near it, or far; null where not known")


# --- flights --------------------------------------------------------------------------------------


class FlightCard(Answer):
    id: str
    url: str = Url
    frames: int = Field(ge=0)
    truth_source: str
    image: str | None = Url
    track: list[tuple[float, float]] = Field(description="longitude, latitude")
    track_is_estimated: bool
    reference_set: str | None
    models: list[JudgedModel]


class Flights(Answer):
    """Cards of a page of flights, newest first."""

    flights: list[FlightCard]
    total: int = Field(ge=0)
    page_number: int = Field(ge=1)
    pages: int = Field(ge=1)


class BestOfFrame(Answer):
    score: float
    margin: float | None = Field(description="null where there is only one hit")
    margin_at_least: bool
    error_m: float | None
    location: Location
    angle_deg: float | None = Heading
    image: str | None = Url
    verdict: Verdict | None


class FrameInFlight(Answer):
    index: int
    url: str = Url
    image: str = Url
    truth: Location | None
    best: BestOfFrame | None


class Flight(Shown):
    """A flight: figures per backbone, and every frame with the chosen backbone's best place."""

    flight: FlightFacts
    map: GroundMap | MapFrame | None
    colour: Literal["error", "margin"]
    models: list[JudgedModel]
    model: str | None
    frame_query: str
    frames: list[FrameInFlight]


class FrameTruth(Answer):
    location: Location | None
    yaw_deg: float | None
    altitude_label_m: float | None


class FrameFacts(Answer):
    index: int
    filename: str
    image: str = Url
    image_view: str = Url
    image_full: str = Url
    truth: FrameTruth


class FrameTiming(Answer):
    """Milliseconds; `total_ms` is embed + search."""

    decode_ms: float
    embed_ms: float
    search_ms: float
    total_ms: float


class FrameUnderModel(Model):
    timing: FrameTiming | None
    error: str | None
    hits: list[Hit] = Field(description="best first")
    estimate: FrameEstimate | None


class AgreeingModels(Answer):
    """The largest group of backbones whose estimates lie within the distance of one of them, that one first."""

    within_m: float
    models: list[str]
    of: int = Field(ge=0)
    voters: list[str] = Field(description="one model a backbone: the newest, where one was searched twice")


class Compared(Hit):
    """The hit that the address compares with the query."""

    model: str
    view: Literal["side", "blink", "blend"]


class Frame(Shown):
    """One frame: the query, and what each backbone ranked for it."""

    flight: FlightFacts
    frame: FrameFacts
    position: int = Field(ge=1)
    first: int
    last: int
    previous: int | None
    next: int | None
    map: GroundMap | None
    rows: list[FrameUnderModel]
    agreement: AgreeingModels
    chosen: Compared | None


class Export(Shown):
    """The formats of a flight's searches, each with its address, and the first frame's record."""

    flight: NamedFlight
    models: list[Model]
    records: int = Field(ge=0)
    files: dict[str, str]
    schemas: dict[str, str]
    preview: dict[str, Any] | None = Field(description="a CoarseLocalizationInfo")


# --- look-ups -------------------------------------------------------------------------------------


class Sent(Answer):
    """An image that was taken in: its id, and the page that looks for it. `/search.json` answers the same query."""

    image: str = Field(pattern="^[0-9a-f]{32}$")
    url: str = Url


class SentImage(Answer):
    name: str
    image: str = Url
    image_full: str = Url
    image_id: str


class SentFrame(Answer):
    name: str
    image: str = Url
    image_full: str = Url
    flight: str
    frame: int


class LookupModel(Answer):
    key: str
    backbone: str
    params_m: float | None
    dim: int
    input_px: int
    precision: str
    missing: str | None = Field(description="why it cannot embed here and what to do; null where it can")


class FacetValue(Answer):
    value: str | float
    count: int = Field(ge=0, description="references it would leave, all other facets as they are")
    on: bool


class Facets(Answer):
    set: list[FacetValue]
    angle: list[FacetValue]
    altitude: list[FacetValue]
    overlap: list[FacetValue]
    matching: list[FacetValue]


class LookupTiming(Answer):
    """Milliseconds; `total_ms` is embed + search."""

    load_ms: float = Field(ge=0, description="loading the model, where it was not")
    embed_ms: float = Field(ge=0)
    embedded_before: bool
    search_ms: float = Field(ge=0)
    total_ms: float = Field(ge=0)


class FoundHit(Hit):
    reference_set: str


class Found(Answer):
    by: Literal["faiss", "qdrant"]
    backend: str
    filtered: bool
    stood_in: bool = Field(description="FAISS answered what Qdrant could not")
    references: int | None = Field(description="how many were looked at, where that is known")
    timing: LookupTiming
    hits: list[FoundHit] = Field(description="best first, ten at most")
    estimate: FrameEstimate | None


class Lookup(Answer):
    """The facets with their counts and, once an image is named, its ten best references."""

    query: SentImage | SentFrame | None
    models: list[LookupModel]
    model: str | None
    facets: Facets
    where: WhereJson
    by: str
    map: GroundMap | None
    trouble: str | None = Field(description="why the vector store cannot be had")
    max_upload: int = Field(description="bytes")
    answer: Found | None
    problem: str | None = Field(description="why there is no answer")


# --- studies and references -----------------------------------------------------------------------


class ComparedModel(JudgedModel):
    unbeaten: bool = Field(description="no other whose times compare with its own is both faster and nearer")


class Comparison(Shown):
    """The backbones of one flight beside each other."""

    flight: NamedFlight | None
    flights: list[str]
    models: list[ComparedModel]
    timed_alike: bool = Field(description="batch, device, processor and threads are the same: all times compare")
    measured: list[str] = Field(description="what times were taken on, and how")
    typical_frame: int | None
    figures: str | None = Url


class Study(Answer):
    id: int
    source: str
    step: float | None
    frames: int | None
    references: int | None
    backbones: list[str]
    device: str | None
    finished_at: str | None


class Rotation(Answer):
    """How alike a place stays to itself when the view turns."""

    studies: list[Study]
    study: Study | None
    turn: int = Field(ge=0, lt=360)
    curves: dict[str, dict[str, list[tuple[float, float | None, float | None, float | None]]]] = Field(
        description="by curve and backbone: turn in degrees, value, and the interval's ends"
    )
    tile: str | None = Url
    figures: str | None = Url


class EmbeddedRow(Answer):
    backbone: str
    input_px: int
    precision: str
    dim: int
    counts: list[int] = Field(description="by angle")


class FailureRow(Answer):
    item: str
    stage: str
    kind: str
    message: str


class ReferenceSet(Answer):
    name: str
    kind: str
    source: str
    altitude_m: float | None
    overlap: float = Field(ge=0, lt=1)
    footprint_m: float | None
    created_at: str
    tiles: int
    rotated_tiles: int
    angles: list[int]
    views: list[int] = Field(description="by angle")
    embedded: list[EmbeddedRow]
    failures: int
    failure_kinds: dict[str, int]
    failures_shown: list[FailureRow]
    map: GroundMap | None


class Pending(Answer):
    backbone: str
    input_px: int
    count: int = Field(ge=1)


class References(Answer):
    """The reference sets: what there is, what is embedded, what the vector store has still to take."""

    sets: list[ReferenceSet]
    pending: list[Pending]
    trouble: str | None


class GroundTile(RootModel[tuple[float, float, str]]):
    """Longitude and latitude of a place's centre, and its picture's address."""


class GroundTiles(Answer):
    """Every place of a set once."""

    angle_deg: int = Heading
    tiles: list[GroundTile]


# --- maps of other programs (RFC 7946) ------------------------------------------------------------


class Point(Answer):
    type: Literal["Point"]
    coordinates: tuple[float, float]


class TruthProperties(Answer):
    kind: Literal["truth"]
    flight_id: str
    frame_index: int
    filename: str
    heading_deg: float | None


class EstimateProperties(Answer):
    kind: Literal["estimate"]
    flight_id: str
    frame_index: int
    filename: str
    encoder: str
    reference_set: str
    angle_deg: int | None
    place_id: str
    heading_deg: float = Heading
    score: float
    margin: float | None
    agreement: int
    error_m: float | None
    heading_error_deg: float | None


class Feature(Answer):
    type: Literal["Feature"]
    geometry: Point
    properties: TruthProperties | EstimateProperties


class Features(Answer):
    type: Literal["FeatureCollection"]
    features: list[Feature]


# --- health ---------------------------------------------------------------------------------------


class Alive(Answer):
    status: Literal["ok"]


class DatabaseCheck(Answer):
    status: Literal["ok", "down"]
    revision: str | None = None
    detail: str | None = None


class VectorsCheck(Answer):
    status: Literal["ok", "degraded"]
    pending: int = Field(ge=0)
    detail: str | None = None


class MirrorsCheck(Answer):
    status: Literal["ok"]
    built: int = Field(ge=0)


class ModelsCheck(Answer):
    status: Literal["ok", "degraded"]
    loaded: list[str]
    able: list[str]
    without_weights: list[str]


class Checks(Answer):
    database: DatabaseCheck
    vectors: VectorsCheck | None = None
    mirrors: MirrorsCheck | None = None
    models: ModelsCheck | None = None


class Readiness(Answer):
    """What the server stands on; degraded is not dead."""

    status: Literal["ready", "degraded", "down"]
    checks: Checks
