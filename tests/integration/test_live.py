"""`coarseloc live`: the estimates of `coarseloc track --online`, as frames come, to real readers of each format."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import av
import jsonschema
import numpy as np
import pynmea2
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin
from rtsp_camera import RtspCamera
from textured_maps import textured_map

from coarseloc.live import rtsp
from coarseloc.simulate.flight import simulate_flight
from search.export.records import LiveFrameInfo, json_schema

FLIGHT, FRAMES, FOOTPRINT_M = "251124155712", 4, 300.0
OPTIONS = ("--footprint-m", FOOTPRINT_M)
REPLAY = ("--from-start", "--max-age", "none", "--idle-stop", "0.2", *OPTIONS)


@pytest.fixture(scope="module")
def ground_map(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return textured_map(tmp_path_factory.mktemp("map") / "map.tif", seed=1)


@pytest.fixture(scope="module")
def flight(ground_map: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames with times in UTC, two seconds apart."""
    folder = simulate_flight(
        ground_map, tmp_path_factory.mktemp("flights"), flight_id=FLIGHT, frames=FRAMES, footprint_m=FOOTPRINT_M,
        side_px=160, seed=5,
    ).path  # fmt: skip
    labels = json.loads((folder / "labels.json").read_text())
    for number, image in enumerate(labels["images"]):
        image["timestamp"] = f"2025-11-24T15:57:{12 + 2 * number:02d}+09:00"
    (folder / "labels.json").write_text(json.dumps(labels))
    return folder


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def start(state: Path, source: str | Path, ground_map: Path, *options: object, **pipes: object) -> subprocess.Popen:
    command = [sys.executable, "-c", "from coarseloc.cli import main; main()", "live", "--source", source, "--map",
               ground_map, *OPTIONS, *options]  # fmt: skip
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "400"}
    return subprocess.Popen([*map(str, command)], env=environment, text=True, **pipes)


def until(reached: Callable[[], object], seconds: float = 180.0) -> None:
    due = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < due, "it did not come to that"
        time.sleep(0.02)


def test_its_estimates_are_those_of_track_online_and_each_says_how_old_it_is(coarseloc, ground_map, flight, state):
    began = datetime.now(UTC)
    result = coarseloc("live", "--source", flight, "--map", ground_map, *REPLAY, "--json")
    records = lines(result.out)
    track = coarseloc("track", flight, "--map", ground_map, "--online", *OPTIONS, "--json").json
    shared = ("frame_index", "flight_id", "relative_path", "taken_at", "track", "truth", "errors", "error")
    assert [[record[key] for key in shared] for record in records] == [
        [record[key] for key in shared] for record in track
    ]
    assert track[-1]["track"]["state"] == "tracking" and track[-1]["track"]["speed_mps"] > 10
    schema = json.loads(json_schema(LiveFrameInfo))
    for number, record in enumerate(records):
        jsonschema.validate(record, schema)
        assert (record["sequence"], record["dropped"]) == (number + 1, 0)
        arrived, estimated = (datetime.fromisoformat(record[key]) for key in ("arrived_at", "estimated_at"))
        assert began < arrived < estimated
        assert record["age_s"] == pytest.approx((estimated - arrived).total_seconds(), abs=0.5)  # two clocks
        captured = datetime(2025, 11, 24, 6, 57, 12 + 2 * number, tzinfo=UTC)
        assert datetime.fromisoformat(record["captured_at"]) == captured
        assert record["capture_age_s"] == pytest.approx((estimated - captured).total_seconds(), abs=0.01)
    assert "4 frames came: 4 were tracked (4 with a position" in " ".join(result.err.split())
    (recording,) = (state / "live").iterdir()
    assert recording.read_text() == result.out and recording.name.endswith(f"_{FLIGHT}.jsonl")


def test_a_folder_that_fills_is_followed_until_ctrl_c_which_leaves_whole_files(state, ground_map, flight, tmp_path):
    incoming, out, terrain = tmp_path / "incoming", tmp_path / "out.jsonl", tmp_path / "terrain.tif"
    with rasterio.open(ground_map) as source, rasterio.open(
        terrain, "w", driver="GTiff", width=source.width, height=source.height, count=1, dtype="float32",
        crs=source.crs, transform=source.transform,
    ) as heights:  # fmt: skip
        heights.write(np.full((1, source.height, source.width), 123.25, np.float32))
    incoming.mkdir()
    shutil.copy(flight / "labels.json", incoming)
    process = start(
        state, incoming, ground_map, "--out", out, "--nmea", "tcp:0", "--flight-id", FLIGHT, "--dem", terrain,
        stdout=subprocess.PIPE, stderr=(tmp_path / "err").open("w"),
    )  # fmt: skip
    until(lambda: "is served at tcp:" in (tmp_path / "err").read_text())
    port = int((tmp_path / "err").read_text().split("is served at tcp:127.0.0.1:")[1].split()[0])
    with socket.create_connection(("127.0.0.1", port)) as client:
        until(lambda: list((state / "live").glob("*.jsonl")))
        for index in (1, 2):
            shutil.copy(flight / f"{FLIGHT}_{index:05d}.jpg", incoming)
        (incoming / f"{FLIGHT}_00002b.jpg").write_bytes(b"no picture")
        shutil.copy(flight / f"{FLIGHT}_00003.jpg", incoming)
        until(lambda: out.exists() and len(out.read_text().splitlines()) == 3)
        process.send_signal(signal.SIGINT)
        assert process.wait(90) == 130
        sentences = client.makefile("r", encoding="ascii").read()
    records = lines(out.read_text())
    assert [(record["frame_index"], record["sequence"]) for record in records] == [(1, 1), (2, 2), (3, 4)]
    said, err = process.stdout.read(), (tmp_path / "err").read_text()
    assert "4 frames came: 3 were tracked" in said and "1 could not be read" in said
    assert f"{FLIGHT}_00002b.jpg" in err
    messages = [pynmea2.parse(line) for line in sentences.splitlines()]
    assert [message.sentence_type for message in messages] == ["GGA", "RMC", "GST"] * 3
    for record, (gga, rmc, _) in zip(records, zip(*[iter(messages)] * 3, strict=True), strict=True):
        location = record["track"]["location"]
        assert (gga.latitude, gga.longitude) == pytest.approx((location["lat"], location["lon"]), abs=2e-7)
        assert (gga.gps_qual, gga.altitude) == (8, 123.25), "of the ground, as the position is"
        assert rmc.datetime == datetime.fromisoformat(record["captured_at"])


def test_lines_of_standard_input_are_tracked_to_their_end(coarseloc, ground_map, flight, tmp_path, monkeypatch):
    first, second = (flight / f"{FLIGHT}_{index:05d}.jpg" for index in (1, 2))
    (tmp_path / "lines").write_text(f"{first}\n{json.dumps({'path': str(second)})}\nabsent.jpg")
    with (tmp_path / "lines").open() as announced:
        monkeypatch.setattr(sys, "stdin", announced)
        result = coarseloc("live", "--source", "-", "--map", ground_map, *OPTIONS, "--json", "--max-age", "none")
    records = lines(result.out)
    assert [record["track"]["state"] for record in records] == ["tracking"] * 2
    assert all(record["flight_id"] == "live" and record["captured_at"] is None for record in records)
    assert "left out: absent.jpg" in result.err and "3 frames came: 2 were tracked" in result.err


def test_a_video_is_tracked_with_the_times_of_its_subtitle(coarseloc, ground_map, flight, tmp_path):
    blocks = [
        f"{second + 1}\n00:00:{second:02d},000 --> 00:00:{second + 1:02d},000\n2025-11-24 15:57:{12 + second}\n"
        for second in range(3)
    ]
    (tmp_path / "clip.srt").write_text("\n".join(blocks))
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=1, options={"q": "2"})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 160, 160, "yuv420p", 8_000_000
        for index in (1, 2, 3):
            image = Image.open(flight / f"{FLIGHT}_{index:05d}.jpg").convert("RGB")
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())
    result = coarseloc("live", "--source", tmp_path / "clip.mp4", "--map", ground_map, "--max-age", "none",
                       "--utc-offset", "+09:00", *OPTIONS, "--json")  # fmt: skip
    records = lines(result.out)
    assert [record["track"]["state"] for record in records] == ["tracking"] * 3, result.err
    assert [record["captured_at"] for record in records] == [f"2025-11-24T06:57:{12 + second}Z" for second in range(3)]
    assert {record["flight_id"] for record in records} == {"clip"}


def test_a_camera_is_followed_over_a_loss_and_its_password_is_nowhere(
    coarseloc, ground_map, flight, state, monkeypatch, tmp_path
):
    pictures = [np.asarray(Image.open(flight / f"{FLIGHT}_{index:05d}.jpg").convert("RGB")) for index in (1, 2, 3)]
    camera = RtspCamera([[pictures[0], *pictures[:2]], [pictures[2]] * 2], user_password="pilot:s3cret")
    monkeypatch.setattr(rtsp, "FIRST_PAUSE_S", 0.05)
    slept_s = [0.0]  # an hour at once, after the camera has sent all

    def sleep(seconds: float) -> None:
        time.sleep(seconds)
        slept_s[0] += 3600.0 * camera.has_sent_all

    monkeypatch.setattr(rtsp, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + slept_s[0], sleep=sleep))
    monkeypatch.setenv("COARSELOC_LIVE_SOURCE", f"rtsp://pilot:s3cret@127.0.0.1:{camera.port}/nadir?key=s3cret")
    dem = tmp_path / "away.tif"
    with rasterio.open(dem, "w", driver="GTiff", width=2, height=2, count=1, dtype="float32", crs="EPSG:4326",
                       transform=from_origin(0, 0, 1, 1)) as heights:  # fmt: skip
        heights.write(np.zeros((1, 2, 2), np.float32))
    result = coarseloc("live", "--map", ground_map, "--idle-stop", "3000", "--max-age", "600", *OPTIONS, "--json",
                       "--dem", dem, "--clock", "arrival", "--nmea", "udp:9")  # fmt: skip
    records = lines(result.out)
    assert [record["track"]["state"] for record in records] == ["tracking"] * 3, result.err
    assert [record["relative_path"] for record in records] == [f"nadir#{number:06d}" for number in (1, 2, 4)]
    said = " ".join(result.err.split())
    assert "/nadir is lost: it ended the stream" in said and "is there again after" in said
    assert said.count("heights are left empty") == 1 and "has none where frame 1 lies" in said
    written = [path.read_bytes() for path in state.rglob("*") if path.is_file()]
    assert written and not any(b"s3cret" in text for text in [*written, result.out.encode(), result.err.encode()])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--dem", "none.tif"), "--dem gives heights to --nmea and --mavlink"),
        (("--nmea", "tcp:0"), "NMEA needs the time of every frame in UTC"),
        (("--nmea", "10110"), "is no endpoint"),
        (("--max-age", "0"), "expected seconds, such as 2, or none"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_tracked(
    coarseloc, ground_map, flight, tmp_path, state, options, message
):
    shutil.copy(flight / f"{FLIGHT}_00001.jpg", tmp_path / f"{FLIGHT}_00001.jpg")
    (tmp_path / "frames").mkdir()
    (tmp_path / f"{FLIGHT}_00001.jpg").rename(tmp_path / "frames" / f"{FLIGHT}_00001.jpg")
    result = coarseloc("live", "--source", tmp_path / "frames", "--map", ground_map, *REPLAY, *options)
    assert result.code == 2 and message in " ".join(result.err.split())
    assert [path.read_text() for path in state.glob("live/*")] in ([], [""])


def test_a_source_that_is_not_there_is_refused(coarseloc, ground_map, tmp_path):
    result = coarseloc("live", "--source", tmp_path / "nowhere", "--map", ground_map)
    assert result.code == 2 and "expected a folder that fills, a video, rtsp://…, or -" in " ".join(result.err.split())
    result = coarseloc("live", "--source", "http://pilot:s3cret@host/a", "--map", ground_map)
    assert result.code == 2 and "http://host/a" in result.err and "s3cret" not in result.err
