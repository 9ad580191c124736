"""Frames of a video, and what the subtitle beside it says."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

import av
import numpy as np
import pytest

from coarseloc.core.errors import InputError
from coarseloc.core.types import LonLat
from coarseloc.imagery.arriving import ArrivingFlight
from coarseloc.imagery.subtitles import moment_at, read_subtitle
from coarseloc.live.backlog import ArrivedFrame
from coarseloc.live.video import VideoSource

SUBTITLE = """1
00:00:00,000 --> 00:00:01,000
<font size="28">FrameCnt: 1, DiffTime: 33ms
2025-11-24 15:57:12.500
[iso: 100] [latitude: 37.5] [longitude: 129.0] [rel_alt: 120.1 abs_alt: 158.3]
[gb_yaw: 30.0 gb_pitch: -90.0 gb_roll: 0.0]</font>

2
00:00:01,000 --> 00:00:02,000
2025.11.24 15:57:13
GPS(129.001,37.501,19) BAROMETER:99.9
"""


def video(path: Path, frames: int = 20, rate: int = 10) -> Path:
    """Two seconds; each frame is brighter than the one before."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            pixels = np.full((48, 64, 3), 10 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_a_frame_each_interval_comes_with_what_the_subtitle_says_of_its_moment(tmp_path: Path):
    path = video(tmp_path / "DJI_0001.MP4")
    path.with_suffix(".SRT").write_text(SUBTITLE)
    source = VideoSource(ArrivingFlight(tmp_path, flight_id="clip"), path, every_s=0.5, paced=False)
    arrivals = [arrival for arrival in source.arrivals(lambda: False) if isinstance(arrival, ArrivedFrame)]
    assert [arrival.frame.index for arrival in arrivals] == [1, 5, 10, 15]
    assert [round(float(arrival.pixels.mean()) / 10) for arrival in arrivals] == [0, 5, 10, 15]
    first, *_, last = (arrival.frame for arrival in arrivals)
    assert first.truth.location == LonLat(129.0, 37.5) and last.truth.location == LonLat(129.001, 37.501)
    assert (first.truth.altitude_label_m, first.truth.altitude_datum) == (120.1, "takeoff")
    assert first.truth.yaw_deg == pytest.approx(30.0) and first.truth.pitch_deg == pytest.approx(0.0)
    assert (first.time, last.time) == (datetime(2025, 11, 24, 15, 57, 12, 500_000), datetime(2025, 11, 24, 15, 57, 13))
    assert first.relative_path == "DJI_0001.MP4#000000"


def test_a_moment_before_the_first_and_one_without_satellites_say_nothing(tmp_path: Path):
    path = tmp_path / "a.srt"
    path.write_text("1\n00:00:01,000 --> 00:00:02,000\n[latitude: 0.0] [longitude: 0.0]\n")
    (moment,) = read_subtitle(path)
    assert moment_at([moment], 0.5) is None and moment_at([moment], 1.0) == moment
    assert moment.pose.location is None and moment.time is None


def test_what_is_no_video_is_refused_and_so_is_a_video_without_the_extra(tmp_path: Path, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match="cannot be read as a video"):
        VideoSource(ArrivingFlight(tmp_path), tmp_path / "a.mp4", every_s=1.0, paced=False)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match="extra `video`"):
        VideoSource(ArrivingFlight(tmp_path), tmp_path / "a.mp4", every_s=1.0, paced=False)
