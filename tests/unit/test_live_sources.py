"""Where live frames come from, and which are dropped."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coarseloc.core.types import Frame, LonLat
from coarseloc.imagery.arriving import ArrivingFlight
from coarseloc.live import sources
from coarseloc.live.backlog import Arrival, ArrivalTime, ArrivedFrame, Backlog, UnreadableFrame
from coarseloc.live.sources import FolderSource, LineSource

PIXELS = np.zeros((8, 8, 3), np.uint8)


def jpeg(seed: int = 0) -> bytes:
    content = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(content, "JPEG", quality=95)
    return content.getvalue()


def arrived(index: int, age_s: float = 0.0) -> ArrivedFrame:
    came = ArrivalTime(datetime.now(UTC) - timedelta(seconds=age_s), time.monotonic() - age_s)
    return ArrivedFrame(Frame(index, Path(f"{index}.jpg"), f"{index}.jpg"), PIXELS, came)


def taken(backlog: Backlog) -> Iterator[Arrival]:
    while (numbered := backlog.take()) is not None:
        yield numbered.arrival


# --- the latency budget ---------------------------------------------------------------------------


def test_frames_older_than_the_budget_are_dropped_and_counted_but_never_the_newest():
    backlog = Backlog(max_age_s=2.0)
    for index, age_s in ((1, 9.0), (2, 8.0), (3, 7.0)):
        backlog.put(arrived(index, age_s))
    backlog.end()
    numbered = backlog.take()
    assert numbered is not None and numbered.number == 3 and numbered.arrival.frame.index == 3  # type: ignore[union-attr]
    assert (backlog.arrived, backlog.dropped, backlog.take()) == (3, 2, None)


def test_frames_within_the_budget_all_come_in_their_order():
    backlog = Backlog(max_age_s=60.0)
    for index in range(1, 9):
        backlog.put(arrived(index))
    backlog.end()
    assert [frame.frame.index for frame in taken(backlog)] == list(range(1, 9)) and backlog.dropped == 0  # type: ignore[union-attr]


def test_without_a_budget_the_source_waits_and_nothing_is_dropped():
    backlog = Backlog(max_age_s=None)

    def fill() -> None:
        for index in range(1, 13):
            backlog.put(arrived(index, age_s=100.0))
        backlog.end()

    thread = threading.Thread(target=fill)
    thread.start()
    numbers = [frame.frame.index for frame in taken(backlog)]  # type: ignore[union-attr]
    thread.join(5)
    assert numbers == list(range(1, 13)) and backlog.dropped == 0


def test_an_error_of_the_source_is_raised_where_frames_are_taken():
    backlog = Backlog(max_age_s=None)
    backlog.put(arrived(1))
    backlog.end(OSError("the card was pulled"))
    assert backlog.take() is not None
    with pytest.raises(OSError, match="card was pulled"):
        backlog.take()


# --- a folder -------------------------------------------------------------------------------------


class Looks:
    """The source's clock, which a pause alone moves on: at each the next step of a script is taken."""

    def __init__(self, script: Iterator[None]) -> None:
        self.now_s, self._script = 0.0, script

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        next(self._script, None)


def test_a_half_written_picture_is_waited_for_and_a_broken_one_is_said_in_its_place(tmp_path, monkeypatch):
    (tmp_path / "f_00001.jpg").write_bytes(jpeg(1))  # before it begins: not new
    source = FolderSource(ArrivingFlight(tmp_path, flight_id="f"), tmp_path, idle_stop_s=0.5)
    whole_s = []

    def camera() -> Iterator[None]:
        content = jpeg(2)
        with (tmp_path / "f_00002.jpg").open("wb") as file:
            for start in range(0, len(content), len(content) // 4):
                yield
                whole_s.append(time.monotonic())
                file.write(content[start : start + len(content) // 4])
                file.flush()
        (tmp_path / "f_00003.jpg").write_bytes(content[: len(content) // 2])
        (tmp_path / "f_00004.jpg").write_bytes(jpeg(4))
        (tmp_path / ".f_00005.jpg").write_bytes(jpeg(5))

    monkeypatch.setattr(sources, "time", Looks(camera()))
    whole, broken, last = source.arrivals(lambda: False)
    assert isinstance(whole, ArrivedFrame) and whole.frame.index == 2
    assert np.array_equal(whole.pixels, np.asarray(Image.open(io.BytesIO(jpeg(2)))))
    assert whole.arrived.monotonic_s < whole_s[-1], "it came when it was first seen, not when it was whole"
    assert isinstance(broken, UnreadableFrame) and "f_00003.jpg" in broken.reason
    assert isinstance(last, ArrivedFrame) and last.frame.index == 4


def test_what_came_while_a_frame_waited_to_be_taken_comes_before_the_idle_end(tmp_path, monkeypatch):
    (tmp_path / "f_00001.jpg").write_bytes(jpeg(1))
    looks = Looks(iter(()))
    monkeypatch.setattr(sources, "time", looks)
    source = FolderSource(ArrivingFlight(tmp_path, flight_id="f"), tmp_path, from_start=True, idle_stop_s=0.5)
    arrivals = source.arrivals(lambda: False)
    assert next(arrivals).frame.index == 1  # type: ignore[union-attr]
    looks.now_s += 100.0
    (tmp_path / "f_00002.jpg").write_bytes(jpeg(2))
    assert [arrival.frame.index for arrival in arrivals] == [2]  # type: ignore[union-attr]


def test_from_the_start_frames_come_in_their_natural_order_with_what_labels_say_so_far(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "POLL_S", 0.01)
    for index in (9, 10):
        (tmp_path / f"DJI_{index}.jpg").write_bytes(jpeg(index))
    label = {"imageref": "DJI_9.jpg", "position": {"latitude": 37.5, "longitude": 127.0, "altitude": 300.0}}
    (tmp_path / "labels.json").write_text(json.dumps({"images": [label]}))
    source = FolderSource(ArrivingFlight(tmp_path), tmp_path, from_start=True, idle_stop_s=0.2)
    arrivals = source.arrivals(lambda: False)
    first = next(arrivals)
    (tmp_path / "labels.json").write_text('{"images": [{"imageref": "DJI_10')  # just being written
    second = next(arrivals)
    assert isinstance(first, ArrivedFrame) and isinstance(second, ArrivedFrame)
    assert (first.frame.index, second.frame.index) == (9, 10)
    assert first.frame.truth.location == LonLat(127.0, 37.5) and first.frame.truth.altitude_label_m == 300.0
    assert source.flight.truth_source == "labels" and second.frame.truth.location is None


def test_a_stamp_in_names_is_a_time_once_it_differs_and_the_flights_start_is_none(tmp_path):
    flight = ArrivingFlight(tmp_path, flight_id="survey")
    for second in (1, 2, 3):
        (tmp_path / f"cam_20260101_12000{second}Z.jpg").write_bytes(jpeg(second))
    frames = [flight.file_frame(tmp_path / f"cam_20260101_12000{second}Z.jpg") for second in (1, 2, 3)]
    assert [frame.time for frame in frames] == [None, datetime(2026, 1, 1, 12, 0, 2), datetime(2026, 1, 1, 12, 0, 3)]
    assert flight.flight.clock.to_utc(frames[1].time, "NMEA") == datetime(2026, 1, 1, 12, 0, 2, tzinfo=UTC)
    named = ArrivingFlight(tmp_path, flight_id="251124155712")
    paths = [tmp_path / f"251124155712_{index:05d}.jpg" for index in (1, 2)]
    for path in paths:
        path.write_bytes(jpeg())
    assert [named.file_frame(path).time for path in paths] == [None, None]


# --- standard input -------------------------------------------------------------------------------


def test_lines_are_paths_or_json_and_what_is_neither_is_said(tmp_path):
    for index in (1, 2):
        (tmp_path / f"{index}.jpg").write_bytes(jpeg(index))
    second = {"path": str(tmp_path / "2.jpg"), "taken_at": "2026-01-01T12:00:00+09:00", "yaw": 45, "altitude": 300}
    lines = [str(tmp_path / "1.jpg"), "", json.dumps(second), '{"path": "x", "height": 1}', "{broken", "absent.jpg"]
    reader, writer = os.pipe()
    os.write(writer, "\n".join(lines).encode())
    os.close(writer)
    source = LineSource(ArrivingFlight(None), reader)
    first, announced, *rest = source.arrivals(lambda: False)
    os.close(reader)
    assert isinstance(first, ArrivedFrame) and (first.frame.index, first.frame.time) == (1, None)
    assert isinstance(announced, ArrivedFrame)
    assert announced.frame.truth.yaw_deg == 45 and announced.frame.truth.above_ground_m == 300
    utc = source.flight.clock.to_utc(announced.frame.time, "NMEA")
    assert utc == datetime(2026, 1, 1, 3, tzinfo=UTC)
    reasons = [arrival.reason for arrival in rest if isinstance(arrival, UnreadableFrame)]
    assert len(reasons) == 3
    assert "height" in reasons[0] and "no JSON" in reasons[1] and "absent.jpg" in reasons[2]
