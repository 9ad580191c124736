"""A flight as KML 2.2, for Google Earth: a folder for the truth, one for each backbone, one for its fixes. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from xml.sax.saxutils import escape

from coarseloc.core.types import Frame
from search.export import geometries
from search.export.features import Feature, FlightFeatures, MatchedFrame
from search.export.records import FrameFailure

PictureHref = Callable[[Frame], str]

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_GREEN, _BLUE = "50c878", "ff9040"  # blue, green, red
_STYLES = "".join(
    f'<Style id="{point}"><IconStyle><color>ff{color}</color></IconStyle><LineStyle><color>ff{color}</color>'
    f"<width>2</width></LineStyle><PolyStyle><color>50{color}</color></PolyStyle></Style>\n"
    for point, color in (("ground", _GREEN), ("aircraft", _BLUE))
)


def file_href(frame: Frame) -> str:
    """The frame's own file, by its absolute path: a KML file may lie anywhere beside it."""
    return frame.path.absolute().as_uri()


def flight_kml(features: FlightFeatures, picture_href: PictureHref = file_href) -> str:
    """Every layer in a folder of its own; the frames themselves, as overlays in place, are not shown until ticked.

    picture_href: where Google Earth gets a frame's picture.
    """
    estimates: dict[str, list[Feature]] = {}
    for feature in features.estimates:
        estimates.setdefault(feature["properties"]["encoder"], []).append(feature)
    matched: dict[str, list[MatchedFrame]] = {}
    for frame in features.matched:
        matched.setdefault(frame.question["encoder"], []).append(frame)
    folders = [
        *([_folder("truth", map(_placemark, features.truths.values()))] if features.truths else []),
        *(_folder(encoder, map(_placemark, marks)) for encoder, marks in estimates.items()),
        *(_fixes(f"fixes: {encoder}", features, frames, picture_href) for encoder, frames in matched.items()),
        *([_folder("failures", map(_failure, features.failures))] if features.failures else []),
    ]
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<kml xmlns="http://www.opengis.net/kml/2.2" '
        'xmlns:gx="http://www.google.com/kml/ext/2.2"><Document>'
        f"<name>{_text(features.flight.flight_id)}</name>\n{_STYLES}{''.join(folders)}</Document></kml>\n"
    )


def _fixes(name: str, features: FlightFeatures, frames: list[MatchedFrame], picture_href: PictureHref) -> str:
    def marks(draw: Callable[[MatchedFrame], Iterator[Feature]]) -> Iterator[str]:
        return (_placemark(feature) for frame in frames for feature in draw(frame))

    overlays = (_overlay(frame, outline, picture_href) for frame in frames for outline in features.footprints(frame))
    return _folder(
        name,
        [
            _folder("points", marks(features.fix_points)),
            _folder("ellipses", marks(features.ellipses)),
            _folder("error lines", marks(features.error_lines)),
            _folder("frames", overlays, visible=False),
        ],
    )


def _folder(name: str, members: Iterable[str], visible: bool = True) -> str:
    visibility = "" if visible else "<visibility>0</visibility>"
    return f"<Folder><name>{_text(name)}</name>{visibility}\n{''.join(members)}</Folder>\n"


def _placemark(feature: Feature) -> str:
    properties = feature["properties"]
    style = f"<styleUrl>#{point}</styleUrl>" if (point := properties.get("point")) else ""
    return (
        f"<Placemark><name>{properties['frame_index']}</name>{style}{_data(properties)}"
        f"{_geometry(feature['geometry'])}</Placemark>\n"
    )


def _failure(failure: FrameFailure) -> str:
    """A placemark without a place."""
    return f"<Placemark><name>{failure.frame_index}</name>{_data(failure.model_dump())}</Placemark>\n"


def _overlay(matched: MatchedFrame, outline: Feature, picture_href: PictureHref) -> str:
    """The frame's picture in place. A gx:LatLonQuad has the picture's corners counter-clockwise from its lower left;
    across the antimeridian longitudes go on beyond 180."""
    upper_left, upper_right, lower_right, lower_left = geometries.unwrapped(matched.pose.corners)
    quad = " ".join(_coordinates(geometries.position(c)) for c in (lower_left, lower_right, upper_right, upper_left))
    return (
        f"<GroundOverlay><name>{matched.frame.index}</name><visibility>0</visibility>{_data(outline['properties'])}"
        f"<Icon><href>{_text(picture_href(matched.frame))}</href></Icon>"
        f"<gx:LatLonQuad><coordinates>{quad}</coordinates></gx:LatLonQuad></GroundOverlay>\n"
    )


def _data(properties: dict[str, Any]) -> str:
    values = "".join(
        f'<Data name="{name}"><value>{_text(value)}</value></Data>'
        for name, value in properties.items()
        if value is not None
    )
    return f"<ExtendedData>{values}</ExtendedData>"


def _geometry(geometry: dict[str, Any]) -> str:
    kind, coordinates = geometry["type"], geometry["coordinates"]
    if kind.startswith("Multi"):
        parts = [_geometry({"type": kind.removeprefix("Multi"), "coordinates": part}) for part in coordinates]
        return f"<MultiGeometry>{''.join(parts)}</MultiGeometry>"
    if kind == "Point":
        return f"<Point><coordinates>{_coordinates(coordinates)}</coordinates></Point>"
    path = coordinates[0] if kind == "Polygon" else coordinates
    text = f"<coordinates>{' '.join(map(_coordinates, path))}</coordinates>"
    if kind == "Polygon":
        text = f"<outerBoundaryIs><LinearRing>{text}</LinearRing></outerBoundaryIs>"
    return f"<{kind}><tessellate>1</tessellate>{text}</{kind}>"


def _coordinates(position: list[float]) -> str:
    return ",".join(map(str, position))


def _text(value: object) -> str:
    """Escape a value; characters that XML cannot hold, as a file's name can, become the replacement character."""
    return escape(_NOT_XML.sub("\ufffd", str(value)))
