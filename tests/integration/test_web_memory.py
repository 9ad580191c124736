"""What a server holds does not grow with writes, uploads and requests."""

from __future__ import annotations

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


def test_two_pictures_at_most_are_decoded_at_once(monkeypatch):
    inside, most, lock = 0, 0, threading.Lock()

    def decode(*_: object) -> np.ndarray:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.02)
        with lock:
            inside -= 1
        return np.zeros((1, 1, 3), np.uint8)

    monkeypatch.setattr(images, "decode_image", decode)
    monkeypatch.setattr(images, "_", str)
    threads = [threading.Thread(target=images.decode_upload, args=(b"x",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2


def test_renditions_go_with_the_upload_they_were_made_of(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_UPLOADS", 2)
    for number in range(4):
        (tmp_path / f"{number:032x}").write_bytes(b"x")
        (tmp_path / f"{number:032x}-640.jpg").write_bytes(b"x")
        time.sleep(0.01)
    images._drop_oldest(tmp_path)
    assert sorted(path.name[31] for path in tmp_path.iterdir()) == ["2", "2", "3", "3"]
