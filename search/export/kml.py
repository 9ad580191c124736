"""A flight as KML 2.2, for Google Earth: a folder for the truth, one for each backbone, one for its fixes; and a track
as another file, with times. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from xml.sax.saxutils import escape

from coarseloc.core.types import Frame
from search.export import geometries, track_features
from search.export.features import Feature, FlightFeatures, MatchedFrame
from search.export.records import FrameFailure
from search.export.tracks import FlightTrack, TrackFrame

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
    return _document(features.flight.flight_id, folders)


def track_kml(track: FlightTrack) -> str:
    """A track: its unbroken runs, one gx:Track each with times in UTC, and its frames' points and 95 % ellipses.

    Where UTC is not known the runs are lines without times: Google Earth would take local times for UTC.
    """
    times = track.utc_times("KML") if track.has_utc else {}
    draw = _timed if track.has_utc else _untimed
    runs = [run for segment in track.segments() for run in draw(segment, times)]
    data = _data({"method": track.stored.method, "reference_set": track.stored.reference_set})
    shape = (
        f"<gx:MultiTrack>{''.join(runs)}</gx:MultiTrack>"
        if track.has_utc
        else (f"<MultiGeometry>{''.join(runs)}</MultiGeometry>")
    )
    path = f"<Placemark><name>{track.stored.track_mode}</name><styleUrl>#aircraft</styleUrl>{data}{shape}</Placemark>\n"
    placed = (point for point in track_features.points(track) if point["geometry"])
    folders = [
        *([path] if runs else []),
        _folder("points", map(_placemark, placed)),
        _folder("ellipses", map(_placemark, track_features.ellipses(track)), visible=False),
    ]
    return _document(track.flight.flight_id, folders)


def _timed(segment: Sequence[TrackFrame], times: Mapping[int, datetime]) -> Iterator[str]:
    """A gx:Track: all of its times, then as many positions."""
    placed = [(times[tracked.frame.index], tracked.position) for tracked in segment if tracked.position]
    whens = "".join(f"<when>{utc_text(time)}</when>" for time, _ in placed)
    coords = "".join(f"<gx:coord>{' '.join(map(str, geometries.position(place)))} 0</gx:coord>" for _, place in placed)
    yield f"<gx:Track><altitudeMode>clampToGround</altitudeMode>{whens}{coords}</gx:Track>"


def _untimed(segment: Sequence[TrackFrame], times: Mapping[int, datetime]) -> Iterator[str]:
    locations = [tracked.position for tracked in segment if tracked.position]
    if len(locations) > 1:
        yield _geometry(geometries.line(*locations))


def utc_text(time: datetime) -> str:
    """A time in UTC as KML and GPX have it (xsd:dateTime), to a millisecond: `2025-11-24T06:57:12.500Z`."""
    return time.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _document(name: str, folders: Iterable[str]) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<kml xmlns="http://www.opengis.net/kml/2.2" '
        'xmlns:gx="http://www.google.com/kml/ext/2.2"><Document>'
        f"<name>{xml_text(name)}</name>\n{_STYLES}{''.join(folders)}</Document></kml>\n"
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
    return f"<Folder><name>{xml_text(name)}</name>{visibility}\n{''.join(members)}</Folder>\n"


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
        f"<Icon><href>{xml_text(picture_href(matched.frame))}</href></Icon>"
        f"<gx:LatLonQuad><coordinates>{quad}</coordinates></gx:LatLonQuad></GroundOverlay>\n"
    )


def _data(properties: dict[str, Any]) -> str:
    values = "".join(
        f'<Data name="{name}"><value>{xml_text(value)}</value></Data>'
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


def xml_text(value: object) -> str:
    """Escape a value; characters that XML cannot hold, as a file's name can, become the replacement character."""
    return escape(_NOT_XML.sub("\ufffd", str(value)))
