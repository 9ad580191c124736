"""When frames were taken: names, EXIF, XMP, GPS, labels, a stated interval; and how far that is from UTC."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from coarseloc.core.clock import FlightClock, interval_steps, parse_utc_offset, utc_offset_text
from coarseloc.core.errors import InputError
from coarseloc.core.types import LonLat
from coarseloc.imagery.flights import open_flight, open_image
from coarseloc.imagery.frame_times import StatedTime
from coarseloc.imagery.image_facts import read_image_facts
from coarseloc.imagery.midnight import order_over_midnight
from coarseloc.imagery.name_times import name_times

NOON = datetime(2025, 11, 24, 12, 0, 0)
PLACE = LonLat(127.02765, 37.49792)
FLIGHT = "251124155712"


def picture(file: Path, *, local: str = "", offset: str = "", gps: str = "", xmp: str = "") -> Path:
    """A JPEG with EXIF times `12:00:01` of 24 November 2025, local and by GPS, and XMP properties."""
    exif = Image.Exif()
    if local:
        exif.get_ifd(0x8769)[0x9003] = f"2025:11:24 {local}"
    if offset:
        exif.get_ifd(0x8769)[0x9011] = offset
    if gps:
        exif.get_ifd(0x8825).update({29: "2025:11:24", 7: tuple(map(float, gps.split(":")))})
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:drone-dji="http://www.dji.com/drone-dji/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
        f"{xmp}/></rdf:RDF></x:xmpmeta>"
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(file, exif=exif, xmp=packet.encode() if xmp else b"")
    return file


def pictures(folder: Path, *names: str) -> Path:
    for name in names:
        picture(folder / name)
    return folder


# --- names ----------------------------------------------------------------------------------------

moments = st.datetimes(datetime(2005, 1, 2), datetime(2098, 12, 30)).map(lambda time: time.replace(microsecond=0))
prefixes = st.sampled_from(["", "DJI_", "IMG-", "flight 3 ", "cam2_", "_"])
suffixes = st.sampled_from([".jpg", "_0001_V.JPG", "_V.png", " (1).jpg", "_x.tif"])


forms = st.sampled_from(["%Y%m%d%H%M%S", "%Y%m%d_%H%M%S", "%Y-%m-%d_%H-%M-%S", "%y%m%d%H%M%S"])


@given(moments, prefixes, suffixes, forms)
def test_a_date_and_time_in_a_name_is_read_whatever_stands_around_it(time, prefix, suffix, form) -> None:
    later = time + timedelta(seconds=3)
    names = [prefix + moment.strftime(form) + suffix for moment in (time, later)]
    assert list(name_times(names, "f").times.values()) == [time, later]


@given(st.integers(1_110_000_000, 3_999_999_999), st.integers(0, 999_999), prefixes)
def test_unix_time_in_a_name_is_utc_in_whatever_unit(seconds, microseconds, prefix) -> None:
    time = datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)
    for text in (
        f"{seconds}.{microseconds:06d}000", f"{seconds}_{microseconds:06d}000", f"{seconds}{microseconds:06d}",
        f"{seconds}{microseconds:06d}000",
    ):  # fmt: skip
        names = [f"{prefix}{text}.jpg", f"{prefix}{seconds + 5}.jpg"]
        assert name_times(names, "f").times[names[0]] == time, text


@given(st.lists(st.text("0123456789_-. abDJI", max_size=30), min_size=1, max_size=6, unique=True))
def test_any_names_give_a_time_within_the_years_of_drones_or_none(stems) -> None:
    names = [f"{stem}.jpg" for stem in stems]
    answer = name_times(names, "f")
    assert set(answer.times) == set(names)
    assert all(time is None or 2005 <= time.year <= 2099 for time in answer.times.values())


@pytest.mark.parametrize(
    "names",
    [
        [f"{FLIGHT}_00001.jpg", f"{FLIGHT}_00002.jpg"],  # the flight's start
        ["IMG_0001.jpg", "IMG_0002.jpg"],
        ["259924155712.jpg", "259924155713.jpg"],  # a month 99
        ["1000000001.jpg", "1000000002.jpg"],  # a counter, else of 2001
        ["tile_37.49792000251124_1.jpg", "tile_37.49792000251125_2.jpg"],  # decimals
    ],
)
def test_digits_that_are_no_frames_time_give_none_without_a_word(names: list[str]) -> None:
    answer = name_times(names, FLIGHT)
    assert set(answer.times.values()) == {None} and answer.notices == ()


@pytest.mark.parametrize(
    "names",
    [
        ("2025-11-24 11.59.50 AM", "2025-11-24 12.00.10 PM", "2025-11-24 01.00.20 PM"),
        ("IMG_20251124_115950AM", "IMG_20251124_120010PM", "IMG_20251124_010020PM"),
        (
            "2025-11-24 오전 11-59-50",
            unicodedata.normalize("NFD", "2025-11-24 오후 12-00-10"),
            "2025-11-24 오후 1-00-20",
        ),
        ("2025년 11월 24일 11시 59분 50초", "2025년 11월 24일 12시 0분 10초", "2025년 11월 24일 13시 00분 20초"),
        ("v-2025-11-24-11h59m50s000", "v-2025-11-24-12h00m10s000", "v-2025-11-24-13h00m20s000"),
    ],
)
def test_names_with_clocks_of_twelve_hours_or_words_are_times(names: tuple[str, ...]) -> None:
    answer = name_times([f"{stem}.png" for stem in names], "f")
    day = datetime(2025, 11, 24)
    expected = [day.replace(hour=h, minute=m, second=s) for h, m, s in ((11, 59, 50), (12, 0, 10), (13, 0, 20))]
    assert list(answer.times.values()) == expected


def test_a_name_may_tell_its_offset_from_utc() -> None:
    answer = name_times(["20251124T155712+0900_1.jpg", "20251124T155713+0900_2.jpg"], "f")
    assert [time.utcoffset() for time in answer.times.values() if time] == [timedelta(hours=9)] * 2


def test_names_with_the_day_first_are_times() -> None:
    answer = name_times(["30-11-2025_23-59-59.jpg", "01-12-2025_00-00-01.jpg"], "f")
    assert list(answer.times.values()) == [datetime(2025, 11, 30, 23, 59, 59), datetime(2025, 12, 1, 0, 0, 1)]
    answer = name_times(["155712.jpg", "155713.jpg"], "f")  # of which day?
    assert set(answer.times.values()) == {None} and answer.notices == ()


@pytest.mark.parametrize(
    ("names", "order"),
    [
        ("000001.jpg 235958.jpg 235959.jpg", (1, 2, 0)),
        ("IMG_000001.5.jpg IMG_235958.5.jpg IMG_235958.25.jpg", (2, 1, 0)),
        ("000001500.jpg 235958500.jpg 235959000.jpg", (1, 2, 0)),
        ("cam2_00-00-01_0004.jpg cam2_23-59-58_0002.jpg cam2_23-59-58_0003.jpg", (1, 2, 0)),
        ("1_235958.jpg 2_235959.jpg 3_000001.jpg", (0, 1, 2)),  # in order by their counter
        ("155712.jpg 155713.jpg 155714.jpg", (0, 1, 2)),
        ("000001.jpg 000002.jpg 000003.jpg", (0, 1, 2)),
        ("000001.jpg 235958.jpg cover.jpg", (0, 1, 2)),
    ],
)
def test_names_of_the_time_of_day_come_in_its_order_over_midnight(names: str, order: tuple[int, ...]) -> None:
    stems = names.split()
    ordered, notices = order_over_midnight(stems, [], None)
    assert ordered == [stems[place] for place in order]
    assert [notice for notice in notices if "come first, 1 from" in notice] == list(notices)
    assert bool(notices) == (ordered != stems)


@pytest.mark.parametrize(
    ("names", "known", "start"),
    [
        ("000001.jpg 235959.jpg", {}, None),  # two frames are no evidence
        ("000001.jpg 120000.jpg 235959.jpg", {}, None),  # nor are two gaps alike
        ("003000.jpg 003001.jpg 233000.jpg", {}, None),  # two flights of one day, or one with a long pause
        ("000001_1.jpg 235958_2.jpg 235959_3.jpg", {}, None),
        ("a_000001.jpg b_235958.jpg a_235959.jpg", {}, None),
        ("000001.jpg 235958.jpg 235959.jpg", {"000001.jpg": NOON, "235959.jpg": NOON + timedelta(hours=9)}, None),
        ("000001.jpg 235958.jpg 235959.jpg", {}, datetime(2025, 11, 24)),
    ],
)
def test_names_that_seem_to_pass_midnight_stay_where_something_contradicts_it(
    names: str, known: dict[str, datetime], start: datetime | None
) -> None:
    ordered, (notice,) = order_over_midnight(names.split(), [known.get], start)
    assert ordered == names.split() and "seem to hold the time of day" in notice


def test_frames_over_midnight_are_numbered_in_the_order_of_time_and_exif_comes_before_names(tmp_path: Path) -> None:
    names = ["000001.jpg", "235958.jpg", "235959.jpg"]
    flight = open_flight(pictures(tmp_path / "251124235950", *names), time=StatedTime(2.0))
    assert [(frame.filename, frame.index) for frame in flight.frames] == [(names[1], 1), (names[2], 2), (names[0], 3)]
    assert [frame.time.second for frame in flight.frames if frame.time] == [50, 52, 54]
    for second, name in enumerate(names):
        picture(tmp_path / "f" / name, local=f"12:00:0{second}")
    flight = open_flight(tmp_path / "f")
    assert [frame.filename for frame in flight.frames] == names and flight.notices == ()


def test_stamps_of_flights_in_the_names_of_many_frames_are_doubted_aloud() -> None:
    names = [f"{start}_{n:05d}.jpg" for start in (FLIGHT, "251124160703") for n in range(1, 6)]
    answer = name_times(names, "f")
    assert set(answer.times.values()) == {None}
    assert "10 frames hold 2 times: not taken" in answer.notices[0]


def test_names_with_two_times_that_differ_are_doubted_aloud() -> None:
    answer = name_times(["20251124_120000_20251124_120501.jpg", "20251124_120002_20251124_120507.jpg"], "f")
    assert set(answer.times.values()) == {None} and "several times" in answer.notices[0]


def test_times_of_names_are_local_and_said_to_be_guessed(tmp_path: Path) -> None:
    names = ["DJI_20251124120003_0001_V.JPG", "DJI_20251124120001_0002_V.JPG"]
    flight = open_flight(pictures(tmp_path / "f", *names))
    assert [frame.time for frame in flight.frames] == [NOON + timedelta(seconds=1), NOON + timedelta(seconds=3)]
    assert flight.clock == FlightClock("name")
    assert any("YYYYMMDDhhmmss" in notice and "2025-11-24 12:00:01" in notice for notice in flight.notices)


def test_unix_times_of_names_are_put_into_the_stated_zone(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "f", "image_raw_1738133056.009658000.jpg", "image_raw_1738133057.077710000.jpg")
    flight = open_flight(folder)
    assert flight.clock.utc_offset_s == 0 and flight.frames[0].time == datetime(2025, 1, 29, 6, 44, 16, 9658)
    seoul = open_flight(folder, time=StatedTime(utc_offset_s=9 * 3600))
    assert seoul.frames[0].time == datetime(2025, 1, 29, 15, 44, 16, 9658)
    assert seoul.clock.to_utc(seoul.frames[0].time, "GPX") == flight.clock.to_utc(flight.frames[0].time, "GPX")


# --- which source ----------------------------------------------------------------------------------


def test_labels_come_before_exif_and_a_contradiction_is_said(
    tmp_path: Path, label: Callable[..., Any], write_labels: Callable[..., Path]
) -> None:
    names = ["a.jpg", "b.jpg"]
    for second, name in enumerate(names):
        picture(tmp_path / "f" / name, local=f"12:01:0{second}")
    labels = [label(name, PLACE) | {"timestamp": f"2025-11-24T12:00:0{n}"} for n, name in enumerate(names)]
    write_labels(tmp_path / "f" / "l.json", labels)
    flight = open_flight(tmp_path / "f")
    assert flight.clock.source == "labels" and flight.frames[0].time == NOON
    assert any("their labels and EXIF contradict" in notice and "60 s apart" in notice for notice in flight.notices)


def test_a_source_that_leaves_frames_out_gives_way_to_one_that_does_not(tmp_path: Path) -> None:
    picture(tmp_path / "f" / "DJI_20251124120001.jpg", local="12:00:01")
    picture(tmp_path / "f" / "DJI_20251124120003.jpg")
    flight = open_flight(tmp_path / "f")
    assert flight.clock.source == "name" and flight.frames[1].time == NOON + timedelta(seconds=3)
    assert any("1 of 2 frames have no time from EXIF" in notice for notice in flight.notices)


def test_xmp_tells_the_time_where_exif_does_not(tmp_path: Path) -> None:
    picture(tmp_path / "f" / "a.jpg", xmp='xmp:CreateDate="2025-11-24 12:00:02"')
    picture(tmp_path / "f" / "b.jpg", xmp='drone-dji:UTCAtExposure="2025:11:24 12:00:01.019996"')
    flight = open_flight(tmp_path / "f")
    assert flight.clock.source == "xmp" and [frame.filename for frame in flight.frames] == ["b.jpg", "a.jpg"]


def test_a_tables_column_of_utc_has_the_zone_utc(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "f", "a.jpg")
    (folder / "t.csv").write_text("filename,latitude,longitude,time_utc\na.jpg,37.5,127.0,2025-11-24 12:00:00\n")
    flight = open_flight(folder)
    assert flight.clock == FlightClock("csv", 0) and flight.frames[0].time == NOON


def test_without_any_time_the_order_alone_is_known(tmp_path: Path) -> None:
    flight = open_flight(pictures(tmp_path / "f", "a.jpg", "b.jpg"))
    assert flight.clock == FlightClock("index") and flight.notices == ()
    assert flight.clock.elapsed_s([frame.time for frame in flight.frames], [1, 2]) is None


def test_an_image_alone_has_its_time(tmp_path: Path) -> None:
    flight = open_image(picture(tmp_path / "f" / "a.jpg", local="12:00:00", offset="+09:00"))
    assert flight.frames[0].time == NOON and flight.clock == FlightClock("exif", 9 * 3600)


# --- an interval ------------------------------------------------------------------------------------


def test_a_stated_interval_counts_the_frames_numbers_from_the_flights_start(tmp_path: Path) -> None:
    folder = pictures(tmp_path / FLIGHT, *(f"{FLIGHT}_{n:05d}.jpg" for n in (1, 2, 4)))
    (folder / "flight.toml").write_text('[time]\ninterval_s = 0.5\nutc_offset = "+09:00"\n')
    flight = open_flight(folder)
    start = datetime(2025, 11, 24, 15, 57, 12)
    assert [(frame.time - start).total_seconds() for frame in flight.frames if frame.time] == [0, 0.5, 1.5]
    assert flight.clock == FlightClock("interval", 9 * 3600, 0.5)
    assert open_flight(folder, time=StatedTime(interval_s=2.0)).frames[1].time == start + timedelta(seconds=2)


def test_an_interval_without_a_start_still_tells_seconds(tmp_path: Path) -> None:
    flight = open_flight(pictures(tmp_path / "f", "a_3.jpg", "a_5.jpg"), time=StatedTime(2.0))
    assert flight.clock.source == "interval" and flight.frames[0].time is None
    assert "tells no start" in flight.notices[0]
    assert flight.clock.elapsed_s([None, None], [frame.index for frame in flight.frames]) == [0.0, 2.0]


def test_an_interval_beside_times_is_not_used_and_that_is_said(tmp_path: Path) -> None:
    for second, name in enumerate(["a.jpg", "b.jpg"]):
        picture(tmp_path / "f" / name, local=f"12:00:0{second}")
    flight = open_flight(tmp_path / "f", time=StatedTime(0.5))
    assert flight.clock.source == "exif"
    assert any("interval of 0.5 s is not used" in notice and "1 s apart" in notice for notice in flight.notices)


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=20, unique=True).map(sorted), st.integers(1, 30))
def test_interval_steps_keep_gaps_whatever_the_numbers_count_by(numbers: list[int], factor: int) -> None:
    steps = interval_steps(numbers)
    assert steps[0] >= 0 and all(a < b for a, b in pairwise(steps))
    if len(numbers) > 1:
        scaled = interval_steps([number * factor for number in numbers])
        assert [b - a for a, b in pairwise(steps)] == [b - a for a, b in pairwise(scaled)]


def test_numbers_that_do_not_rise_are_counted() -> None:
    assert interval_steps([57, 59, 58]) == [0, 1, 2] and interval_steps([]) == []


# --- UTC -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gps", "offset_s"), [("3:00:01", 9 * 3600), ("17:30:00", -5.5 * 3600), ("12:00:00", 0)])
def test_gps_times_tell_the_offset_of_local_ones(tmp_path: Path, gps: str, offset_s: float) -> None:
    picture(tmp_path / "f" / "a.jpg", local="12:00:01", gps=gps)
    flight = open_flight(tmp_path / "f")
    assert flight.clock == FlightClock("exif", int(offset_s)) and flight.notices == ()


def test_a_cameras_clock_beside_gps_is_said(tmp_path: Path) -> None:
    """As a DJI file has it: 10:12:34 local, 02:12:54 UTC."""
    picture(tmp_path / "f" / "a.jpg", local="10:12:34", xmp='drone-dji:UTCAtExposure="2025:11:24 02:12:54.019996"')
    flight = open_flight(tmp_path / "f")
    assert flight.clock.utc_offset_s == 8 * 3600
    assert any("-20 s off GPS" in notice for notice in flight.notices)


def test_a_clock_that_gps_cannot_explain_tells_no_offset(tmp_path: Path) -> None:
    picture(tmp_path / "f" / "a.jpg", local="12:07:00", gps="3:00:00")
    flight = open_flight(tmp_path / "f")
    assert flight.clock.utc_offset_s is None
    assert any("no one offset" in notice for notice in flight.notices)


def test_a_stated_offset_comes_before_the_images_and_a_difference_is_said(tmp_path: Path) -> None:
    picture(tmp_path / "f" / "a.jpg", local="12:00:00", gps="3:00:00")
    flight = open_flight(tmp_path / "f", time=StatedTime(utc_offset_s=3600))
    assert flight.clock.utc_offset_s == 3600
    assert any("+09:00" in notice and "+01:00 is stated" in notice for notice in flight.notices)


def test_what_needs_utc_is_refused_with_the_reason() -> None:
    with pytest.raises(InputError, match=r"GPX needs UTC.*EXIF.*local.*--utc-offset"):
        FlightClock("exif").to_utc(NOON, "GPX")
    with pytest.raises(InputError, match=r"NMEA needs the time of every frame.*--interval"):
        FlightClock("index", 0).to_utc(None, "NMEA")
    assert FlightClock("exif", 9 * 3600).to_utc(NOON, "GPX") == datetime(2025, 11, 24, 3, tzinfo=UTC)


@given(st.integers(-12 * 4, 14 * 4).map(lambda quarters: quarters * 900))
def test_offsets_are_read_as_they_are_written(seconds: int) -> None:
    assert parse_utc_offset(utc_offset_text(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "9", "+25:00", "+09:75", "KST", "+9:0", "+٠٩:٠٠"])
def test_what_is_no_offset_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected hours and minutes"):
        parse_utc_offset(text)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('utc_offset = "KST"', r"\[time\] utc_offset.*expected hours and minutes"),
        ("interval_s = 0", r"\[time\] interval_s.*greater than 0"),
        ("zone = 9", r"\[time\] zone` is unknown: expected interval_s, utc_offset"),
    ],
)
def test_a_flight_toml_with_a_time_that_cannot_be_is_refused(tmp_path: Path, line: str, message: str) -> None:
    folder = pictures(tmp_path / "f", "a.jpg")
    (folder / "flight.toml").write_text(f"[time]\n{line}\n")
    with pytest.raises(InputError, match=message):
        open_flight(folder)


def test_exif_times_before_drones_are_none_and_iso_is_read(tmp_path: Path) -> None:
    for name, local in (("a.jpg", "1970:01:01 00:00:00"), ("b.jpg", "2025-11-24T15:57:12")):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9003] = local
        Image.new("RGB", (8, 8)).save(tmp_path / name, exif=exif)
    times = [read_image_facts(tmp_path / name).exif_time for name in ("a.jpg", "b.jpg")]
    assert times == [None, datetime(2025, 11, 24, 15, 57, 12)]


def test_one_time_of_many_frames_is_none_of_theirs_and_is_said(tmp_path: Path) -> None:
    names = [f"{n}.jpg" for n in range(5)]
    for name in names:
        picture(tmp_path / "f" / name, local="12:00:00")
    flight = open_flight(tmp_path / "f")
    assert flight.clock.source == "index" and any("5 frames one time" in notice for notice in flight.notices)
