"""Who may write: the token and its guesses, the addresses of this server, and who may read what it writes."""

from __future__ import annotations

import queue
import socket
import stat
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from databases import settings_of
from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr

from coarseloc.core import files
from coarseloc.core.errors import ConfigError
from web import safety
from web.app import create_app
from web.safety import TokenGuard, check_token
from web.server import serve

TOKEN = "a token of 24 characters"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock that delays are reckoned by: set its only element."""
    now = [1000.0]
    monkeypatch.setattr(safety.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    settings = settings_of(tmp_path).model_copy(update={"token": SecretStr(TOKEN)})
    app = create_app(settings, host="2001:db8::7")
    yield app
    app.extensions["coarseloc"].close()


def give(client: FlaskClient, token: str, address: str = "192.0.2.1") -> int:
    return client.post("/token", data={"token": token}, environ_base={"REMOTE_ADDR": address}).status_code


def test_a_token_that_could_be_guessed_is_refused_where_others_reach_the_server() -> None:
    with pytest.raises(ConfigError, match="has 15 characters, expected 16 or more") as refused:
        check_token("x" * 15, "0.0.0.0")
    assert "xxx" not in str(refused.value)
    with pytest.raises(ConfigError, match="reachable from other machines"):
        check_token(None, "::")
    check_token("x" * 16, "0.0.0.0")
    for own in ("127.0.0.1", "::1", "localhost"):
        check_token(None, own)
        check_token("short", own)


def test_guesses_are_taken_ever_more_slowly_and_nobody_waits_inside_a_request(app: Flask, clock: list[float]) -> None:
    client, delays = app.test_client(), []
    assert [give(client, "wrong") for _ in range(3)] == [401] * 3
    for _ in range(8):
        assert give(client, "wrong") == 401
        closed = client.post("/token", data={"token": TOKEN})
        assert closed.status_code == 429
        delays.append(int(closed.headers["Retry-After"]))
        clock[0] += delays[-1]
    assert delays == [1, 2, 4, 8, 16, 30, 30, 30]
    assert give(client, TOKEN) == 303
    clock[0] += TokenGuard.FORGIVEN_AFTER_S + 1
    assert [give(client, "wrong", "192.0.2.9") for _ in range(3)] == [401] * 3
    assert give(client, TOKEN, "192.0.2.9") == 303


def test_a_strangers_guesses_do_not_lock_out_who_gave_the_token(app: Flask, clock: list[float]) -> None:
    user, stranger = app.test_client(), app.test_client()
    assert give(user, TOKEN, "192.0.2.1") == 303
    assert [give(stranger, "wrong", "192.0.2.66") for _ in range(5)] == [401] * 4 + [429]
    assert give(user, TOKEN, "192.0.2.1") == 303
    assert give(stranger, TOKEN, "192.0.2.66") == 429
    assert give(user, "wrong", "192.0.2.1") == 401  # from there it is heard no more
    assert give(user, TOKEN, "192.0.2.1") == 429


def test_bearer_and_cookie_are_guesses_too_and_no_token_or_another_scheme_is_none(
    app: Flask, clock: list[float]
) -> None:
    client = app.test_client(use_cookies=False)
    for _ in range(9):
        assert client.post("/search").status_code == 401
        assert client.post("/search", headers={"Authorization": "Basic dTpw"}).status_code == 401
    for _ in range(2):
        assert client.post("/search", headers={"Authorization": "Bearer no"}).status_code == 401
        assert client.post("/search", headers={"Cookie": "coarseloc_token=no"}).status_code == 401
    assert client.post("/search", headers={"Authorization": "Bearer no"}).status_code == 429
    clock[0] += 31
    right = {"Authorization": "Basic dTpw", "Cookie": f'coarseloc_token="{TOKEN}"'}
    assert client.post("/search", headers=right).status_code not in (401, 429)


def test_two_servers_count_guesses_apart(app: Flask, clock: list[float]) -> None:
    first, second = TokenGuard(TOKEN), TokenGuard(TOKEN)
    for _ in range(4):
        assert not first.accepts("wrong", "a")
    with app.test_request_context():
        app.preprocess_request()
        with pytest.raises(safety.Problem, match="Too many wrong tokens"):
            first.accepts(TOKEN, "b")
    assert second.accepts(TOKEN, "b")


@pytest.mark.parametrize("host", ["[::1]", "[::1]:8000", "[2001:db8::7]:8000", "localhost:8000"])
def test_addresses_of_the_sixth_version_are_our_own(app: Flask, host: str) -> None:
    client = app.test_client()
    assert client.get("/healthz", headers={"Host": host}).status_code == 200
    answer = client.post("/token", data={"token": TOKEN}, headers={"Host": host, "Origin": f"http://{host}"})
    assert answer.status_code == 303


@pytest.mark.parametrize("host", ["[::2]", "[::1", "[2001:db8::8]:8000"])
def test_other_addresses_are_not(app: Flask, host: str) -> None:
    assert app.test_client().get("/healthz", headers={"Host": host}).status_code == 400


def test_counts_are_not_kept_by_caches(app: Flask) -> None:
    assert app.test_client().get("/metrics").headers["Cache-Control"] == "no-store"


def test_folders_that_are_made_are_the_users_own_and_those_there_stay_as_they_are(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o775)
    files.make_private_folder(shared / "data" / "mirrors")
    files.make_private_folder(shared)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (shared, shared / "data", shared / "data" / "mirrors")]
    assert modes == [0o775, 0o700, 0o700]
    (shared / "file").touch()
    with pytest.raises(OSError):
        files.make_private_folder(shared / "file")


def test_a_new_data_folder_is_its_users_own(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    settings = settings_of(folder)
    if settings.database_url is not None:
        pytest.skip("of the embedded database: a server's is not in the data folder")
    create_app(settings).extensions["coarseloc"].close()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_pages_are_served_at_an_address_of_the_sixth_version(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    urls, stop = queue.Queue[str](), threading.Event()
    # In a thread of its own: a browser's tests leave their event loop running in this one.
    server = threading.Thread(target=serve, args=(settings_of(tmp_path), "::1", 0, 2, urls.put, stop), daemon=True)
    server.start()
    try:
        url = urls.get(timeout=120)
        assert url.startswith("http://[::1]:")
        statuses = []
        for path in ("healthz", "flights.json"):
            with urllib.request.urlopen(url + path, timeout=120) as answer:
                statuses.append(answer.status)
    finally:
        stop.set()
        server.join(30)
    assert statuses == [200, 200]
