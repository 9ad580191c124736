"""The label JSON of captures and flights."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from coarseloc.core.errors import ImageryError
from coarseloc.imagery.label import Label, NotLabelsError, image_reference, located, number, pose_of, read_text, time_of


def _mapping(value: Any) -> Any:
    return value if isinstance(value, dict | BaseModel) else {}


Time = Annotated[datetime | None, BeforeValidator(time_of)]
Number = Annotated[float | None, BeforeValidator(number)]


class _Position(BaseModel):
    model_config = ConfigDict(extra="allow")  # kept, to say what was found in place of a position
    latitude: Number = None
    longitude: Number = None
    altitude: Number = None


class _Attitude(BaseModel):
    yaw: Number = None
    pitch: Number = None
    roll: Number = None


class _Image(BaseModel):
    imageref: str
    timestamp: Time = Field(None, validation_alias=AliasChoices("timestamp", "time", "datetime"))
    position: Annotated[_Position, BeforeValidator(_mapping)] = _Position()
    attitude: Annotated[_Attitude, BeforeValidator(_mapping)] = _Attitude()


def _image(value: Any) -> Any:
    return value if isinstance(value, dict) and isinstance(value.get("imageref"), str) else None


class _File(BaseModel):
    images: list[Annotated[_Image | None, BeforeValidator(_image)]]


def read_json(path: Path) -> list[Label]:
    """A Label per entry that names an image; NotLabelsError where the JSON is of another form, ImageryError where
    it cannot be read. Numbers may be null, missing or text; what is none of these counts as missing."""
    data = read_text(path)
    try:
        images = _File.model_validate_json(data).images
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise ImageryError("unreadable-label", f"{path} is not valid JSON: {first['msg']}") from None
        raise NotLabelsError(
            "unreadable-label",
            f'{path} is not a label file: expected {{"images": [{{"imageref": …, "position": …, "attitude": …}}]}}',
        ) from None
    return [_label(image) for image in images if image is not None]


def _label(image: _Image) -> Label:
    place, turn = image.position, image.attitude
    pose = pose_of(place.altitude, turn.yaw, turn.pitch, turn.roll)
    name = image_reference(image.imageref)
    usable: list[str] = []
    if place.latitude is None or place.longitude is None:
        usable = [key for key, value in place.model_dump().items() if value is not None]
    return replace(located(name, pose, place.latitude, place.longitude, usable), time=image.timestamp)
