"""The state of a tree of captures: every change that opening it could see gives another."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from coarseloc.imagery.tree_state import tree_state

CAPTURE = "251210182149_300_50_0_000"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "captures" / CAPTURE
    folder.mkdir(parents=True)
    for index in (1, 2):
        (folder / f"{CAPTURE}_{index:05d}.jpg").write_bytes(b"a picture")
    (folder.parent / "labels.json").write_text("{}")
    (folder.parent / "others" / "deep").mkdir(parents=True)
    (folder.parent / "others" / "readme.txt").write_text("")
    return folder.parent


def picture(root: Path) -> Path:
    return root / CAPTURE / f"{CAPTURE}_00002.jpg"


def label(root: Path) -> Path:
    return root / "labels.json"


def rewrite(path: Path) -> None:
    """Other bytes in a file of the same size and time of modification."""
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=times)


def replace(path: Path) -> None:
    shutil.copy2(path, path.with_name("copy")).replace(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "a picture rewritten in its size and time": lambda root: rewrite(picture(root)),
    "another file in a picture's place": lambda root: replace(picture(root)),
    "a picture touched": lambda root: picture(root).touch(),
    "a picture gone": lambda root: picture(root).unlink(),
    "a picture under another name": lambda root: picture(root).rename(picture(root).with_suffix(".jpeg")),
    "a picture more": lambda root: picture(root).with_suffix(".png").touch(),
    "a label rewritten in its size and time": lambda root: rewrite(label(root)),
    "a label touched": lambda root: label(root).touch(),
    "a label file gone": lambda root: label(root).unlink(),
    "a label file more": lambda root: (root / CAPTURE / "more.JSON").touch(),
    "a capture more": lambda root: (root / "251210182149_300_50_0_090").mkdir(),
    "a capture under another name": lambda root: (root / CAPTURE).rename(root / f"{CAPTURE[:-3]}045"),
    "a folder more": lambda root: (root / "raw").mkdir(),
    "a picture in a folder that is no capture": lambda root: (root / "others" / picture(root).name).touch(),
    "a folder in a capture": lambda root: (root / CAPTURE / "raw").mkdir(),
    "a picture in a folder of a folder": lambda root: (root / "others" / "deep" / "more.jpg").touch(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_gives_another_state(root: Path, change: Callable[[Path], object]):
    before = tree_state(root, None)
    assert before is not None and before == tree_state(root, None)
    change(root)
    after = tree_state(root, None)
    assert after is not None and after.digest != before.digest


def test_the_newest_time_is_that_of_the_latest_change(root: Path):
    os.utime(picture(root), ns=(1, 1))  # of modification: that of the change is now
    for path in (picture(root), label(root)):
        path.touch()
        state = tree_state(root, None)
        assert state is not None and state.newest_ns == path.stat().st_ctime_ns


def test_a_named_label_file_and_the_pictures_beside_it_are_looked_at(root: Path, tmp_path: Path):
    labels = tmp_path / "beside" / "truth.json"
    labels.parent.mkdir()
    labels.write_text("{}")
    states = [tree_state(root, labels)]
    rewrite(labels)
    states.append(tree_state(root, labels))
    (labels.parent / picture(root).name).touch()
    states.append(tree_state(root, labels))
    assert len({state.digest for state in states if state}) == 3
    assert states[0] and states[0].newest_ns <= states[1].newest_ns  # type: ignore[union-attr]


def test_what_cannot_be_told_has_no_state(root: Path):
    assert tree_state(root / CAPTURE, None) is None, "captures beside it may name its tiles"
    assert tree_state(root / "gone", None) is None and tree_state(root, root / "gone.json") is None
    (root / "nowhere.json").symlink_to("gone")
    assert tree_state(root, None) is None
