"""A small capture tree in the users' layout, stores in a temporary folder, and the command line over both."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from databases import database_url, environment_of
from PIL import Image

from coarseloc import cli
from coarseloc.core import geo
from coarseloc.core.types import LonLat
from coarseloc.store import Database, open_database
from coarseloc.vectors import open_store
from coarseloc.vectors.protocol import VectorStore

STAMP = "251210182149"
ORIGIN = LonLat(127.03, 37.50)
STRIDE_M = 150.0


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """An empty one: SQLite, or PostgreSQL where COARSELOC_TEST_DATABASE_URL names one; commands find the same."""
    for name, value in environment_of(tmp_path / "state").items():
        monkeypatch.setenv(name, value)
    database = open_database(database_url(tmp_path / "state"))
    yield database
    database.close()


@pytest.fixture
def vectors(tmp_path: Path, db: Database) -> Iterator[VectorStore]:
    store = open_store(tmp_path / "state", db.identity)
    yield store
    store.close()


@pytest.fixture
def make_captures(tmp_path: Path) -> Callable[..., Path]:
    """`make_captures(columns, rows, angles)`: 300 m, 50 % overlap, pictures that differ, labels beside them."""

    def make(columns: int = 3, rows: int = 2, angles: Sequence[int] = (0, 45), name: str = "captures") -> Path:
        root = tmp_path / name
        for angle in angles:
            capture = f"{STAMP}_300_50_0_{angle:03d}"
            (root / capture).mkdir(parents=True)
            labels = []
            for index in range(1, columns * rows + 1):
                row, column = divmod(index - 1, columns)
                centre = geo.offset(ORIGIN, column * STRIDE_M, -row * STRIDE_M)
                filename = f"{capture}_{index:05d}.jpg"
                rng = np.random.default_rng([index, angle])
                pixels = np.kron(rng.integers(0, 256, (8, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
                Image.fromarray(pixels).save(root / capture / filename, quality=95)
                position = {"x": None, "longitude": centre.lon, "latitude": centre.lat, "altitude": 300.0}
                labels.append({"imageref": filename, "position": position, "attitude": {"yaw": float(angle)}})
            (root / f"{capture}.json").write_text(json.dumps({"images": labels}), encoding="utf-8-sig")
        return root

    return make


# --- the command line -----------------------------------------------------------------------------


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self):
        assert self.code == 0, self.err
        return json.loads(self.out)


@pytest.fixture
def state(tmp_path: Path, tiny_dinov3: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder that knows the backbone `tiny`, in the environment; its database as in `db`."""
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "coarseloc.toml").write_text(f'input_px = 32\n[[backbones]]\nname = "tiny"\npath = "{tiny_dinov3}"\n')
    monkeypatch.setenv("COARSELOC_DATA_DIR", str(folder))
    for name, value in environment_of(folder).items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.fixture
def coarseloc(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Result]:
    """Run a command as the console script does; an exit other than by the script's own hand fails the test."""

    def run(*args: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["coarseloc", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Result(int(stop.value.code or 0), out, err)

    return run


@pytest.fixture
def flight(tmp_path: Path, make_captures: Callable[..., Path]) -> Path:
    """Four frames, each the very picture of a 000 reference, with labels."""
    source = next(make_captures().glob("*_000"))
    folder = tmp_path / "flights" / "251124155712"
    folder.mkdir(parents=True)
    labels = json.loads((source.parent / f"{source.name}.json").read_text(encoding="utf-8-sig"))["images"]
    made = []
    for index in range(1, 5):
        name = f"251124155712_{index:05d}.jpg"
        (folder / name).write_bytes((source / labels[index - 1]["imageref"]).read_bytes())
        made.append({**labels[index - 1], "imageref": name})
    (folder / "labels.json").write_text(json.dumps({"images": made}))
    return folder


@pytest.fixture
def ingested(coarseloc: Callable[..., Result], flight: Path, tmp_path: Path) -> Path:
    """The capture tree, ingested with `tiny`."""
    root = tmp_path / "captures"
    assert coarseloc("ingest", "captures", root, "--backbone", "tiny").code == 0
    return root
