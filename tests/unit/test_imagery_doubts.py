"""What a folder holds that is no frame of the flight, and angles that can hardly be so."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from coarseloc.core import geo
from coarseloc.core.errors import InputError
from coarseloc.core.types import LonLat, Pose
from coarseloc.imagery import doubts
from coarseloc.imagery.captures import open_captures
from coarseloc.imagery.course_doubts import course_notices
from coarseloc.imagery.doubts import (
    coarse_notices,
    heading_notices,
    place_notices,
    radian_notices,
    radian_place_notices,
    roll_notices,
    unread_label_notices,
)
from coarseloc.imagery.flights import open_flight
from coarseloc.imagery.stated_labels import StatedLabels


def folder_of(path: Path, *names: str) -> Path:
    path.mkdir()
    for name in names:
        Image.new("RGB", (8, 8)).save(path / name)
    return path


@pytest.mark.parametrize(("cameras", "main"), [("VTZ", "V"), ("TWZ", "W"), ("TZ", "Z")])
def test_of_several_cameras_pictures_one_cameras_are_frames_and_it_is_said(
    tmp_path: Path, cameras: str, main: str
) -> None:
    names = [f"DJI_2024050112000{i}_{i:04d}_{camera}.JPG" for i in (1, 2) for camera in cameras]
    flight = open_flight(folder_of(tmp_path / "f", *names))
    assert [frame.filename for frame in flight.frames] == [name for name in names if name.endswith(f"_{main}.JPG")]
    assert any(f"those of {main} are taken as frames" in notice for notice in flight.notices)


@pytest.mark.parametrize(
    ("names", "frames"),
    [
        (("MAX_0001.JPG", "IRX_0001.jpg"), ["MAX_0001.JPG"]),  # Autel's thermal twin
        (("IMG_1601_0001_GRE.TIF", "IMG_1601_0001_NIR.TIF", "IMG_1601_0001_RGB.JPG"), ["IMG_1601_0001_RGB.JPG"]),
        (("DJI_20240501_0001_D.JPG", "DJI_20240501_0001_MS_NIR.TIF"), ["DJI_20240501_0001_D.JPG"]),
        (("a_1.png", "a_1_depth.png", "a_1_seg.png"), ["a_1.png"]),
        (
            ("비행_1.jpg", unicodedata.normalize("NFD", "비행_2.jpg"), "비행_3.jpg"),
            ["비행_1.jpg", "비행_2.jpg", "비행_3.jpg"],
        ),
    ],
)
def test_frames_are_told_from_what_lies_beside_them_and_come_in_order(
    tmp_path: Path, names: tuple[str, ...], frames: list[str]
) -> None:
    flight = open_flight(folder_of(tmp_path / "f", *names))
    assert [unicodedata.normalize("NFC", frame.filename) for frame in flight.frames] == frames
    assert (len(frames) == len(names)) or any("left out" in notice for notice in flight.notices)


def test_a_json_that_holds_no_labels_is_said_where_nothing_places_the_frames(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "f", "a.jpg", "a.tif")
    (folder / "labels.json").write_text('[{"file": "a.jpg", "lat": 37.5, "lon": 127}]')
    notices = open_flight(folder).notices
    assert any("labels.json is not a label file" in notice for notice in notices)
    assert any("1 names have several suffixes" in notice for notice in notices)


def test_one_cameras_letter_is_part_of_the_name(tmp_path: Path) -> None:
    flight = open_flight(folder_of(tmp_path / "f", "DJI_0001_T.JPG", "DJI_0002_T.JPG"))
    assert len(flight.frames) == 2 and not any("cameras" in notice for notice in flight.notices)


def test_masks_and_thumbnails_beside_their_frames_are_left_out(tmp_path: Path) -> None:
    flight = open_flight(folder_of(tmp_path / "f", "a1.jpg", "a1_mask.png", "a2.jpg", "a2_thumb.jpg", "b_mask.jpg"))
    assert [frame.filename for frame in flight.frames] == ["a1.jpg", "a2.jpg", "b_mask.jpg"]
    assert any(notice.startswith("2 masks or thumbnails") for notice in flight.notices)


def test_pictures_of_kinds_that_are_not_read_are_said_but_not_a_raw_beside_its_jpeg(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "f", "a1.jpg")
    for name in ("a1.dng", "a2.ARW", "flight.mp4"):
        (folder / name).write_bytes(b"x")
    (notice,) = (notice for notice in open_flight(folder).notices if "kinds" in notice)
    assert notice.startswith("2 files of kinds that are not read") and "1 .arw, 1 .mp4; first a2.ARW" in notice


def test_a_folder_of_nothing_but_unread_kinds_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.dng").write_bytes(b"x")
    with pytest.raises(InputError, match=r"holds no images.*1 \.dng"):
        open_flight(tmp_path)


def test_heic_without_its_extra_is_said_with_the_way_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doubts, "SUFFIXES", tuple(suffix for suffix in doubts.SUFFIXES if suffix != ".heic"))
    (folder_of(tmp_path / "f", "a1.jpg") / "a2.heic").write_bytes(b"x")
    (notice,) = doubts.unread_kinds(tmp_path / "f")
    assert "1 .heic" in notice and "pip install 'pillow-heif" in notice


@pytest.mark.parametrize(
    ("yaws", "is_doubted"),
    [
        ([0, 1.57, 3.14, -1.57], True),
        ([0, 90, 180, 270], False),
        ([0.2, 1.57, 3.14, 4.71, 6.2], True),  # from 0 to 2π
        ([3.5, 4.5, 5.5, 6.0], False),  # a straight leg again
        ([0.1, 0.4, -0.3, 0.2], False),  # a straight leg to the north
        ([0, 1.57, 3.14], False),  # too few
        ([], False),
    ],
)
def test_yaws_that_all_lie_within_pi_are_doubted(yaws: list[float], is_doubted: bool) -> None:
    notices = radian_notices([Pose(yaw_deg=yaw % 360) for yaw in yaws])
    assert bool(notices) == is_doubted and all("radians" in notice for notice in notices)


def test_radians_are_told_with_their_range() -> None:
    (notice,) = radian_notices([Pose(yaw_deg=yaw % 360) for yaw in (-math.pi, 0.0, 1.0, 2.0)])
    assert "(-3.14 to 2.00)" in notice


# --- captures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("yaw", "text"),
    [
        (lambda angle: -angle % 360, "give --turned ccw"),
        (lambda angle: angle + 3, None),
        (lambda angle: 0, None),  # says nothing of the pictures
        (lambda angle: angle + 45, "see which is right"),
    ],
)
def test_labels_that_contradict_the_folders_angles_are_told_of(
    capture_tree: Callable[..., Path], edit: Callable[..., None], yaw: Callable[[int], float], text: str | None
) -> None:
    root = capture_tree(angles=(0, 90, 180))
    edit(root / "labels-300.json", lambda name: yaw(int(name.split("_")[4])))
    (source,) = open_captures(root)
    assert (text in source.notices[0]) if text else not source.notices


@pytest.fixture
def edit() -> Callable[..., None]:
    """Write the yaw that a function of the file's name gives into every label."""
    import json

    def write(path: Path, yaw_of: Callable[[str], float]) -> None:
        content: dict[str, Any] = json.loads(path.read_text())
        for image in content["images"]:
            image["attitude"]["yaw"] = yaw_of(image["imageref"])
        path.write_text(json.dumps(content))

    return write


# --- EXIF -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("letters", [{}, {1: "N"}, {1: "?", 3: "E"}])
def test_an_exif_position_without_its_letters_is_not_used_and_it_is_said(
    tmp_path: Path, letters: dict[int, str]
) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({2: (36.0, 48.0, 14.0), 4: (174.0, 43.0, 35.0)} | letters)
    (tmp_path / "f").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "f" / "a.jpg", exif=exif)
    flight = open_flight(tmp_path / "f")
    assert flight.frames[0].truth.location is None and flight.truth_source == "none"
    assert any("hemisphere" in notice for notice in flight.notices)


@pytest.mark.parametrize(
    ("gps", "words", "is_used"),
    [
        ({4: (IFDRational(0, 0),) * 3}, "no degrees, minutes and seconds", False),
        ({2: (127.0, 1.0, 48.0), 4: (37.0, 30.0, 0.0)}, "exchanged?", False),
        ({18: "TOKYO"}, "another datum", False),
        ({9: "V"}, "no fix (GPSStatus V)", True),
        ({2: (0.0, 0.0, 0.0), 4: (0.0, 0.0, 0.0)}, "1 of 2 frames have no EXIF position: first b.jpg", False),
    ],
)
def test_an_exif_position_that_is_not_used_or_old_is_said(
    tmp_path: Path, gps: dict[int, Any], words: str, is_used: bool
) -> None:
    sound = {1: "N", 2: (37.0, 30.0, 0.0), 3: "E", 4: (127.0, 1.0, 48.0)}
    (tmp_path / "f").mkdir()
    for name, tags in (("a.jpg", sound), ("b.jpg", sound | gps)):
        exif = Image.Exif()
        exif.get_ifd(0x8825).update(tags)
        Image.new("RGB", (8, 8)).save(tmp_path / "f" / name, exif=exif)
    flight = open_flight(tmp_path / "f")
    assert [frame.truth.location is not None for frame in flight.frames] == [True, is_used]
    assert [words in notice for notice in flight.notices] == [True]


def test_a_position_far_from_the_flight_is_told_and_whether_its_axes_are_exchanged() -> None:
    places = {f"{i}.jpg": LonLat(11.5 + i / 1000, 48.1) for i in range(5)}
    assert place_notices(places) == []
    (notice,) = place_notices({**places, "x.jpg": LonLat(48.1, 11.5)})
    assert "1 of 6 frames" in notice and "first x.jpg" in notice and "exchanged" in notice
    (notice,) = place_notices({**places, "x.jpg": LonLat(11.5, 58.1)})
    assert "1,11" in notice and "exchanged" not in notice


def test_labels_far_from_their_pictures_exif_are_told_and_whether_their_axes_are_exchanged() -> None:
    of_exif = {f"{i}.jpg": LonLat(11.5 + i / 1000, 48.1) for i in range(5)}
    near = {name: LonLat(place.lon + 0.0001, place.lat) for name, place in of_exif.items()}  # 7 m
    assert doubts.exif_notices(near, of_exif) == doubts.exif_notices(near, {}) == []
    (notice,) = doubts.exif_notices({**near, "1.jpg": LonLat(11.6, 48.1)}, of_exif)
    assert "1 of 5 frames" in notice and "first 1.jpg" in notice and "exchanged" not in notice
    (notice,) = doubts.exif_notices({name: LonLat(place.lat, place.lon) for name, place in of_exif.items()}, of_exif)
    assert "5 of 5 frames" in notice and "exchanged" in notice


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (lambda row, column: LonLat(11.5 + column / 500, 48.1 - row / 700), None),
        (lambda row, column: LonLat(48.1 - row / 700, 11.5 + column / 500), "north .* exchanged latitudes"),
        (lambda row, column: LonLat(-11.5 - column / 500, 48.1 - row / 700), "west .* sign of their longitudes"),
        (lambda row, column: LonLat(11.5 + row / 500, 48.1 - column / 700), "south .* another order"),
    ],
)
def test_tiles_that_do_not_follow_each_other_to_the_east_are_told(place, words: str | None) -> None:
    centres = {row * 6 + column + 1: place(row, column) for row in range(4) for column in range(6)}
    notices = doubts.order_notices(centres)
    assert (notices == []) if words is None else re.search(words, notices[0])


@pytest.mark.parametrize(("yaws", "pitch", "is_told"), [((0, 0, 0, 0), -90, True), ((0, 80, 160, 240), -90, False)])
def test_a_heading_that_hides_in_the_roll_is_told(yaws: tuple[float, ...], pitch: float, is_told: bool) -> None:
    poses = [Pose(yaw_deg=yaw, pitch_deg=pitch, roll_deg=80.0 * i - 100) for i, yaw in enumerate(yaws)]
    assert bool(roll_notices(poses)) == is_told
    assert roll_notices([Pose(yaw_deg=0, pitch_deg=0, roll_deg=roll) for roll in (-80.0, 0.0, 5.0, 80.0)]) == []


def test_a_doubt_that_its_user_answers_is_said_no_more(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "f", *(f"f_{i}.jpg" for i in range(5)))
    rows = [f"f_{i}.jpg,{48.1 + i / 7e4},{11.5 if i else 51.5},{i * 0.7}" for i in range(5)]
    (folder / "labels.csv").write_text("\n".join(["filename,latitude,longitude,yaw", *rows]))
    far, radians = (
        next(notice for notice in open_flight(folder).notices if words in notice) for words in ("lie more", "radians")
    )
    assert far.endswith("--accept far") and radians.endswith("--accept radians")
    flight = open_flight(folder, labels=StatedLabels(accepted=frozenset({"far"})))
    assert [notice for notice in flight.notices if "--accept" in notice] == [radians]
    (folder / "flight.toml").write_text('[truth]\naccepted = ["far", "radians"]\n')
    assert not [notice for notice in open_flight(folder).notices if "--accept" in notice]
    (folder / "flight.toml").write_text('[truth]\naccepted = ["what"]\n')
    with pytest.raises(InputError, match=r"accepted.*'radians'"):
        open_flight(folder)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["f_1.jpg,37.5,127", "f_2.jpg,0,0"], "1 of 2 frames have a label without a position"),
        (["f_1.jpg,?,127", "f_2.jpg,north,?"], "2 of 2 frames .*latitude \\?, longitude 127"),
    ],
)
def test_labels_without_a_position_are_said(tmp_path: Path, rows: list[str], words: str) -> None:
    folder = folder_of(tmp_path / "f", "f_1.jpg", "f_2.jpg")
    (folder / "t.csv").write_text("\n".join(["filename,lat,lon", *rows]))
    assert any(re.search(words, notice) for notice in open_flight(folder).notices)


def test_a_spreadsheet_beside_frames_is_named(tmp_path: Path) -> None:
    (tmp_path / "labels.xlsx").write_bytes(b"PK")
    (tmp_path / "Timestamp.MRK").write_bytes(b"1")
    assert unread_label_notices(tmp_path, has_truth=True)[0].startswith("labels.xlsx: not read as labels")
    assert "Timestamp.MRK" in unread_label_notices(tmp_path, has_truth=False)[0]


def test_pictures_in_folders_beside_frames_and_of_another_size_are_said(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "f", "f_1.jpg", "f_2.jpg")
    assert open_flight(folder).notices == ()
    folder_of(folder / "day2", "f_3.jpg")
    Image.new("RGB", (6, 8)).save(folder / "f_4.jpg")
    texts = " ".join(open_flight(folder).notices)
    assert "folder(s) day2 are no frames" in texts and "of 2 sizes (2 of 8 x 8 px, first f_1.jpg; 1 of 6 x 8" in texts


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ([(127.03, 37.5)] * 4, "the 4 positions are only 1 different ones; all positions are rounded to 2 decimals"),
        ([(127.0311 + n / 1e4, 37.5) for n in range(4)], "rounded to 4 decimals of a degree, 11 m"),
        ([(127.03 + n / 7e4, 37.5) for n in range(4)], ""),
    ],
)
def test_positions_that_are_rounded_or_repeated_are_said(places: list[tuple[float, float]], words: str) -> None:
    notices = coarse_notices({str(n): LonLat(*place) for n, place in enumerate(places)})
    assert words in " ".join(notices) and bool(words) == bool(notices)


def test_a_counter_that_began_again_is_told(tmp_path: Path) -> None:
    names = [f"DJI_{number:04d}.JPG" for number in (998, 999, 1, 2)]
    (notice,) = open_flight(folder_of(tmp_path / "f", *names)).notices
    assert "numbers are 1 to 2 and 998 to 999" in notice
    assert not doubts.counter_notices([1, 2, 3, 500, 998]) and not doubts.counter_notices([400, 997, 998, 999])


def test_positions_in_radians_are_said(tmp_path: Path) -> None:
    assert radian_place_notices([LonLat(2.2170, 0.6545)] * 4) and not radian_place_notices([LonLat(6.6, 0.2)] * 4)
    folder = folder_of(tmp_path / "f", *(f"f_{n}.jpg" for n in range(4)))
    rows = "".join(f"f_{n}.jpg,{0.6545 + n / 1e7},2.217\n" for n in range(4))
    (folder / "t.csv").write_text(f"filename,lat,lon\n{rows}")
    assert any("radians" in notice for notice in open_flight(folder).notices)
    assert not open_flight(folder, labels=StatedLabels(accepted=frozenset({"radians", "coarse"}))).notices


@pytest.mark.parametrize(
    ("angles", "words"),
    [
        ({1: range(0, 360, 45)}, ""),
        ({1: (0, 45, 90, 180, 225, 270, 315)}, "of headings every 45° there is none at 135"),
        ({1: (0, 45, 90)}, ""),
        ({1: (0, 45), 2: (0,), 7: (0, 45)}, "1 of 3 tiles lack some of the headings (first tile 2: 045)"),
    ],
)
def test_headings_that_a_set_lacks_are_said(angles: dict[int, tuple[int, ...]], words: str) -> None:
    notices = heading_notices(angles)
    assert words in " ".join(notices) and bool(words) == bool(notices)


def flown(*legs: tuple[float, int], yaw: Callable[[float], float]) -> list[Pose]:
    """Poses 20 m apart along legs of (course in degrees, steps)."""
    place, poses = LonLat(127.03, 37.5), []
    for course, steps in legs:
        for _ in range(steps):
            poses.append(Pose(place, None, yaw(course) % 360))
            turn = math.radians(course)
            place = geo.offset(place, 20 * math.sin(turn), 20 * math.cos(turn))
    return poses


SQUARE = ((0, 6), (90, 6), (180, 6), (270, 6))


@pytest.mark.parametrize(
    ("legs", "yaw", "words"),
    [
        (SQUARE, lambda course: course + 12, ""),  # wind
        (SQUARE, lambda course: 40, ""),  # looks one way wherever it flies
        (SQUARE, lambda course: -course, "counter-clockwise, 0 at 0°"),
        (SQUARE, lambda course: 90 - course, "counter-clockwise, 0 at 90°"),
        (SQUARE, lambda course: course - 90, "lies +90° beside"),
        (((90, 8), (270, 8)), lambda course: 90 - course, "lies +90° beside"),  # along one line
        (((10, 4),), lambda course: -course, ""),  # too few
    ],
)
def test_yaws_that_turn_against_the_course_or_lie_beside_it_are_doubted(
    legs: tuple[tuple[float, int], ...], yaw: Callable[[float], float], words: str
) -> None:
    notices = course_notices(flown(*legs, yaw=yaw))
    assert words in " ".join(notices) and bool(words) == bool(notices)
