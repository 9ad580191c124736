"""Labels: JSON with holes, CSV under many names, EXIF; one bad entry does not spoil the rest."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyproj import Transformer

from coarseloc.core import geo
from coarseloc.core.errors import ImageryError
from coarseloc.core.types import LonLat, Pose
from coarseloc.imagery import labels
from coarseloc.imagery.image_facts import read_image_facts
from coarseloc.imagery.labels import Labels
from coarseloc.imagery.stated_labels import StatedLabels
from coarseloc.imagery.written_values import parse_time

PLACE = LonLat(127.02765, 37.49792)


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize("bom", [False, True])
def test_a_label_file_gives_poses_by_file_name(
    tmp_path: Path, label: Callable[..., Any], write_labels: Callable[..., Path], bom: bool
) -> None:
    path = write_labels(tmp_path / "l.json", [label("a.jpg", PLACE, yaw=10, pitch=-1.5, roll=2)], bom=bom)
    assert labels.read_labels(path) == {"a.jpg": Pose(PLACE, 300.0, 10.0, -1.5, 2.0)}


def test_any_number_may_be_null_missing_or_text(tmp_path: Path) -> None:
    images = [
        {"imageref": "a.jpg", "position": {"latitude": "37.5", "longitude": " 127 ", "altitude": ""}, "other": 1},
        {"imageref": "b.jpg", "position": None, "attitude": None},
        {"imageref": "c.jpg"},
        {"imageref": "d.jpg", "position": {"latitude": 37.5, "longitude": None}, "attitude": {"yaw": "unknown"}},
        {"imageref": "e.jpg", "position": "here", "attitude": [1, 2, 3]},
        {"imageref": "f.jpg", "position": {"latitude": True, "longitude": [127]}},
        {"position": {"latitude": 1, "longitude": 1}},
        {"imageref": None},
        None,
        7,
    ]
    poses = labels.read_labels(written(tmp_path / "l.json", {"images": images, "made_by": "a tool"}))
    assert poses.pop("a.jpg") == Pose(LonLat(127.0, 37.5))
    assert poses == {name: Pose() for name in ("b.jpg", "c.jpg", "d.jpg", "e.jpg", "f.jpg")}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_none_counts_as_missing(tmp_path: Path, number: str) -> None:
    text = f'{{"images": [{{"imageref": "a.jpg", "position": {{"latitude": {number}, "longitude": 1}}}}]}}'
    assert labels.read_labels(written(tmp_path / "l.json", text)) == {"a.jpg": Pose()}


@pytest.mark.parametrize(("given_yaw", "heading"), [(-90, 270), (370, 10), (0, 0), (359.5, 359.5), (-1e-20, 0)])
def test_a_yaw_becomes_a_heading(
    tmp_path: Path, label: Callable[..., Any], write_labels: Callable[..., Path], given_yaw: float, heading: float
) -> None:
    path = write_labels(tmp_path / "l.json", [label("a.jpg", PLACE, yaw=given_yaw)])
    assert labels.read_labels(path)["a.jpg"].yaw_deg == heading


@pytest.mark.parametrize("name", ["251210_00001.jpg", "data/251210/251210_00001.jpg", "D:\\data\\251210_00001.jpg"])
def test_an_image_is_found_by_its_own_name_whatever_its_folder(
    tmp_path: Path, label: Callable[..., Any], write_labels: Callable[..., Path], name: str
) -> None:
    image_label = labels.open_labels(write_labels(tmp_path / "l.json", [label(name, PLACE)])).find(
        tmp_path / "251210_00001.JPG"
    )
    assert image_label is not None and image_label.pose.location == PLACE


@pytest.mark.parametrize(
    ("lat", "lon", "guess"), [(4_150_021.5, 325_700.2, "metres"), (127.02, 37.49, "swapped"), (37.5, 325_700, "metres")]
)
def test_coordinates_that_are_no_degrees_are_a_wrong_crs(tmp_path: Path, lat: float, lon: float, guess: str) -> None:
    position = {"latitude": lat, "longitude": lon}
    path = written(tmp_path / "l.json", {"images": [{"imageref": "a.jpg", "position": position}]})
    with pytest.raises(ImageryError, match=guess) as error:
        labels.read_labels(path)
    assert error.value.kind == "wrong-crs"


def test_a_label_without_a_position_says_what_it_has_instead(tmp_path: Path) -> None:
    position = {"x": 1.0, "y": 2.0, "z": 3.0, "latitude": None, "longitude": None}
    path = written(tmp_path / "l.json", {"images": [{"imageref": "a.jpg", "position": position}]})
    image_label = labels.open_labels(path).find(tmp_path / "a.jpg")
    assert image_label is not None and image_label.problem is not None
    assert image_label.problem.kind == "missing-label" and "x, y, z" in str(image_label.problem)


@pytest.mark.parametrize("content", ["", "{", "[1, 2", '{"images": [}', "\x00\x01", "[" * 5000])
def test_broken_json_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(ImageryError, match=r"l\.json") as error:
        labels.read_labels(written(tmp_path / "l.json", content))
    assert error.value.kind == "unreadable-label"


@pytest.mark.parametrize("content", [[], {}, 3, {"images": 3}, {"images": None}])
def test_json_of_another_form_is_refused_when_named_and_passed_over_when_found(tmp_path: Path, content: Any) -> None:
    path = written(tmp_path / "l.json", content)
    with pytest.raises(ImageryError, match="not a label file"):
        labels.read_labels(path)
    discovered = labels.discover_json([tmp_path])
    assert discovered.entries == () and not discovered.broken and list(discovered.not_understood) == [path]


def test_a_missing_label_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageryError, match=r"none\.json"):
        labels.open_labels(tmp_path / "none.json")


def test_labels_are_gathered_from_all_files_and_a_contradiction_is_said(
    tmp_path: Path, label: Callable[..., Any], write_labels: Callable[..., Path]
) -> None:
    write_labels(tmp_path / "1.json", [label("a.jpg", PLACE)])
    write_labels(tmp_path / "2.json", [label("a.jpg", LonLat(1, 1)), label("b.jpg", PLACE)])
    written(tmp_path / "3.json", "{")
    flight_labels = labels.discover_json([tmp_path])
    assert flight_labels.find(tmp_path / "b.jpg").pose.location == PLACE
    contradicted = flight_labels.find(tmp_path / "a.jpg")
    assert contradicted.pose.location is None and contradicted.problem.kind == "label-conflict"
    assert "two labels that contradict each other" in str(contradicted.problem)
    assert [path.name for path in flight_labels.files] == ["1.json", "2.json"]
    assert [path.name for path in flight_labels.broken] == ["3.json"]


def test_two_labels_that_agree_are_one(
    tmp_path: Path, label: Callable[..., Any], write_labels: Callable[..., Path]
) -> None:
    write_labels(tmp_path / "1.json", [label("a.jpg", PLACE, yaw=10), label("a.jpg", PLACE, yaw=10.2)])
    image_label = labels.discover_json([tmp_path]).find(tmp_path / "a.jpg")
    assert image_label.problem is None and image_label.pose.yaw_deg == 10


def test_a_label_that_names_folders_is_not_another_folders(
    tmp_path: Path, label: Callable[..., Any], write_labels: Callable[..., Path]
) -> None:
    """Every camera's folder begins at 0001."""
    for folder in ("flightA", "flightB", "flightC"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "DJI_0001.JPG").touch()
    place_b = LonLat(127.1, 37.6)
    write_labels(tmp_path / "l.json", [label("flightA/DJI_0001.JPG", PLACE), label("flightb\\DJI_0001.JPG", place_b)])
    flight_labels = labels.discover_json([tmp_path])
    assert flight_labels.find(tmp_path / "flightA/DJI_0001.JPG").pose.location == PLACE
    assert flight_labels.find(tmp_path / "flightB/DJI_0001.JPG").pose.location == place_b
    assert flight_labels.find(tmp_path / "flightC/DJI_0001.JPG") is None


@pytest.mark.parametrize("name", ["251124155712_00007.png", "251124155712_7.jpg", "251124155712_00007"])
def test_an_images_label_may_have_another_suffix_and_padding(
    tmp_path: Path, label: Callable[..., Any], write_labels: Callable[..., Path], name: str
) -> None:
    flight_labels = labels.open_labels(write_labels(tmp_path / "l.json", [label(name, PLACE)]))
    assert flight_labels.find(tmp_path / "251124155712_00007.jpg").pose.location == PLACE
    assert flight_labels.find(tmp_path / "251124155712_00008.jpg") is None


def folder_of(root: Path, *images: str) -> Path:
    """Empty files, as label look-ups see images."""
    for image in images:
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        (root / image).touch()
    return root


def position(flight_labels: Labels, image: Path) -> LonLat | None:
    label = flight_labels.find(image)
    return label and label.pose.location


@pytest.mark.parametrize("reference", ["flightA/DJI_0001.JPG", "./flightA/DJI_0001.JPG", "/data/flightA/DJI_0001.JPG"])
def test_a_label_of_a_folder_that_has_gone_is_not_its_neighbours(
    tmp_path: Path, label: Callable[..., Any], write_labels: Callable[..., Path], reference: str
) -> None:
    image = folder_of(tmp_path, "flightB/DJI_0001.JPG") / "flightB/DJI_0001.JPG"
    write_labels(tmp_path / "l.json", [label(reference, PLACE)])
    assert labels.discover_json([image.parent, tmp_path]).find(image) is None


def test_labels_with_folders_of_another_machine_are_told_apart_by_the_folders_that_are_left(
    tmp_path: Path, label: Callable[..., Any], write_labels: Callable[..., Path]
) -> None:
    folder_of(tmp_path, "flightA/DJI_0001.JPG", "flightB/DJI_0001.JPG")
    place_b = LonLat(127.1, 37.6)
    names = {"D:\\2025\\flightA\\DJI_0001.JPG": PLACE, "D:\\2025\\flightB\\DJI_0001.JPG": place_b}
    flight_labels = labels.open_labels(
        write_labels(tmp_path / "l.json", [label(reference, place) for reference, place in names.items()])
    )
    assert position(flight_labels, tmp_path / "flightA/DJI_0001.JPG") == PLACE
    assert position(flight_labels, tmp_path / "flightB/DJI_0001.JPG") == place_b
    days = {"/data/day1/100MEDIA/DJI_0001.JPG": PLACE, "/data/day2/100MEDIA/DJI_0001.JPG": place_b}
    flight_labels = labels.open_labels(
        write_labels(tmp_path / "d.json", [label(reference, place) for reference, place in days.items()])
    )
    image = folder_of(tmp_path, "day3/100MEDIA/DJI_0001.JPG") / "day3/100MEDIA/DJI_0001.JPG"
    assert flight_labels.find(image) is None  # both end alike


def test_a_renamed_folders_labels_are_its_own_where_they_lie_in_it_and_that_is_known(
    tmp_path: Path, label: Callable[..., Any], write_labels: Callable[..., Path]
) -> None:
    image = folder_of(tmp_path, "renamed/DJI_0001.JPG") / "renamed/DJI_0001.JPG"
    write_labels(image.parent / "l.json", [label("before/DJI_0001.JPG", PLACE)])
    flight_labels = labels.discover_json([image.parent])
    (renamed_label,) = flight_labels.entries
    assert position(flight_labels, image) == PLACE and flight_labels.names_another_folder(renamed_label, image)
    write_labels(image.parent / "l.json", [label("before/DJI_0001.JPG", PLACE), label("other/DJI_0002.JPG", PLACE)])
    assert labels.discover_json([image.parent]).find(image) is None  # whose, of two?


def test_a_bare_name_beside_several_folders_that_hold_it_is_nobodys(
    tmp_path: Path, label: Callable[..., Any], write_labels: Callable[..., Path]
) -> None:
    image = folder_of(tmp_path, "a/DJI_0001.JPG") / "a/DJI_0001.JPG"
    path = write_labels(tmp_path / "l.json", [label("DJI_0001.JPG", PLACE)])
    assert position(labels.discover_json([image.parent, tmp_path]), image) == PLACE
    folder_of(tmp_path, "b/DJI_0001.JPG")
    assert labels.discover_json([image.parent, tmp_path]).find(image) is None
    assert position(labels.open_labels(path), image) == PLACE  # its user says whose


def test_of_names_that_differ_in_capitals_suffix_or_padding_each_has_its_own_label(
    tmp_path: Path, label: Callable[..., Any], write_labels: Callable[..., Path]
) -> None:
    folder_of(tmp_path, "f_00007.jpg", "f_7.jpg", "f_00007.png", "F_00007.JPG")
    flight_labels = labels.open_labels(write_labels(tmp_path / "l.json", [label("f_00007.jpg", PLACE)]))
    assert position(flight_labels, tmp_path / "f_00007.jpg") == PLACE
    if len(list(tmp_path.glob("*_00007.[jJ]*"))) == 2:  # this file system tells capitals apart
        assert flight_labels.find(tmp_path / "F_00007.JPG") is None
    assert flight_labels.find(tmp_path / "f_7.jpg") is None and flight_labels.find(tmp_path / "f_00007.png") is None


def test_a_reference_that_can_be_no_path_spoils_nothing(
    tmp_path: Path, label: Callable[..., Any], write_labels: Callable[..., Path]
) -> None:
    references = ["x" * 5000 + "/a.jpg", "\x00/a.jpg", "../" * 2000 + "a.jpg", "b/" * 3000 + "a.jpg", "a.jpg"]
    image = folder_of(tmp_path, "a.jpg") / "a.jpg"
    flight_labels = labels.open_labels(
        write_labels(tmp_path / "l.json", [label(reference, PLACE) for reference in references])
    )
    assert position(flight_labels, image) == PLACE


def test_the_labels_that_no_image_uses_are_known(
    tmp_path: Path, label: Callable[..., Any], write_labels: Callable[..., Path]
) -> None:
    image = folder_of(tmp_path, "a.jpg") / "a.jpg"
    path = write_labels(tmp_path / "l.json", [label(name, PLACE) for name in ("a.jpg", "b.jpg", "a.png", "A.JPG")])
    unused = labels.open_labels(path).unused_by([image], [path])
    assert [entry.reference for entry in unused] == ["b.jpg", "a.png", "A.JPG"]


@pytest.mark.parametrize(
    ("value", "time"),
    [
        ("2025-11-24T15:57:12.25", datetime(2025, 11, 24, 15, 57, 12, 250_000)),
        ("2025-11-24T06:57:12Z", datetime(2025, 11, 24, 6, 57, 12, tzinfo=UTC)),
        ("2025:11:24 15:57:12", datetime(2025, 11, 24, 15, 57, 12)),
        ("20251124155712", datetime(2025, 11, 24, 15, 57, 12)),
        (1738133056.5, datetime(2025, 1, 29, 6, 44, 16, 500_000, tzinfo=UTC)),
        ("1738133056500", datetime(2025, 1, 29, 6, 44, 16, 500_000, tzinfo=UTC)),
        (1738133056500000000, datetime(2025, 1, 29, 6, 44, 16, 500_000, tzinfo=UTC)),
        ("2025-11-24 03:57:12 PM", datetime(2025, 11, 24, 15, 57, 12)),
        ("2025-11-24 12:00:01 a.m.", datetime(2025, 11, 24, 0, 0, 1)),
        ("2025. 11. 24. 오후 3:57:12", datetime(2025, 11, 24, 15, 57, 12)),
        ("2025년 11월 24일 15시 57분 12초", datetime(2025, 11, 24, 15, 57, 12)),
        ("2025-11-24 15:57:12 KST", datetime(2025, 11, 24, 6, 57, 12, tzinfo=UTC)),
    ],
)
def test_times_are_read_as_tools_write_them(value: Any, time: datetime) -> None:
    assert parse_time(value) == time


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        "",
        0,
        12.5,
        "12:00:01",
        "2025-11-24",
        "251124155712x",
        float("nan"),
        {},
        "24/11/2025 15:57:12",
        "2025-11-24 13:57:12 PM",
    ],
)
def test_what_is_no_date_with_a_time_is_no_time(value: Any) -> None:
    """Seconds since take-off, a time of day, a day."""
    assert parse_time(value) is None


@given(st.text(max_size=30) | st.floats() | st.integers())
def test_any_value_is_a_time_of_this_age_or_none(value: Any) -> None:
    time = parse_time(value)
    assert time is None or 1980 <= time.year <= 2099


# --- CSV ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "filename,datetime,lat_deg,lon_deg,alt_exif_m,track_deg\na.jpg,2016,37.49792,127.02765,198.3,90\n",
        "\ufeffImage;Latitude;Lng;Altitude\r\nflights/a.jpg;37.49792;127.02765;198.3\r\n",
        "file\tlat\tlongitude\talt\na.jpg\t37.49792\t127.02765\t198.3",
    ],
)
def test_positions_are_read_under_the_names_tools_give_them(tmp_path: Path, text: str) -> None:
    (tmp_path / "truth.csv").write_bytes(text.encode())
    assert labels.read_labels(tmp_path / "truth.csv") == {"a.jpg": Pose(PLACE, 198.3)}


@pytest.mark.parametrize(
    ("name", "text", "encoding", "yaw"),
    [
        ("out.csv", "SourceFile,GPSLatitude,GPSLongitude,GPSAltitude\n./a.jpg,37.49792,127.02765,52.5", "utf-8", None),
        (
            "out.csv",
            "SourceFile,GPSLatitude,GPSLongitude,GPSAltitude\n"
            'a.jpg,"37 deg 29\' 52.512"" N","127 deg 1\' 39.54"" E",52.5 m Above Sea Level\n',
            "utf-8",
            None,
        ),
        ("geo.txt", "EPSG:4326\na.jpg 127.02765 37.49792 52.5 350 0 0\n", "utf-8", 350.0),
        ("pix4d.csv", "a.jpg,37.49792,127.02765,52.5\nb.jpg,37.5,127.1,52.5\n", "utf-8", None),
        ("pix4d.csv", "imagename,latitude [decimal degrees],longitude [decimal degrees],altitude [meter]\n"
         "a.jpg,37.49792,127.02765,52.5\n", "utf-8", None),
        (
            "cameras.csv",
            "# Cameras (1)\n#Label,X/Longitude,Y/Latitude,Z/Altitude,Yaw\na.jpg,127.02765,37.49792,52.5,-10\n",
            "utf-8",
            350.0,
        ),
        ("좌표.csv", "파일명,위도,경도,고도,방위각\na.jpg,37.49792,127.02765,52.5,350\n", "cp949", 350.0),
        ("unicode.csv", "filename\tlat\tlon\talt\tyaw\na.jpg\t37.49792\t127.02765\t52.5\t350\n", "utf-16", 350.0),
        ("excel.csv", "filename;lat;lon;alt\na.jpg;37,49792;127,02765;52,5\n", "utf-8-sig", None),
    ],
)  # fmt: skip
def test_tables_of_other_tools_are_read(tmp_path: Path, name: str, text: str, encoding: str, yaw: float | None) -> None:
    (tmp_path / name).write_bytes(text.encode(encoding))
    (label, *_) = labels.discover_tables([tmp_path]).entries
    assert label.filename == "a.jpg" and label.pose.location == pytest.approx(PLACE, abs=1e-9)
    assert (label.pose.altitude_label_m, label.pose.yaw_deg) == (52.5, yaw)
    assert label.pose.altitude_datum == ("sea" if name == "out.csv" else "unknown")
    assert ("no header" in "; ".join(label.notes)) == text.startswith("a.jpg")


def test_a_gimbals_columns_are_the_pictures_attitude_and_the_aircrafts_are_not_read(tmp_path: Path) -> None:
    columns = "Filename,Latitude,Longitude,Gimball_Roll,Gimball_Yaw,Gimball_Pitch,Flight_Yaw"
    written(tmp_path / "t.csv", f"{columns}\na.jpg,1,2,+0.00,-90.00,-90.00,45\nb.jpg,1,2,0,10,-20,45\n")
    a, b = labels.open_labels(tmp_path / "t.csv").entries
    assert a.gimbal is not None and a.gimbal.yaw_deg == pytest.approx(270) and a.pose.yaw_deg is None
    assert a.gimbal.pitch_deg == pytest.approx(0, abs=1e-9) and b.gimbal is None  # b looks at the horizon


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("geo.txt", "EPSG:32652\na.jpg {x:.3f} {y:.3f} 52.5\n"),
        ("geo.txt", "WGS84 UTM 52N\na.jpg {x:.3f} {y:.3f} 52.5\n"),
        ("ref.csv", "# CoordinateSystem: EPSG:32652\n#Label,X/East,Y/North,Z/Altitude\na.jpg,{x:.3f},{y:.3f},52.5\n"),
    ],
)
def test_eastings_and_northings_are_placed_by_the_crs_in_the_tables_head(tmp_path: Path, name: str, text: str) -> None:
    place = LonLat(127.03, 37.50)
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:32652", always_xy=True).transform(*place)
    written(tmp_path / name, text.format(x=x, y=y))
    (label,) = labels.open_labels(tmp_path / name).entries
    assert label.pose.location is not None and geo.distance_m(*label.pose.location, *place) < 0.01
    assert label.pose.altitude_label_m == 52.5 and "as it says" in "; ".join(label.notes)


@pytest.mark.parametrize(
    ("head", "words"), [("", "do(es)? not say their CRS"), ("# CoordinateSystem: EPSG:99999\n", "cannot be placed")]
)
def test_eastings_without_a_crs_that_serves_are_refused(tmp_path: Path, head: str, words: str) -> None:
    written(tmp_path / "ref.csv", f"{head}label,easting,northing\na.jpg,202650,544510\n")
    with pytest.raises(ImageryError, match=words):
        labels.open_labels(tmp_path / "ref.csv")


@pytest.mark.parametrize(("cell", "number"), [("202,650.5", 202650.5), ("−127.5", -127.5), ("37,5", 37.5)])
def test_numbers_with_thousands_or_a_long_minus_are_read(tmp_path: Path, cell: str, number: float) -> None:
    written(tmp_path / "t.csv", f"file;lat;lon;alt\na.jpg;1;2;{cell}\n")
    assert labels.read_labels(tmp_path / "t.csv")["a.jpg"].altitude_label_m == number


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "filename,northing,easting\na.jpg,{y},{x}\nb.jpg,,\nc.jpg,37.5,127.03\n"),
        ("t.csv", "# CoordinateSystem: EPSG:32652\nlabel,x/east,y/north\na.jpg,{x},{y}\nb.jpg,,\nc.jpg,127.03,37.5\n"),
        ("t.csv", "filename;위도;경도\na.jpg;{y};{x}\nb.jpg;;\nc.jpg;37,5;127,03\n"),  # metres, and degrees beside them
        (
            "t.json",
            '{{"images": [{{"imageref": "a.jpg", "position": {{"x": {x}, "y": {y}}}}}, {{"imageref": "b.jpg"}}, '
            '{{"imageref": "c.jpg", "position": {{"latitude": 37.5, "longitude": 127.03}}}}]}}',
        ),
    ],
)
def test_positions_in_metres_are_placed_by_the_crs_that_the_user_states(tmp_path: Path, name: str, text: str) -> None:
    place = LonLat(127.03, 37.50)
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:5174", always_xy=True).transform(*place)
    written(tmp_path / name, text.format(x=round(x, 3), y=round(y, 3)))
    a, b, c = labels.open_labels(tmp_path / name, StatedLabels(crs="EPSG:5174")).entries
    assert a.pose.location is not None and geo.distance_m(*a.pose.location, *place) < 0.01
    assert b.pose.location is None and c.pose.location == place
    assert "taken in EPSG:5174, as --label-crs says" in "; ".join(a.notes)


def test_degrees_of_another_datum_are_turned_into_wgs84(tmp_path: Path) -> None:
    written(tmp_path / "t.csv", "filename,lat,lon\na.jpg,37.5,127.03\n")
    (a,) = labels.open_labels(tmp_path / "t.csv", StatedLabels(crs="EPSG:4162")).entries  # Korean 1985, Bessel
    assert a.pose.location is not None and 300 < geo.distance_m(*a.pose.location, 127.03, 37.5) < 500


@pytest.mark.parametrize(
    "text",
    [
        "#name latitude/Y longitude/X height/Z yaw\na.jpg 37.5 127.025 52.5 45\n",  # Mission Planner
        "sep=;\nfile;lat;lon\na.jpg;37,5;127,025\n",  # Excel
        "image_path|gps_lat|gps_lon\na.jpg|37.5|127.025\n",
        unicodedata.normalize("NFD", "파일명,위도(도),경도(도)\na.jpg,37도 30분 0초,127도 1분 30초\n"),
        "file,lat,lon\na.jpg,N37 30 0,E127:01:30\n",
        "file,lat,lon\na.jpg,37°30'N,127°1'30\"E\n",
    ],
)
def test_tables_and_degrees_as_further_tools_write_them_are_read(tmp_path: Path, text: str) -> None:
    written(tmp_path / "location.txt", text)
    assert labels.read_labels(tmp_path / "location.txt")["a.jpg"].location == pytest.approx((127.025, 37.5))


def test_yaws_that_are_no_degrees_are_not_used_and_it_is_said(tmp_path: Path) -> None:
    written(tmp_path / "t.csv", "file,lat,lon,yaw\na.jpg,1,2,4500\nb.jpg,1,2,90\n")
    written(tmp_path / "t.json", '{"images": [{"imageref": "a.jpg", "attitude": {"yaw": 27000}}]}')
    for name in ("t.csv", "t.json"):
        for label in labels.open_labels(tmp_path / name).entries:
            assert label.pose.yaw_deg is None and "hundredths" in "; ".join(label.notes)


@pytest.mark.parametrize(
    ("head", "row", "pose"),
    [
        ("alt (ft),yaw [rad]", "1000,1.5707963", (304.8, 90.0)),
        ("altitude_ft,heading_rad", "1000,1.5707963", (304.8, 90.0)),
        ("altitude,yaw (gon)", "1000 ft,100", (304.8, 90.0)),
        ("altitude [meter],yaw [deg]", "304.8 m Above Sea Level,-270°", (304.8, 90.0)),
    ],
)
def test_units_in_a_header_and_in_cells_are_heeded(
    tmp_path: Path, head: str, row: str, pose: tuple[float, float]
) -> None:
    written(tmp_path / "t.csv", f"filename,latitude [rad],longitude [rad],{head}\na.jpg,0.6544985,2.2171,{row}\n")
    (label,) = labels.open_labels(tmp_path / "t.csv").entries
    assert (label.pose.altitude_label_m, label.pose.yaw_deg) == pytest.approx(pose)
    assert label.pose.location == pytest.approx((127.0305, 37.5), abs=1e-3)
    assert "latitude is in rad: converted" in "; ".join(label.notes)


def test_a_time_in_utc_by_its_header_keeps_that(tmp_path: Path) -> None:
    written(tmp_path / "t.csv", "filename,lat,lon,datetime(utc)\na.jpg,37.5,127,2025-11-24 06:57:12\n")
    (label,) = labels.open_labels(tmp_path / "t.csv").entries
    assert label.time == datetime(2025, 11, 24, 6, 57, 12, tzinfo=UTC)


def test_yaws_of_400_to_a_turn_are_doubted(tmp_path: Path) -> None:
    written(tmp_path / "t.csv", "file,lat,lon,yaw\na.jpg,1,2,370\nb.jpg,1,2,90\n")
    assert all("gon" in "; ".join(label.notes) for label in labels.open_labels(tmp_path / "t.csv").entries)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "t.csv",
            "file,lat,lon,yaw,time\na.jpg,37.5,127,N45E,24/11/2025 15:57:12",
            "yaw 1 are not understood (first",
        ),
        ("t.csv", "file,lat,lon,yaw,time\na.jpg,37.5,127,5,24/11/2025 15:57:12", "write times as 2025"),
        ("t.csv", "a.jpg,37.5,127,52.5,1,2,90", "3 more (angles?) are not used"),
        ("t.csv", "file,lat,lon,lat\na.jpg,37.5,127,38", "its columns lat (again) are not used"),
        ("t.csv", "file,lat,lon,gps_lat,yaw,heading\na.jpg,37.5,127,38,1,2", "columns gps_lat, heading are not used"),
        ("t.csv", "file,lat,lon\na.jpg,37.5,127,5", "of its rows 1 (first 1) have more cells than its header"),
        (
            "t.csv",
            "file,lat,lon,gimbal_yaw,gimbal_pitch\na.jpg,37.5,127,5,-30",
            "gimbal of 1 of its rows looks",
        ),
        ("t.json", {"position": [127, 37.5]}, "a list"),
        ("t.json", {"latitude": 37.5, "longitude": 127}, "no positions, and its latitude, longitude are not used"),
        ("t.json", {"attitude": {"qw": 1}}, "no yaws, and its qw are not used"),
        ("t.json", {"orientation": {"w": 1}}, "no yaws, and its orientation are not used"),
        ("t.json", {"timestamp": "24/11/2025 15:57:12"}, "timestamp 1 are not understood"),
    ],
)
def test_what_a_label_holds_and_is_not_understood_is_said(
    tmp_path: Path, name: str, text: str | dict[str, Any], words: str
) -> None:
    content = text if isinstance(text, str) else json.dumps({"images": [{"imageref": "a.jpg", **text}]})
    written(tmp_path / name, content)
    (label,) = labels.open_labels(tmp_path / name).entries
    assert words in f"{label.notes} {label.problem}"


def test_a_label_json_may_hold_text_for_numbers_a_heading_and_another_encoding(tmp_path: Path) -> None:
    image = {"imageref": "항공.jpg", "position": {"lat": "37°30'0\"N", "lon": "127,5"}, "attitude": {"heading": 45}}
    (tmp_path / "t.json").write_bytes(json.dumps({"images": [image]}, ensure_ascii=False).encode("utf-16"))
    (label,) = labels.open_labels(tmp_path / "t.json").entries
    assert (label.filename, label.pose.location, label.pose.yaw_deg) == ("항공.jpg", LonLat(127.5, 37.5), 45)


def test_a_json_whose_images_name_no_file_is_no_label_file(tmp_path: Path) -> None:
    written(tmp_path / "t.json", '{"images": [{"id": 1, "position": {"lat": 1, "lon": 2}}]}')
    with pytest.raises(ImageryError, match="is not a label file"):
        labels.open_labels(tmp_path / "t.json")


def test_degrees_and_minutes_of_nmea_are_told(tmp_path: Path) -> None:
    written(tmp_path / "t.csv", "file,lat,lon\na.jpg,3730.0468,12701.5\n")
    with pytest.raises(ImageryError, match="degrees and minutes"):
        labels.read_labels(tmp_path / "t.csv")


def test_a_column_of_hemispheres_gives_the_signs(tmp_path: Path) -> None:
    written(
        tmp_path / "t.csv",
        "SourceFile,GPSLatitude,GPSLatitudeRef,GPSLongitude,GPSLongitudeRef\na.jpg,37.5,South,57.25,W\n",
    )
    assert labels.read_labels(tmp_path / "t.csv")["a.jpg"].location == LonLat(-57.25, -37.5)


@pytest.mark.parametrize(("encoding", "words"), [("cp949", "CP949"), ("utf-16-le", "UTF-16-LE"), ("utf-8", "")])
def test_a_guessed_encoding_and_columns_without_a_use_are_told(tmp_path: Path, encoding: str, words: str) -> None:
    (tmp_path / "t.csv").write_bytes("파일명,위도,경도,kappa\na.jpg,37.5,127.03,12\n".encode(encoding))
    (label,) = labels.open_labels(tmp_path / "t.csv").entries
    assert label.pose.location == LonLat(127.03, 37.5)
    assert words in "; ".join(label.notes) and "its columns kappa are not used" in "; ".join(label.notes)


def test_latitude_0_longitude_0_is_no_position(tmp_path: Path) -> None:
    written(tmp_path / "t.csv", "filename,lat,lon\na.jpg,0,0\nb.jpg,0,127\n")
    a, b = labels.open_labels(tmp_path / "t.csv").entries
    assert a.pose.location is None and "latitude 0, longitude 0" in str(a.problem)
    assert b.pose.location == LonLat(127, 0)
    stated = StatedLabels(accepted=frozenset({"null"}))
    assert labels.open_labels(tmp_path / "t.csv", stated).entries[0].pose.location == LonLat(0, 0)


def test_a_course_over_ground_is_no_yaw_but_a_heading_is(tmp_path: Path) -> None:
    written(tmp_path / "t.csv", "filename,lat,lon,track_deg\na.jpg,1,2,90\n")
    written(tmp_path / "y.csv", "filename,lat,lon,heading\na.jpg,1,2,-90\n")
    assert labels.read_labels(tmp_path / "t.csv")["a.jpg"].yaw_deg is None
    assert labels.read_labels(tmp_path / "y.csv")["a.jpg"].yaw_deg == 270


def test_rows_with_holes_keep_their_neighbours(tmp_path: Path) -> None:
    written(tmp_path / "t.csv", "filename,lat,lon\na.jpg,,2\n,1,2\nb.jpg\nc.jpg,1,2,3,4\n\nd.jpg,500,2\n")
    labels_by_name = {entry.filename: entry for entry in labels.open_labels(tmp_path / "t.csv").entries}
    assert {name: entry.pose.location for name, entry in labels_by_name.items()} == {
        "a.jpg": None, "b.jpg": None, "c.jpg": LonLat(2, 1), "d.jpg": None,
    }  # fmt: skip
    assert labels_by_name["d.jpg"].problem is not None and labels_by_name["d.jpg"].problem.kind == "wrong-crs"


def test_of_texts_those_that_hold_a_table_are_named_where_it_is_not_understood(tmp_path: Path) -> None:
    written(tmp_path / "poses.txt", "1@37.5@127.0@110\n2@37.5@127.1@110\n")
    written(tmp_path / "readme.txt", "flown on 2025-11-24 at 300 m\nby two of us\n")
    assert [path.name for path in labels.discover_tables([tmp_path]).not_understood] == ["poses.txt"]


def test_a_csv_without_positions_is_passed_over(tmp_path: Path) -> None:
    written(tmp_path / "t.csv", "name,score\na.jpg,1\n")
    unused = labels.discover_tables([tmp_path])
    assert not unused.entries and "name, score" in str(unused.not_understood[tmp_path / "t.csv"])
    with pytest.raises(ImageryError, match="name, score"):
        labels.open_labels(tmp_path / "t.csv")


# --- EXIF ---------------------------------------------------------------------------------------


def with_gps(path: Path, gps: dict[int, Any]) -> Path:
    exif = Image.Exif()
    exif.get_ifd(0x8825).update(gps)
    Image.new("RGB", (8, 8)).save(path, exif=exif)
    return path


def test_exif_gives_position_and_height(tmp_path: Path) -> None:
    gps = {1: "S", 2: (46.0, 50.0, 33.0), 3: "W", 4: (91.0, 59.0, 40.0), 5: b"\x00", 6: 198.5}
    pose = read_image_facts(with_gps(tmp_path / "a.jpg", gps)).exif_pose
    assert pose.location == pytest.approx((-(91 + 59 / 60 + 40 / 3600), -(46 + 50 / 60 + 33 / 3600)), abs=1e-6)
    assert pose.altitude_label_m == pytest.approx(198.5)


@pytest.mark.parametrize(
    "gps",
    [
        {},
        {1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)},  # no fix
        {1: "N", 2: (46.0, 50.0, 33.0)},
        {1: "N", 2: (100.0, 0.0, 0.0), 3: "E", 4: (1.0, 0.0, 0.0)},
        {1: "N", 2: (37.0, 30.0, 0.0), 3: "E", 4: (127.0, 1.0, 48.0), 18: "TOKYO"},
    ],
)
def test_exif_without_a_usable_position_gives_none(tmp_path: Path, gps: dict[int, Any]) -> None:
    assert read_image_facts(with_gps(tmp_path / "a.jpg", gps)).exif_pose == Pose()


def test_exif_may_give_degrees_without_minutes_and_letters_in_any_case(tmp_path: Path) -> None:
    gps = {1: "south", 2: (37.5,), 3: "e", 4: (127.0, 1.8)}
    assert read_image_facts(with_gps(tmp_path / "a.jpg", gps)).exif_pose.location == pytest.approx((127.03, -37.5))


def test_a_file_that_is_no_image_has_no_exif(tmp_path: Path) -> None:
    assert read_image_facts(written(tmp_path / "a.jpg", "text")).exif_pose == Pose()


# --- whatever comes -----------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["images", "imageref", "position", "attitude", "latitude", "longitude", "yaw", "altitude"]), inner, max_size=5),
    max_leaves=12,
)  # fmt: skip


@given(json_values | st.fixed_dictionaries({"images": st.lists(json_values, max_size=4)}))
@settings(max_examples=200)
def test_any_json_gives_poses_or_an_imagery_error(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = written(tmp_path_factory.getbasetemp() / "any.json", value)
    try:
        poses = labels.read_labels(path)
    except ImageryError:
        return
    assert all(isinstance(pose, Pose) for pose in poses.values())


@given(st.text(max_size=200) | st.binary(max_size=200))
@settings(max_examples=200)
def test_any_csv_gives_poses_or_an_imagery_error(tmp_path_factory: pytest.TempPathFactory, body: str | bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(b"filename,lat,lon\n" + (body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body))
    with suppress(ImageryError):
        assert all(isinstance(pose, Pose) for pose in labels.read_labels(path).values())
