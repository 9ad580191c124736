"""Flights: frames in order, start times, and where truth comes from."""

from __future__ import annotations

import functools
import os
import shutil
import unicodedata
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from coarseloc.core import geo
from coarseloc.core.errors import ImageryError, InputError
from coarseloc.core.types import Flight, LonLat, Pose
from coarseloc.imagery.captures import open_captures
from coarseloc.imagery.file_names import natural_order
from coarseloc.imagery.flights import open_flight
from coarseloc.imagery.orthophoto import open_orthophoto

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
        (["a_1.jpg", "b_1.jpg"], [1, 2]),  # a number that is taken
        (["a_1.jpg", "a_3.jpg", "b_1.jpg", "b_2.jpg"], [1, 3, 4, 5]),
        (["f10.png", "f9.png", "f.png"], [11, 9, 10]),  # one without
        (["DJI_0002.JPG", "DJI_0002 (1).JPG", "DJI_0003.JPG"], [2, 4, 3]),
        (["cover_2024.jpg", "DJI_0001.JPG", "DJI_0002.JPG"], [3, 1, 2]),  # a stray number is none of theirs
        (["DJI_20251124155712_0008.JPG", "DJI_20251124155713_0009.JPG"], [8, 9]),
        (["image_raw_1738133056.009658000.jpg", "image_raw_1738133056.545788000.jpg"], [1, 2]),  # fractions
        (["x_1738133056009658000.jpg", "x_1738133056545788000.jpg"], [1, 2]),  # a stamp is no number
    ],
)
def test_other_names_are_numbered_by_trailing_digits_else_in_order(
    tmp_path: Path, names: list[str], indexes: list[int]
) -> None:
    assert [frame.index for frame in open_flight(frames(tmp_path / "f", names)).frames] == indexes


def test_natural_order_puts_nine_before_ten(tmp_path: Path) -> None:
    flight = open_flight(frames(tmp_path / "f", ["x10y.jpg", "x9y.jpg", "x²y.jpg"]))
    assert [frame.filename for frame in flight.frames][:2] == ["x9y.jpg", "x10y.jpg"]


def timed(folder: Path, times: dict[str, str | None]) -> Path:
    """Images whose EXIF gives when they were taken: "12:00:01", "12:00:01.5" or "12:00:01 +09:00"."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, time in times.items():
        exif = Image.Exif()
        if time is not None:
            clock, _, offset = time.partition(" ")
            clock, _, subsec = clock.partition(".")
            tags = {0x9003: f"2025:11:24 {clock}", 0x9291: subsec, 0x9011: offset}
            exif[0x010F] = "a camera"  # Pillow writes no IFD alone into a PNG
            exif.get_ifd(0x8769).update({tag: text for tag, text in tags.items() if text})
        Image.new("RGB", (8, 8)).save(folder / name, exif=exif)
    return folder


def names_of(flight: Flight) -> list[str]:
    return [frame.filename for frame in flight.frames]


def test_a_copy_follows_what_it_is_a_copy_of_and_renumbers_nothing(tmp_path: Path) -> None:
    names = [f"{FLIGHT}_00057.jpg", f"{FLIGHT}_00057 (1).jpg", f"{FLIGHT}_00058.jpg"]
    flight = open_flight(frames(tmp_path / FLIGHT, names))
    assert names_of(flight) == names
    assert [frame.index for frame in flight.frames] == [57, 59, 58]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_frames_whose_exif_tells_their_times_come_in_that_order(tmp_path: Path, suffix: str) -> None:
    """A camera counts on from 9999 to 0001."""
    times = {f"DJI_0001.{suffix}": "12:00:02", f"DJI_9998.{suffix}": "12:00:01", f"DJI_9999.{suffix}": "12:00:01.5"}
    flight = open_flight(timed(tmp_path / "f", times))
    assert names_of(flight) == [f"DJI_9998.{suffix}", f"DJI_9999.{suffix}", f"DJI_0001.{suffix}"]
    assert flight.frames[1].time == datetime(2025, 11, 24, 12, 0, 1, 500_000)
    (notice,) = flight.notices
    assert "order of their times (EXIF), which is not the order of their names" in notice


def test_sub_seconds_are_a_decimal_fraction(tmp_path: Path) -> None:
    flight = open_flight(
        timed(tmp_path / "f", {"a.jpg": "12:00:01.5", "b.jpg": "12:00:01.25", "c.jpg": "12:00:01.078"})
    )
    assert names_of(flight) == ["c.jpg", "b.jpg", "a.jpg"]


def test_offsets_from_utc_decide_the_order_where_every_frame_has_one(tmp_path: Path) -> None:
    """The camera's zone was set between two frames."""
    folder = timed(tmp_path / "f", {"a.jpg": "12:00:01 +00:00", "b.jpg": "21:00:00 +09:00", "c.jpg": "12:00:03 +00:00"})
    flight = open_flight(folder)
    assert names_of(flight) == ["b.jpg", "a.jpg", "c.jpg"]
    assert flight.frames[0].time == datetime(2025, 11, 24, 21, 0, 0)
    timed(folder, {"c.jpg": "12:00:03"})
    assert names_of(open_flight(folder)) == ["a.jpg", "c.jpg", "b.jpg"]


def test_where_only_some_frames_tell_their_times_names_order_all_and_it_is_said(tmp_path: Path) -> None:
    flight = open_flight(timed(tmp_path / "f", {"a.jpg": "12:00:03", "b.jpg": None, "c.jpg": "12:00:01"}))
    assert names_of(flight) == ["a.jpg", "b.jpg", "c.jpg"]
    assert [frame.time is None for frame in flight.frames] == [False, True, False]
    (notice,) = flight.notices
    assert "2 of 3 frames say when they were taken" in notice and "ordered by name" in notice


def test_frames_of_one_moment_are_in_the_order_of_their_names(tmp_path: Path) -> None:
    times = {"x10.jpg": "12:00:02", "x2.jpg": "12:00:02", "x11.jpg": "12:00:01", "x2 (1).jpg": "12:00:02"}
    flight = open_flight(timed(tmp_path / "f", times))
    assert names_of(flight) == ["x11.jpg", "x2.jpg", "x2 (1).jpg", "x10.jpg"]


@pytest.mark.parametrize("stamp", ["0000:00:00 00:00:00", "    :  :     :  :  ", "2025-11-24", "\x00", "9" * 40])
def test_a_time_that_is_none_is_none(tmp_path: Path, stamp: str) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = stamp
    (tmp_path / "f").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "f" / "a.jpg", exif=exif)
    assert open_flight(tmp_path / "f").frames[0].time is None


def test_labels_may_tell_the_times(
    tmp_path: Path, label: Callable[..., Any], write_labels: Callable[..., Path]
) -> None:
    folder = frames(tmp_path / "f", ["a.jpg", "b.jpg"])
    times = {"a.jpg": "2025-11-24T12:00:02+09:00", "b.jpg": "2025-11-24T12:00:01.5+09:00"}
    write_labels(folder / "l.json", [label(name, PLACE) | {"timestamp": time} for name, time in times.items()])
    flight = open_flight(folder)
    assert names_of(flight) == ["b.jpg", "a.jpg"]
    assert flight.frames[0].time == datetime(2025, 11, 24, 12, 0, 1, 500_000)
    assert any("order of their times (their labels)" in notice for notice in flight.notices)


def test_a_tables_times_are_read_beside_a_label_jsons_positions(
    tmp_path: Path, label: Callable[..., Any], write_labels: Callable[..., Path]
) -> None:
    folder = frames(tmp_path / "f", ["a.jpg", "b.jpg"])
    write_labels(folder / "l.json", [label("a.jpg", PLACE), label("b.jpg", PLACE)])
    (folder / "t.csv").write_text(
        "filename,latitude,longitude,timestamp\n"
        "a.jpg,37.49792,127.02765,1738133057.077\nb.jpg,37.49792,127.02765,1738133056.009\n"
    )
    flight = open_flight(folder)
    assert flight.truth_source == "labels" and names_of(flight) == ["b.jpg", "a.jpg"]


def test_natural_order_is_of_folders_too() -> None:
    paths = ["100MEDIA/DJI_0001.JPG", "99MEDIA/DJI_0010.JPG", "99MEDIA/DJI_0009.JPG", "101MEDIA/DJI_0001.JPG"]
    assert sorted(paths, key=natural_order) == [paths[2], paths[1], paths[0], paths[3]]


@given(st.lists(st.text("ab01 ().²٣", max_size=6).map(lambda stem: f"{stem}.jpg"), unique=True))
def test_natural_order_does_not_depend_on_the_order_of_listing(names: list[str]) -> None:
    listed_otherwise = names[::-1]
    assert sorted(names, key=natural_order) == sorted(listed_otherwise, key=natural_order)


def test_a_relative_path_is_nfc_whatever_the_file_system_holds(tmp_path: Path) -> None:
    name = "서울_1.jpg"
    flight = open_flight(frames(tmp_path / unicodedata.normalize("NFD", "한강"), [unicodedata.normalize("NFD", name)]))
    assert flight.flight_id == "한강"
    assert flight.frames[0].relative_path == name and flight.frames[0].path.exists()


def test_two_spellings_of_one_name_are_one_frame_and_it_is_said(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD")]
    folder = frames(tmp_path / "f", names)
    if len(list(folder.iterdir())) < 2:
        pytest.skip("this file system holds one spelling")
    flight = open_flight(folder)
    assert len(flight.frames) == 1
    (notice,) = flight.notices
    assert "twice" in notice


def test_names_that_differ_in_a_space_are_two_frames(tmp_path: Path) -> None:
    flight = open_flight(frames(tmp_path / "f", ["a.jpg", " a.jpg"]))
    assert {frame.relative_path for frame in flight.frames} == {"a.jpg", " a.jpg"}


def test_a_name_that_is_no_text_is_left_out_and_said(tmp_path: Path) -> None:
    folder = frames(tmp_path / "f", ["a.jpg"])
    try:
        shutil.copy(folder / "a.jpg", os.fsencode(folder) + b"/caf\xe9.jpg")
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    flight = open_flight(folder)
    assert names_of(flight) == ["a.jpg"]
    (notice,) = flight.notices
    assert r"caf\xe9.jpg" in notice and "not UTF-8" in notice


@pytest.mark.parametrize("read", [open_flight, open_captures, functools.partial(open_orthophoto, footprint_m=100.0)])
def test_a_folder_or_file_whose_name_is_no_text_is_refused(tmp_path: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(InputError, match=r"caf\\xe9\.tif has bytes in its name that are not UTF-8: rename"):
        read(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.tif")))


def test_a_fingerprint_changes_with_the_file_and_not_with_its_time(tmp_path: Path) -> None:
    folder = frames(tmp_path / "f", ["a.jpg", "b.jpg"])
    before = open_flight(folder)
    os.utime(folder / "a.jpg", (1, 1))
    Image.new("RGB", (8, 8), "red").save(folder / "b.jpg")
    after = open_flight(folder)
    assert before.frames[0].fingerprint == after.frames[0].fingerprint
    assert before.frames[1].fingerprint != after.frames[1].fingerprint


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


def test_nothing_is_said_where_every_frame_has_its_label(
    tmp_path: Path, label: Callable[..., Any], write_labels: Callable[..., Path]
) -> None:
    folder = frames(tmp_path / "f", ["a.jpg", "b.jpg"])
    write_labels(folder / "l.json", [label(name, PLACE) for name in ("a.jpg", "b.jpg", "b.jpg")])
    assert open_flight(folder).notices == ()


def test_frames_whose_labels_contradict_have_no_truth_and_it_is_said_once(
    tmp_path: Path, label: Callable[..., Any], write_labels: Callable[..., Path]
) -> None:
    folder = frames(tmp_path / "f", ["a.jpg", "b.jpg", "c.jpg"])
    away = geo.offset(PLACE, 48, 48)
    write_labels(folder / "l.json", [label(n, p) for p in (PLACE, away) for n in ("a.jpg", "b.jpg")])
    write_labels(folder / "m.json", [label("c.jpg", PLACE)])
    flight = open_flight(folder)
    assert [frame.truth.location for frame in flight.frames] == [None, None, PLACE]
    (notice,) = flight.notices
    assert "a.jpg has two labels that contradict each other" in notice and "68 m apart" in notice
    assert "1 more frame" in notice


@pytest.mark.parametrize("where", ["inside", "beside", "named"])
def test_frames_without_a_label_and_labels_without_a_frame_are_said(
    tmp_path: Path, label: Callable[..., Any], write_labels: Callable[..., Path], where: str
) -> None:
    folder = frames(tmp_path / "root" / "f", ["a.jpg", "b.jpg"])
    path = {"inside": folder, "beside": folder.parent, "named": tmp_path}[where] / "l.json"
    write_labels(path, [label("a.jpg", PLACE), label("x.jpg", PLACE)])
    notices = open_flight(folder, labels=path if where == "named" else None).notices
    assert f"1 of 2 frames have no label in {path}: first b.jpg" in notices
    about_strangers = [notice for notice in notices if "name no frame of this flight: first x.jpg" in notice]
    assert len(about_strangers) == (where != "beside")  # there it may be another flight's


def test_label_files_that_name_no_frame_are_said(
    tmp_path: Path, label: Callable[..., Any], write_labels: Callable[..., Path]
) -> None:
    folder = frames(tmp_path / "root" / "f", ["a.jpg"])
    write_labels(folder.parent / "beside.json", [label("other_1.jpg", PLACE)])
    assert open_flight(folder).notices == ()
    write_labels(folder / "l.json", [label("x.jpg", PLACE)])
    (folder / "t.csv").write_text("filename,lat,lon\ny.jpg,1,2\n")
    of_json, of_csv = open_flight(folder).notices
    assert "l.json: 1 label(s), none of them for a frame" in of_json and "x.jpg" in of_json
    assert "t.csv: 1 label(s), none of them for a frame" in of_csv


@pytest.mark.parametrize("reference", ["flightA/DJI_0001.JPG", "DJI_0001.JPG"])
def test_labels_of_the_same_names_in_other_folders_are_not_used_and_it_is_said(
    tmp_path: Path, label: Callable[..., Any], write_labels: Callable[..., Path], reference: str
) -> None:
    for name in ("flightA", "flightB"):
        frames(tmp_path / "root" / name, ["DJI_0001.JPG"])
    write_labels(tmp_path / "root" / "labels.json", [label(reference, PLACE)])
    flight = open_flight(tmp_path / "root" / "flightB")
    assert flight.truth_source == "none"
    (notice,) = flight.notices
    assert "labels.json" in notice and "not used" in notice and reference in notice


def test_labels_of_a_folder_with_another_name_are_used_where_that_is_clear_and_it_is_said(
    tmp_path: Path, label: Callable[..., Any], write_labels: Callable[..., Path]
) -> None:
    folder = frames(tmp_path / "renamed", ["DJI_0001.JPG"])
    write_labels(folder / "l.json", [label("before/DJI_0001.JPG", PLACE)])
    flight = open_flight(folder)
    assert flight.frames[0].truth.location == PLACE
    (notice,) = flight.notices
    assert "another folder (first before/DJI_0001.JPG)" in notice


def test_a_table_that_contradicts_the_label_json_is_said(
    tmp_path: Path, label: Callable[..., Any], write_labels: Callable[..., Path]
) -> None:
    folder = frames(tmp_path / "f", ["a.jpg", "b.jpg"])
    write_labels(folder / "l.json", [label("a.jpg", PLACE), label("b.jpg", PLACE)])
    near, far = geo.offset(PLACE, 3, 0), geo.offset(PLACE, 0, 500)
    (folder / "t.csv").write_text(f"filename,lat,lon\na.jpg,{near.lat},{near.lon}\nb.jpg,{far.lat},{far.lon}\n")
    flight = open_flight(folder)
    assert flight.truth_source == "labels" and flight.frames[1].truth.location == PLACE
    (notice,) = flight.notices
    assert "contradict each other about 1 of 2 frames" in notice and "l.json is taken" in notice


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
