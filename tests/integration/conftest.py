"""A small capture tree in the users' layout, and stores in a temporary folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coarseloc import geo
from coarseloc.store import Database, open_database
from coarseloc.store.session import open_engine
from coarseloc.types import LonLat, VectorStore
from coarseloc.vectors import open_store

STAMP = "251210182149"
ORIGIN = LonLat(127.03, 37.50)
STRIDE_M = 150.0


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """SQLite, or an empty schema of the PostgreSQL database that COARSELOC_TEST_DATABASE_URL names."""
    server = os.environ.get("COARSELOC_TEST_DATABASE_URL")
    if server:
        with open_engine(server).begin() as connection:
            connection.exec_driver_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    database = open_database(server or f"sqlite:///{tmp_path / 'state' / 'coarseloc.db'}")
    yield database
    database.close()


@pytest.fixture
def vectors(tmp_path: Path) -> Iterator[VectorStore]:
    store = open_store(tmp_path / "state")
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
