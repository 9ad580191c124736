"""What a drone wrote into an image's XMP packet: how its gimbal looked, how high it was, when that was."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple
from xml.parsers import expat

from coarseloc.core.types import AltitudeDatum, Pose
from coarseloc.imagery.gimbal import picture_attitude
from coarseloc.imagery.written_values import parse_number, parse_time

MAX_PACKET_BYTES = 1_000_000  # a packet in a JPEG's segment has at most 65,502
_DRONE = "http://www.dji.com/drone-dji/1.0/"  # DJI's, and Autel's, under the prefix `drone`
_TIMES = (
    "http://ns.adobe.com/exif/1.0/ DateTimeOriginal",
    "http://ns.adobe.com/xap/1.0/ CreateDate",
    "http://ns.adobe.com/photoshop/1.0/ DateCreated",
)


class XmpFacts(NamedTuple):
    """What a packet says. `pose` has no location; its attitude is that of the picture, as of a camera that looks
    straight down at pitch and roll 0."""

    pose: Pose = Pose()
    time: datetime | None = None  # with a zone where the packet gives one
    utc: datetime | None = None  # when the shutter was open, by GPS
    is_oblique: bool = False  # the gimbal looks more than `MAX_TILT_DEG` from straight down: its attitude is left out


def read_xmp(packet: bytes) -> XmpFacts:
    """Read an XMP packet. One that is damaged, too large or declares entities says nothing."""
    try:
        properties = _properties(packet)
    except (expat.ExpatError, _DoctypeError):
        return XmpFacts()
    altitude_m, datum = _altitude(properties)
    yaw, pitch, roll = (
        parse_number(properties.get(f"{_DRONE} Gimbal{axis}Degree")) for axis in ("Yaw", "Pitch", "Roll")
    )
    pose = Pose(altitude_label_m=altitude_m, altitude_datum=datum)
    is_oblique = False
    if yaw is not None and pitch is not None and abs(pitch) <= 180:
        attitude = picture_attitude(yaw, pitch, roll or 0.0)
        is_oblique = attitude is None
        pose = replace(attitude or pose, altitude_label_m=altitude_m, altitude_datum=datum)
    times = (parse_time(properties[name]) for name in _TIMES if name in properties)
    exposure = parse_time(properties.get(f"{_DRONE} UTCAtExposure"))
    utc = exposure and (exposure.replace(tzinfo=UTC) if exposure.tzinfo is None else exposure.astimezone(UTC))
    return XmpFacts(pose, next((time for time in times if time is not None), utc), utc, is_oblique)


def _altitude(properties: Mapping[str, str]) -> tuple[float | None, AltitudeDatum]:
    """That above take-off, which is nearer to what is seen, before the absolute one: above the ellipsoid with RTK, else
    above the sea."""
    relative = parse_number(properties.get(f"{_DRONE} RelativeAltitude"))
    if relative is not None:
        return relative, "takeoff"
    absolute = parse_number(properties.get(f"{_DRONE} AbsoluteAltitude"))
    if absolute is None:
        return None, "unknown"
    return absolute, "ellipsoid" if properties.get(f"{_DRONE} AltitudeType") == "RtkAlt" else "sea"


class _DoctypeError(Exception):
    """The packet has a document type, which could define entities that grow without end; XMP has none."""


def _refuse_doctype(*_: object) -> None:
    raise _DoctypeError


def _properties(packet: bytes) -> dict[str, str]:
    """{namespace and name: text} of simple properties, written as attributes or as elements; the first of each."""
    properties: dict[str, str] = {}
    if len(packet) > MAX_PACKET_BYTES:
        return properties
    texts: list[str] = []

    def start(name: str, attributes: Mapping[str, str]) -> None:
        texts.clear()
        for attribute, text in attributes.items():
            properties.setdefault(attribute, text.strip())

    def end(name: str) -> None:
        if text := "".join(texts).strip():
            properties.setdefault(name, text)
        texts.clear()

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartDoctypeDeclHandler = _refuse_doctype
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = texts.append
    parser.Parse(re.sub(rb"[\x00 ]+$", b"", packet), True)
    return properties
