"""Real nodes of Qdrant, killed: where COARSELOC_TEST_QDRANT_BIN names its binary. What starts and kills them is held
without it too, by a stand-in."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import numpy as np
import pytest
from qdrant_servers import BINARY, QdrantNode, cluster

from coarseloc.core.errors import VectorStoreError, VectorStoreUnavailable
from coarseloc.core.types import Point
from coarseloc.vectors.server import ServerStore
from coarseloc.vectors.server_errors import Backoff

DIM, NAME = 16, "nodes-1234"
QUICK = Backoff(tries=3, first_s=0.1, longest_s=0.2)
MakePoints = Callable[..., list[Point]]
real = pytest.mark.skipif(not BINARY, reason="COARSELOC_TEST_QDRANT_BIN is not set")

STAND_IN = """
import os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
if "--fail" in sys.argv:
    sys.exit("no such disk")
class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b" ".join(word.encode() for word in sys.argv[1:]))
    def log_message(self, *_): pass
assert os.path.samefile(os.path.dirname(os.environ["QDRANT__STORAGE__STORAGE_PATH"]), os.getcwd())
HTTPServer(("127.0.0.1", int(os.environ["QDRANT__SERVICE__HTTP_PORT"])), Answers).serve_forever()
"""


def test_a_node_is_started_killed_and_started_again(tmp_path: Path) -> None:
    first = QdrantNode([sys.executable, "-c", STAND_IN], tmp_path / "first", in_cluster=True)
    node = QdrantNode([sys.executable, "-c", STAND_IN], tmp_path / "second", first, in_cluster=True)
    for _ in range(2):
        node.start()
        assert httpx.get(node.url).text == f"--uri {node.peer_url} --bootstrap {first.peer_url}"
        node.kill()
        with pytest.raises(httpx.ConnectError):
            httpx.get(node.url)


def test_a_node_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no such disk"):
        QdrantNode([sys.executable, "-c", STAND_IN, "--fail"], tmp_path / "node").start()


# --- real ones ----------------------------------------------------------------------------------


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[QdrantNode]]:
    with cluster(tmp_path) as running:
        yield running


def open_nodes(nodes: list[QdrantNode], database: str) -> ServerStore:
    url = ",".join(node.url for node in nodes)
    return ServerStore(url, database, timeout=5, shard_number=3, replication_factor=2, backoff=QUICK)


@real
def test_one_of_three_nodes_killed_amid_writes_loses_nothing(nodes: list[QdrantNode], make_points: MakePoints) -> None:
    points = make_points(240)
    with open_nodes(nodes, uuid4().hex) as store:
        store.ensure(NAME, DIM)
        store.upsert(NAME, points[:120])
        before = store.query(NAME, points[7].vector, 5)
        nodes[0].kill()
        assert store.query(NAME, points[7].vector, 5) == before
        store.upsert(NAME, points[120:])
        assert store.count(NAME) == 240 and store.unreachable() == [nodes[0].url]
        nodes[0].start()
        deadline = time.monotonic() + 60
        while store.unreachable() and time.monotonic() < deadline:
            time.sleep(0.2)
        vectors = store.vectors(NAME, [point.id for point in points])
        assert all(np.allclose(vectors[point.id], point.vector, atol=1e-6) for point in points)


@real
def test_two_of_three_nodes_down_is_said_with_the_nodes_to_start(
    nodes: list[QdrantNode], make_points: MakePoints
) -> None:
    points = make_points(60)
    with open_nodes(nodes, uuid4().hex) as store:
        store.ensure(NAME, DIM)
        store.upsert(NAME, points)
        nodes[0].kill()
        nodes[1].kill()
        assert store.unreachable() == [nodes[0].url, nodes[1].url]
        with pytest.raises(VectorStoreUnavailable, match="Start the nodes of the cluster that are down"):
            store.upsert(NAME, points)


@real
def test_a_server_with_a_key_refuses_another_and_names_the_setting(tmp_path: Path) -> None:
    node = QdrantNode([str(BINARY)], tmp_path / "node", api_key="a-key-of-its-own")
    node.start()
    try:
        with ServerStore(node.url, uuid4().hex, "a-key-of-its-own", timeout=5) as store:
            assert store.collections() == []
        for key in (None, "another-key"):
            with (
                pytest.raises(VectorStoreError, match="COARSELOC_QDRANT_API_KEY"),
                ServerStore(node.url, uuid4().hex, key, timeout=5) as store,
            ):
                store.collections()
    finally:
        node.kill()
