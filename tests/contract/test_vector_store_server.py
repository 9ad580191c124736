"""A server's bad days, on loopback: what is tried again, what is not, and what the user is told."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import numpy as np
import pytest
from qdrant_client.http.exceptions import UnexpectedResponse

from coarseloc.core.errors import VectorStoreError, VectorStoreUnavailable
from coarseloc.core.types import Point
from coarseloc.vectors.payload import INDEXES
from coarseloc.vectors.server import ServerStore
from coarseloc.vectors.server_errors import Backoff, clear_errors

DIM = 16
NAME = "area-1234"
DATABASE = "0123456789abcdef0123456789abcdef"
QUICK = Backoff(tries=4, first_s=0.01, longest_s=0.02)
VERSION = {"title": "qdrant - vector search engine", "version": "1.15.0"}
PARAMS = {"params": {"vectors": {"size": DIM, "distance": "Dot"}}}
REST = {"hnsw_config": {"m": 0, "ef_construct": 100, "full_scan_threshold": 10}, "wal_config": None}
OPTIMIZER = {"deleted_threshold": 0.2, "vacuum_min_vector_number": 1, "default_segment_number": 0}
INFO = {
    "status": "green",
    "optimizer_status": "ok",
    "segments_count": 1,
    "config": {**PARAMS, **REST, "optimizer_config": {**OPTIMIZER, "flush_interval_sec": 5}},
    "payload_schema": {},
}


@dataclass
class Script:
    """What the false server answers to writes and searches, one item a request; after the last it is well."""

    answers: list[Any] = field(default_factory=list)  # a status, a delay in seconds, a body, or "hang up"
    calls: list[str] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    url: str = ""


@pytest.fixture
def server() -> Iterator[Script]:
    with scripted_server() as script:
        yield script


@contextmanager
def scripted_server() -> Iterator[Script]:
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            script.keys.add(self.headers.get("api-key"))
            if self.path == "/":
                self.reply(200, VERSION)
            elif self.path.endswith("/exists"):
                self.reply(200, {"result": {"exists": False}})
            elif self.command == "GET":
                self.reply(200, {"result": INFO})
            else:
                script.calls.append(f"{self.command} {self.path}")
                script.bodies.append(json.loads(body))
                self.play(script.answers.pop(0) if script.answers else 200)

        def play(self, answer: Any) -> None:
            if answer == "hang up":
                self.close_connection = True
            elif isinstance(answer, float):
                time.sleep(answer)
                self.reply(200, {"result": {"operation_id": 1, "status": "completed"}})
            elif answer == 200:
                self.reply(200, {"result": {"operation_id": 1, "status": "completed"}})
            elif isinstance(answer, tuple):
                self.reply(answer[0], {"status": {"error": "slow down"}}, {"Retry-After": answer[1]})
            elif isinstance(answer, str):
                self.reply(200, answer)
            else:
                self.reply(answer, {"status": {"error": f"the reason of {answer}"}})

        def reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
            content = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 - the base class's names

        def log_message(self, *_: Any) -> None: ...

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    script.url = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield script
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture
def store(server: Script) -> Iterator[ServerStore]:
    with ServerStore(server.url, DATABASE, api_key="secret", timeout=30, backoff=QUICK) as store:
        yield store


@pytest.fixture
def points(make_points: Callable[..., list[Point]]) -> list[Point]:
    return make_points(8)


# --- opening ------------------------------------------------------------------------------------


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_that_is_not_there_is_named_at_once_with_what_to_do() -> None:
    url = f"http://127.0.0.1:{_closed_port()}"
    with pytest.raises(VectorStoreUnavailable, match=rf"{url} is not available.*refused.*COARSELOC_QDRANT_URL"):
        ServerStore(url, DATABASE)


def test_a_server_that_accepts_and_says_nothing_is_given_up_after_the_timeout() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        begun = time.monotonic()
        with pytest.raises(VectorStoreUnavailable, match="no answer in time"):
            ServerStore(f"http://127.0.0.1:{silent.getsockname()[1]}", DATABASE, timeout=1)
        assert time.monotonic() - begun < 25  # of the 30 s that are usual


@pytest.mark.parametrize("url", ["ftp://host", "http://exa mple", "http://host:99999", "host:abc"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(VectorStoreError, match=r"COARSELOC_QDRANT_URL is .* Give http\(s\)://host:port"):
        ServerStore(url, DATABASE)


def test_opening_learns_the_version_and_sends_the_key_without_a_warning(
    server: Script, store: ServerStore, recwarn: pytest.WarningsRecorder
) -> None:
    assert store.version == "1.15.0"
    assert store.location == server.url
    assert server.keys == {"secret"}
    assert not recwarn.list


def test_a_collection_is_made_exact_and_spread_and_indexed_even_when_another_process_was_first(server: Script) -> None:
    server.answers[:] = [409, *[200] * len(INDEXES), 409]
    with ServerStore(server.url, DATABASE, timeout=30, shard_number=3, replication_factor=2) as store:
        store.ensure(NAME, DIM)
        with pytest.raises(VectorStoreError, match="holds vectors of 16 values, not 32"):
            store.ensure(NAME, 32)
    made = server.bodies[0]
    assert made["vectors"] == {"size": DIM, "distance": "Dot"}
    assert (made["hnsw_config"]["m"], made["shard_number"], made["replication_factor"]) == (0, 3, 2)
    assert {body["field_name"]: body["field_schema"] for body in server.bodies[1:11]} == INDEXES


# --- writes are tried again ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble",
    [[503], [500, 502, 503], [429], [(429, "0")], [(429, "Wed, 21 Oct 2026 07:28:00 GMT")], ["hang up"]],
    ids=["503", "three in a row", "429", "429 with seconds", "429 with a date", "hang up"],
)
def test_writes_outlast_trouble_that_passes(
    server: Script, store: ServerStore, points: list[Point], trouble: list[Any]
) -> None:
    for write in (lambda: store.upsert(NAME, points), lambda: store.delete(NAME, [points[0].id])):
        server.calls.clear()
        server.answers[:] = trouble
        write()
        assert len(server.calls) == len(trouble) + 1
        assert len(set(server.calls)) == 1
        assert "wait=true" in server.calls[0]


def test_a_write_outlasts_an_answer_that_is_too_slow(server: Script, points: list[Point]) -> None:
    with ServerStore(server.url, DATABASE, timeout=2, backoff=QUICK) as store:
        for write in (lambda: store.upsert(NAME, points), lambda: store.delete(NAME, [points[0].id])):
            server.calls.clear()
            server.answers[:] = [2.5]
            write()
            assert len(server.calls) == 2


def test_writes_give_up_in_the_end_and_say_what_the_server_said(
    server: Script, store: ServerStore, points: list[Point]
) -> None:
    server.answers[:] = [503] * 9
    with pytest.raises(VectorStoreUnavailable, match=r"writing to area-1234: status 503, the reason of 503"):
        store.upsert(NAME, points)
    assert len(server.calls) == QUICK.tries


@pytest.mark.parametrize(
    "status, advice", [(400, "Its log"), (401, "COARSELOC_QDRANT_API_KEY"), (404, "rebuild"), (413, "Its log")]
)
def test_a_refusal_is_not_tried_again(
    server: Script, store: ServerStore, points: list[Point], status: int, advice: str
) -> None:
    server.answers[:] = [status]
    with pytest.raises(VectorStoreError, match=f"status {status}, the reason of {status}.*{advice}") as caught:
        store.upsert(NAME, points)
    assert not isinstance(caught.value, VectorStoreUnavailable)
    assert len(server.calls) == 1


def test_something_that_is_no_qdrant_is_not_taken_for_one(
    server: Script, store: ServerStore, points: list[Point]
) -> None:
    server.answers[:] = ["<html>Welcome to nginx!</html>"]
    with pytest.raises(VectorStoreError, match="not a Qdrant server's"):
        store.upsert(NAME, points)


def test_a_bad_batch_is_not_even_sent(server: Script, store: ServerStore, points: list[Point]) -> None:
    points[3] = Point(points[3].facts, points[3].vector * np.nan)
    with pytest.raises(VectorStoreError, match="not finite"):
        store.upsert(NAME, points)
    assert server.calls == []


def test_a_search_is_not_tried_again(server: Script, store: ServerStore, points: list[Point]) -> None:
    server.answers[:] = [503]
    with pytest.raises(VectorStoreUnavailable, match="searching area-1234: status 503"):
        store.query(NAME, points[0].vector, 3)
    assert len(server.calls) == 1


# --- several nodes -----------------------------------------------------------------------------


def test_a_node_that_is_down_is_passed_over_and_the_next_one_kept(points: list[Point]) -> None:
    down = f"http://127.0.0.1:{_closed_port()}"
    with (
        scripted_server() as node,
        ServerStore(f"{down}, {node.url}", DATABASE, timeout=30, backoff=QUICK) as store,
    ):
        assert store.version == "1.15.0" and store.unreachable() == [down]
        assert store.location == f"{down}, {node.url}"
        store.upsert(NAME, points)
        store.delete(NAME, [points[0].id])
        assert len(node.calls) == 2


@pytest.mark.parametrize(
    ("trouble", "timeout_s"), [(503, 30), ("hang up", 30), (2.5, 2)], ids=["stopping", "killed", "silent"]
)
def test_a_node_that_goes_down_amid_searches_and_writes_is_followed_by_the_next(
    points: list[Point], trouble: Any, timeout_s: int
) -> None:
    with (
        scripted_server() as first,
        scripted_server() as second,
        ServerStore(f"{first.url},{second.url}", DATABASE, timeout=timeout_s, backoff=QUICK) as store,
    ):
        first.answers[:] = [200, trouble]
        store.upsert(NAME, points)
        store.upsert(NAME, points)
        store.upsert(NAME, points)
        assert (len(first.calls), len(second.calls)) == (2, 2)


def test_what_a_node_refuses_is_not_asked_of_another_and_none_left_is_said(points: list[Point]) -> None:
    with (
        scripted_server() as first,
        scripted_server() as second,
        ServerStore(f"{first.url},{second.url}", DATABASE, timeout=30, backoff=QUICK) as store,
    ):
        first.answers[:] = [401]
        with pytest.raises(VectorStoreError, match="COARSELOC_QDRANT_API_KEY"):
            store.upsert(NAME, points)
        assert second.calls == []
        for node in (first, second):
            node.answers[:] = [503] * 9
        both = f"{first.url}, {second.url} is not available"
        with pytest.raises(VectorStoreUnavailable, match=both):
            store.query(NAME, points[0].vector, 3)


def test_passwords_of_several_addresses_are_not_said() -> None:
    ports = [_closed_port(), _closed_port()]
    url = ",".join(f"http://me:secret{port}@127.0.0.1:{port}" for port in ports)
    with pytest.raises(VectorStoreUnavailable) as caught:
        ServerStore(url, DATABASE)
    assert "secret" not in str(caught.value) and all(f":***@127.0.0.1:{port}" in str(caught.value) for port in ports)


# --- how long it waits --------------------------------------------------------------------------


def test_waits_double_up_to_the_longest_and_spread_over_half() -> None:
    backoff = Backoff(first_s=1.0, longest_s=5.0)
    for failures, longest in [(1, 1.0), (2, 2.0), (3, 4.0), (4, 5.0), (9, 5.0)]:
        waits = [backoff.wait_s(failures) for _ in range(50)]
        assert longest / 2 <= min(waits) < max(waits) <= longest
    assert backoff.wait_s(1, retry_after_s=3.0) == 3.0
    assert backoff.wait_s(1, retry_after_s=3_600.0) == 5.0


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("Service internal error: 2 of 3 replicas of shard 1 failed", "Start the nodes of the cluster that are down"),
        ("Service internal error: out of disk", "Start it, or correct COARSELOC_QDRANT_URL"),
    ],
)
def test_where_nodes_of_a_cluster_are_down_these_are_to_be_started(message: str, advice: str) -> None:
    body = json.dumps({"status": {"error": message}}).encode()
    error = UnexpectedResponse(500, "Internal Server Error", body, httpx.Headers())
    with pytest.raises(VectorStoreUnavailable, match=advice), clear_errors("http://nodes:6333", "writing"):
        raise error
