"""What a server holds does not grow with writes, uploads and requests."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest

from web.pages import images
from web.state import ResultCache


def test_of_each_key_the_latest_version_alone_is_kept():
    memory = ResultCache()
    for generation in range(60):
        assert memory.recall("mirror", lambda made=generation: made, generation) == generation
    assert memory.recall("mirror", lambda: pytest.fail("made again"), 59) == 59
    assert len(memory._values) == 1


def test_no_more_pixels_are_decoded_at_once_than_the_budget_has(monkeypatch):
    inside, most, lock = 0, 0, threading.Lock()
    sizes = [(6_000, 7_000), (4_000, 5_000), (4_000, 5_000), (1_000, 1_000), (20_000, 10_000), (5_000, 5_000)]

    def decode(data: bytes, *_: object) -> np.ndarray:
        nonlocal inside, most
        width, height = sizes[data[0]]
        with lock:
            inside += width * height
            most = max(most, min(inside, 10**9) if inside > width * height else 0)  # of several at once
        until = time.monotonic() + 5.0  # at most, where no other comes
        while most <= 20_000_000 and width * height < images.AT_ONCE_PX and time.monotonic() < until:
            time.sleep(0.001)  # several are to be here at once
        time.sleep(0.005)
        with lock:
            inside -= width * height
        return np.zeros((1, 1, 3), np.uint8)

    monkeypatch.setattr(images, "decode_image", decode)
    monkeypatch.setattr(images, "picture_size", lambda data: sizes[data[0]])
    monkeypatch.setattr(images, "_", str)

    def decode_upload(number: int) -> None:
        with images.decoded_upload(bytes([number % len(sizes)])):
            pass

    decoders = [threading.Thread(target=decode_upload, args=(number,)) for number in range(18)]
    for thread in decoders:
        thread.start()
    for thread in decoders:
        thread.join()
    assert 20_000_000 < most <= images.AT_ONCE_PX


def test_a_failed_picture_gives_its_pixels_back():
    budget = images.PixelBudget(100)
    for _ in range(5):
        with pytest.raises(ZeroDivisionError), budget.hold((10, 10)):
            1 / 0  # noqa: B018
    with budget.hold((1_000, 1_000)), budget.hold(None):  # alone, beside what has no pixels
        pass
    with budget.hold((5, 10)), budget.hold((5, 10)):
        pass


def test_renditions_are_dropped_oldest_first_where_they_take_too_much(tmp_path):
    for number in range(6):
        path = tmp_path / f"{number:02x}" / f"{number:02x}.jpg"
        path.parent.mkdir()
        path.write_bytes(bytes(1_000))
        os.utime(path, ns=(0, number * 10**9))
    images.drop_renditions(tmp_path, 6_000)
    assert len(list(tmp_path.glob("??/*.jpg"))) == 6
    images.drop_renditions(tmp_path, 2_500)
    assert sorted(path.stem for path in tmp_path.glob("??/*.jpg")) == ["04", "05"]


def test_renditions_go_with_the_upload_they_were_made_of(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_UPLOADS", 2)
    for number in range(4):
        (tmp_path / f"{number:032x}").write_bytes(b"x")
        (tmp_path / f"{number:032x}-640.jpg").write_bytes(b"x")
        time.sleep(0.01)
    images._drop_oldest(tmp_path)
    assert sorted(path.name[31] for path in tmp_path.iterdir()) == ["2", "2", "3", "3"]
