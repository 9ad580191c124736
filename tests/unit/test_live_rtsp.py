"""A camera that is asked for by RTSP: what comes of it, its losses, and what is never told."""

from __future__ import annotations

import re

import numpy as np
import pytest
from rtsp_camera import RtspCamera

from coarseloc.core.errors import InputError
from coarseloc.imagery.arriving import ArrivingFlight
from coarseloc.live import rtsp
from coarseloc.live.backlog import ArrivedFrame
from coarseloc.live.rtsp import RtspSource, shown_address, stream_name

BLACK = np.zeros((96, 128, 3), np.uint8)
GREYS = [np.full((96, 128, 3), 40 * number, np.uint8) for number in range(1, 6)]


def open_camera(camera: RtspCamera, notices: list[str], userinfo: str = "", **options: float) -> RtspSource:
    address = f"rtsp://{userinfo}127.0.0.1:{camera.port}/main"
    return RtspSource(ArrivingFlight(None), address, every_s=2.0, notice=notices.append, **options)


def test_a_frame_each_interval_comes_and_a_lost_camera_is_connected_to_again_with_a_word(monkeypatch):
    monkeypatch.setattr(rtsp, "FIRST_PAUSE_S", 0.05)
    notices: list[str] = []
    camera = RtspCamera([[BLACK, *GREYS], [BLACK, GREYS[0]]], user_password="pilot:s 3cret")
    source = open_camera(camera, notices, "pilot:s%203cret@")
    arrivals = list(source.arrivals(lambda: len(notices) > 2))  # lost, there again, lost
    assert [round(float(arrival.pixels.mean()) / 40) for arrival in arrivals if isinstance(arrival, ArrivedFrame)] == [
        1, 3, 5, 1,
    ]  # fmt: skip
    paths = [arrival.frame.relative_path for arrival in arrivals if isinstance(arrival, ArrivedFrame)]
    assert paths == ["main#000001", "main#000003", "main#000005", "main#000007"]
    shown = f"rtsp://127.0.0.1:{camera.port}/main"
    assert notices[0] == f"{shown} is lost: it ended the stream. It is connected to again until it answers"
    assert re.fullmatch(rf"{re.escape(shown)} is there again after \d+\.\d s", notices[1]) and len(notices) == 3
    assert [request.split()[0] for request in camera.requests][-4:] == ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"]


def test_a_camera_that_falls_silent_is_lost_after_the_timeout():
    notices: list[str] = []
    camera = RtspCamera([GREYS], silent=True)
    source = open_camera(camera, notices, open_timeout_s=2.0, read_timeout_s=0.2)
    assert list(source.arrivals(lambda: len(notices) > 0)) == []
    camera.close()
    assert notices and "is lost: nothing came for 0.2 s" in notices[0]


def test_a_camera_that_refuses_is_told_without_the_password():
    camera = RtspCamera([GREYS], user_password="pilot:s3cret")
    with pytest.raises(InputError) as refused:
        open_camera(camera, [], "pilot:wr0ng@")
    assert str(refused.value) == (
        f"rtsp://127.0.0.1:{camera.port}/main cannot be read: Server returned 401 Unauthorized (authorization failed)"
    )
    camera.close()
    with pytest.raises(InputError, match="/main cannot be read: "):
        open_camera(camera, [], "pilot:wr0ng@")


def test_an_address_is_shown_without_user_password_and_query():
    address = "rtsp://pilot:p%40ss@camera.example:8554/live/ch1?token=s3cret"
    assert shown_address(address) == "rtsp://camera.example:8554/live/ch1" and stream_name(address) == "ch1"
    assert stream_name("rtsp://pilot:s3cret@10.0.0.7") == "10.0.0.7"
