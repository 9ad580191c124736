"""Define the models that views return. The JSON, `/api/openapi.json` and the templates come from them.

Here are the parts of several answers; a feature's own models are in its module below `web.pages`. What `coarseloc
export` writes is described by `search.export.records`. No key is renamed or taken away; what is added, older readers
pass over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, cast

from flask import Response, jsonify
from pydantic import BaseModel, ConfigDict, Field

from coarseloc.core.types import Estimate, LonLat, RankedTile
from search.answers import FrameAnswer, tile_verdict
from search.export.infos import hit_result, to_hit
from search.export.records import AgreementInfo, BBoxArray, Heading, Location, Result

Url = Field(description="a path on this server")
Tags = Field(description="that people gave the frame")
Note = Field(description="that people wrote on the frame; empty without one")
Verdict = Literal["on", "near", "far"]


class AnswerModel(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


def json_response(answer: BaseModel) -> Response:
    """Encode a model as an application/json response."""
    return jsonify(answer.model_dump(mode="json"))


def file_below(path: str) -> str:
    """A file's name below its folder's: where on this server the folder lies is nobody's business."""
    return "/".join(Path(path).parts[-2:])


def location_of(place: LonLat) -> Location:
    return Location(lon=place.lon, lat=place.lat)


class GroundLayer(AnswerModel):
    """A ground below a map: XYZ tiles of 256 pixels (EPSG:3857)."""

    name: str
    extent: BBoxArray | None = Field(description="null where it is not known")
    url: str = Field(description="a path on this server with {z}, {x} and {y}")
    min_zoom: int
    max_zoom: int
    grid: str | None = Field(default=None, description="a path: the projected CRS of the set")


class MapBounds(AnswerModel):
    """The bounds of a map, and metres per degree at its centre."""

    extent: BBoxArray
    origin: Location
    metres_per_degree: dict[Literal["lon", "lat"], float]
    layers: list[GroundLayer] = Field(default=[], description="from the lowest up")


class GroundMap(MapBounds):
    """The bounds of a reference set, and where its ground and its tiles are."""

    reference_set: str
    footprint_m: float | None
    ground: str = Url
    tiles: str = Url
    localizability: list[str] = Field(
        default=[], description="paths on this server: what was measured of the places of each set"
    )


# --- ranked tiles ---------------------------------------------------------------------------------


class HitView(Result):
    """One ranked reference, a tile at one heading, with what a page shows beside it."""

    drop: float = Field(ge=0, description="below rank 1")
    image: str = Url
    image_full: str = Url
    distance_m: float | None = Field(description="from the truth; null where it is not known")
    verdict: Verdict | None = Field(description="the truth lies on the tile, near it, or far; null where not known")
    kept: float = Field(ge=0, le=1, description="1 at rank 1, 0 at the largest drop shown")


def hit_views(
    rows: Sequence[Sequence[RankedTile]], truth: LonLat | None, picture_url: Callable[..., str], thumbnails: Path
) -> list[list[HitView]]:
    """Convert each row's hits to what pages show. `kept` has one scale for all rows, so that flat rows look flat.

    picture_url: of a hit's picture, by key, content and size.
    """
    largest = max((row[0].score - hit.score for row in rows for hit in row), default=0.0)

    def view(hit: RankedTile, drop: float) -> HitView:
        distance_m, verdict = tile_verdict(truth, hit.tile) if truth else (None, None)
        return HitView(
            **{**(result := hit_result(to_hit(hit, thumbnails)).model_dump()), "path": file_below(result["path"])},
            drop=drop,
            image=picture_url(hit.key, hit.content_digest),
            image_full=picture_url(hit.key, hit.content_digest, "full"),
            distance_m=distance_m,
            verdict=cast(Verdict, verdict),
            kept=1.0 - drop / largest if largest > 0 else 1.0,
        )

    return [[view(hit, row[0].score - hit.score) for hit in row] for row in rows]


# --- estimates ------------------------------------------------------------------------------------


class MarginView(AnswerModel):
    """How far the best place's score is above the next one's."""

    score: float
    at_least: bool = Field(description="all hits are of one place: the next one is farther below")


class EstimateView(AnswerModel):
    """Position and heading with the margin, and the errors where truth is known."""

    location: Location
    heading_deg: float | None = Heading
    place_id: str | None
    state: str
    score: float
    margin: MarginView | None = Field(description="null where there is only one hit")
    agreement: AgreementInfo | None = Field(description="null where an image was looked up: nobody else has answered")
    error_m: float | None
    heading_error_deg: float | None = Field(description="null unless the truth lies in the best footprint")
    verdict: Verdict | None
    on_map: bool | None = Field(description="some reference shows the truth")


def estimate_view(estimate: Estimate, answer: FrameAnswer | None = None) -> EstimateView:
    """answer: the frame's, with agreement and errors; None where an image was looked up."""
    errors = answer.errors if answer else None
    agreement = answer.agreement if answer else None
    margin = estimate.margin
    return EstimateView(
        location=location_of(estimate.location),
        heading_deg=estimate.heading_deg,
        place_id=estimate.place_id,
        state=estimate.state,
        score=estimate.score,
        margin=None if margin is None else MarginView(score=margin, at_least=estimate.margin_at_least),
        agreement=AgreementInfo(backbones=agreement.backbones, of=agreement.of, within_m=agreement.within_m)
        if agreement
        else None,
        error_m=errors.error_m if errors else None,
        heading_error_deg=errors.heading_error_deg if errors else None,
        verdict=cast(Verdict, errors.verdict) if errors else None,
        on_map=errors.on_map if errors else None,
    )
