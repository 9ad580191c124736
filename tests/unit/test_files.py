"""Files that are there whole or not at all, and locks that name their reason."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from coarseloc.core import files
from coarseloc.core.errors import LockedError


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_in_one_step(tmp_path: Path, durable: bool):
    path = tmp_path / "파일.json"
    path.write_text("before")
    with files.replacing(path, durable=durable) as partial:
        partial.write_text("after")
        assert path.read_text() == "before" and partial.parent == tmp_path
    assert path.read_text() == "after" and list(tmp_path.iterdir()) == [path]
    files.write_text(path, "가", durable=durable)
    assert path.read_bytes() == "가".encode()


def test_after_an_error_the_file_is_as_before_and_nothing_is_left_beside_it(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text("before")
    with pytest.raises(RuntimeError), files.replacing(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_threads_may_write_the_same_file(tmp_path: Path):
    path, texts = tmp_path / "a", [str(number) * 10_000 for number in range(8)]
    threads = [threading.Thread(target=files.write_text, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts and list(tmp_path.iterdir()) == [path]


def test_a_lock_that_is_held_is_refused_with_its_message(tmp_path: Path):
    path = tmp_path / "x.lock"
    with (
        files.locked(path, "first"),
        pytest.raises(LockedError, match="in use by another"),
        files.locked(path, "in use by another"),
    ):
        raise AssertionError("it was given twice")
    with files.locked(path, "free again"):
        pass
