"""Flights: frames in order, start times, and where truth comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from coarseloc.errors import ImageryError, InputError
from coarseloc.imagery.flights import open_flight
from coarseloc.types import LonLat, Pose

PLACE = LonLat(127.02765, 37.49792)
FLIGHT = "251124155712"


def frames(folder: Path, names: Sequence[str], gps: dict[int, Any] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        exif = Image.Exif()
        exif.get_ifd(0x8825).update(gps or {})
        Image.new("RGB", (8, 8)).save(folder / name, exif=exif)
    return folder


def test_frames_are_numbered_by_their_names_and_the_id_tells_the_start(tmp_path: Path) -> None:
    folder = frames(tmp_path / FLIGHT, [f"{FLIGHT}_{i:05d}.jpg" for i in (57, 3, 100)])
    flight = open_flight(folder)
    assert flight.flight_id == FLIGHT
    assert flight.started_at == datetime(2025, 11, 24, 15, 57, 12)
    assert [frame.index for frame in flight.frames] == [3, 57, 100]
    assert flight.frames[1].filename == f"{FLIGHT}_00057.jpg"
    assert flight.truth_source == "none" and flight.frames[0].truth == Pose()


@pytest.mark.parametrize("flight_id", ["holiday", "259924155712", "2511241557"])
def test_an_id_that_is_no_time_tells_no_start(tmp_path: Path, flight_id: str) -> None:
    assert open_flight(frames(tmp_path / flight_id, ["a.jpg"])).started_at is None


@pytest.mark.parametrize(
    ("names", "indexes"),
    [
        (["DJI_0019.jpg", "DJI_0018.jpg", "DJI_0100.JPG"], [18, 19, 100]),
        (["c.jpg", "a.jpg", "b.jpg"], [1, 2, 3]),
        (["a_1.jpg", "b_1.jpg"], [1, 2]),  # numbers that do not tell frames apart
        (["f10.png", "f9.png", "f.png"], [1, 2, 3]),  # one without: natural order
    ],
)
def test_other_names_are_numbered_by_trailing_digits_else_in_order(
    tmp_path: Path, names: list[str], indexes: list[int]
) -> None:
    assert [frame.index for frame in open_flight(frames(tmp_path / "f", names)).frames] == indexes


def test_natural_order_puts_nine_before_ten(tmp_path: Path) -> None:
    flight = open_flight(frames(tmp_path / "f", ["x10y.jpg", "x9y.jpg", "x²y.jpg"]))
    assert [frame.filename for frame in flight.frames][:2] == ["x9y.jpg", "x10y.jpg"]


def test_a_folder_called_images_is_named_after_its_parent(tmp_path: Path) -> None:
    assert open_flight(frames(tmp_path / "caliterra" / "images", ["a.jpg"])).flight_id == "caliterra"


@pytest.mark.parametrize("where", ["inside", "beside"])
def test_labels_are_found_inside_the_flight_and_beside_it(
    tmp_path: Path, label: Callable[..., Any], write_labels: Callable[..., Path], where: str
) -> None:
    folder = frames(tmp_path / "root" / FLIGHT, [f"{FLIGHT}_00001.jpg", f"{FLIGHT}_00002.jpg"])
    path = (folder if where == "inside" else folder.parent) / "labels.json"
    write_labels(path, [label(f"{FLIGHT}_00001.jpg", PLACE, yaw=-10), label("other_00001.jpg", PLACE)])
    flight = open_flight(folder)
    assert flight.truth_source == "labels"
    assert [frame.truth.location for frame in flight.frames] == [PLACE, None]
    assert flight.frames[0].truth.yaw_deg == 350


def test_labels_inside_come_before_those_beside(
    tmp_path: Path, label: Callable[..., Any], write_labels: Callable[..., Path]
) -> None:
    folder = frames(tmp_path / "root" / "f", ["a.jpg"])
    write_labels(folder.parent / "a.json", [label("a.jpg", LonLat(1, 1))])
    write_labels(folder / "z.json", [label("a.jpg", PLACE)])
    assert open_flight(folder).frames[0].truth.location == PLACE


def test_a_csv_comes_next_and_exif_last(tmp_path: Path) -> None:
    gps = {1: "N", 2: (10.0, 0.0, 0.0), 3: "E", 4: (20.0, 0.0, 0.0), 6: 55.0}
    folder = frames(tmp_path / "root" / "f", ["a.jpg", "b.jpg"], gps)
    assert open_flight(folder).truth_source == "exif"
    assert open_flight(folder).frames[0].truth == Pose(LonLat(20.0, 10.0), 55.0)
    (folder.parent / "truth.csv").write_text("filename,lat_deg,lon_deg\na.jpg,37.49792,127.02765\n")
    flight = open_flight(folder)
    assert flight.truth_source == "csv"
    assert [frame.truth.location for frame in flight.frames] == [PLACE, None]


def test_attitude_of_labels_without_positions_is_kept(tmp_path: Path, write_labels: Callable[..., Path]) -> None:
    folder = frames(tmp_path / "f", ["a.jpg"])
    write_labels(folder / "l.json", [{"imageref": "a.jpg", "attitude": {"yaw": 30}}])
    assert open_flight(folder).truth_source == "none"
    assert open_flight(folder).frames[0].truth == Pose(yaw_deg=30.0)
    (folder / "t.csv").write_text("filename,lat,lon\na.jpg,37.49792,127.02765\n")
    assert open_flight(folder).frames[0].truth == Pose(PLACE, yaw_deg=30.0)


def test_labels_can_be_named(tmp_path: Path, label: Callable[..., Any], write_labels: Callable[..., Path]) -> None:
    folder = frames(tmp_path / "f", ["a.jpg"])
    flight = open_flight(folder, labels=write_labels(tmp_path / "l.json", [label("a.jpg", PLACE)]))
    assert flight.truth_source == "labels" and flight.frames[0].truth.location == PLACE
    (tmp_path / "t.csv").write_text("filename,lat,lon\na.jpg,1,2\n")
    assert open_flight(folder, labels=tmp_path / "t.csv").truth_source == "csv"


def test_labels_of_another_flight_are_refused_when_named(
    tmp_path: Path, label: Callable[..., Any], write_labels: Callable[..., Path]
) -> None:
    path = write_labels(tmp_path / "l.json", [label("other.jpg", PLACE)])
    with pytest.raises(InputError, match=r"none of them in this flight \(its first is a\.jpg\)"):
        open_flight(frames(tmp_path / "f", ["a.jpg"]), labels=path)


def test_truth_in_metres_is_refused(tmp_path: Path, write_labels: Callable[..., Path]) -> None:
    folder = frames(tmp_path / "f", ["a.jpg"])
    position = {"latitude": 4_150_000, "longitude": 325_000}
    write_labels(folder / "l.json", [{"imageref": "a.jpg", "position": position}])
    with pytest.raises(ImageryError, match="metres") as error:
        open_flight(folder)
    assert error.value.kind == "wrong-crs"


def test_a_broken_label_file_is_refused_inside_and_passed_over_beside(tmp_path: Path) -> None:
    folder = frames(tmp_path / "root" / "f", ["a.jpg"])
    (folder.parent / "l.json").write_text("{")
    assert open_flight(folder).truth_source == "none"
    (folder / "l.json").write_text("{")
    with pytest.raises(ImageryError, match="not valid JSON"):
        open_flight(folder)


def test_what_is_no_folder_of_frames_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.jpg").write_bytes(b"")
    frames(tmp_path / "nested" / "inner", ["a.jpg"])
    for name, message in {
        "none": "does not exist", "empty": "holds no images", "file.jpg": "is a file", "nested": "inner",
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=message):
            open_flight(tmp_path / name)


def test_real_flights_are_read(shared_data: Path) -> None:
    flight = open_flight(shared_data / "brighton_beach" / "images")
    assert (flight.flight_id, len(flight.frames), flight.truth_source) == ("brighton_beach", 18, "csv")
    assert flight.frames[0].index == 18 and flight.frames[0].truth.location == LonLat(-91.99455989, 46.84260708)
