"""The load: a client asks one thing after another over a kept connection, and notes what came and how long it took."""

from __future__ import annotations

import http.client
import itertools
import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

BOUNDARY = "x-load-x"
SHARES = {"page": 25, "json": 20, "picture": 30, "upload": 10, "look-up": 15}  # of what is asked for, in a hundred
TIMEOUT_S = 60.0


class Answer(NamedTuple):
    kind: str
    status: int  # 0: none came
    ms: float
    retry_after: str | None = None
    last: bool = False  # of its connection, says the server
    body: bytes = b""


@dataclass(frozen=True)
class Target:
    """A server, and addresses of it that a reader would come by."""

    url: str
    query: bytes  # a JPEG to look for
    pages: tuple[str, ...]
    twins: tuple[str, ...]
    pictures: tuple[str, ...]
    models: tuple[str, ...]


class Client:
    """One kept connection."""

    def __init__(self, url: str) -> None:
        there = urlsplit(url)
        self._connection = http.client.HTTPConnection(there.hostname or "", there.port, timeout=TIMEOUT_S)

    def ask(self, kind: str, path: str, body: bytes | None = None, accept: str = "application/json") -> Answer:
        started = time.perf_counter()
        try:
            self.begin(path, body, accept)
        except OSError:
            return self._none(kind, started)
        return self.end(kind, started)

    def begin(self, path: str, body: bytes | None = None, accept: str = "application/json") -> None:
        """Send the question, whole. Raises OSError where nobody takes it."""
        headers = {"Accept": accept}
        if body is not None:
            headers["Content-Type"] = f"multipart/form-data; boundary={BOUNDARY}"
        self._connection.request("GET" if body is None else "POST", path, body, headers)

    def end(self, kind: str, started: float) -> Answer:
        """Wait for the answer to what was begun."""
        try:
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            return self._none(kind, started)
        ms, last = (time.perf_counter() - started) * 1e3, answer.headers["Connection"] == "close"
        return Answer(kind, answer.status, ms, answer.headers["Retry-After"], last, content)

    def _none(self, kind: str, started: float) -> Answer:
        self._connection.close()  # the next question opens it anew
        return Answer(kind, 0, (time.perf_counter() - started) * 1e3)

    def close(self) -> None:
        self._connection.close()

    def send(self, image: bytes) -> Answer:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
        return self.ask("upload", "/search", head.encode() + image + f"\r\n--{BOUNDARY}--\r\n".encode())


def another(query: bytes, mark: str) -> bytes:
    """The same picture under another content: what follows a JPEG's end is not decoded."""
    return query + mark.encode()


def explore(url: str, query: Path) -> Target:
    """Find the addresses by following those of the flights."""
    client = Client(url)

    def read(path: str) -> Any:
        answer = client.ask("json", path)
        if answer.status != 200:
            raise SystemExit(f"{path} answered {answer.status}: {answer.body[:300]!r}")
        return json.loads(answer.body)

    pages, twins, pictures = ["/", "/search", "/references", "/compare"], ["/flights.json", "/references.json"], []
    for flight in read("/flights.json")["flights"]:
        pages.append(flight["url"])
        twins.append(flight["url"] + ".json")
        for number in range(1, flight["frames"] + 1, max(1, flight["frames"] // 20)):
            pages.append(f"{flight['url']}/{number}")
            twins.append(f"{flight['url']}/{number}.json")
            frame = read(twins[-1])
            pictures += [frame["frame"]["image"], *(hit["image"] for row in frame["rows"] for hit in row["hits"])]
    models = tuple(one["key"] for one in read("/search.json")["models"])
    client.close()
    return Target(url, query.read_bytes(), tuple(pages), tuple(twins), tuple(dict.fromkeys(pictures)), models)


def warm(target: Target) -> None:
    """Every page, and every model once: loading is not what is tried."""
    client = Client(target.url)
    for path in (*target.pages, *target.twins):
        client.ask("page", path, accept="text/html")
    image = json.loads(client.send(another(target.query, "warm")).body)["image"]
    for model in target.models:
        client.ask("search", f"/search.json?image={image}&model={quote(model)}")
        client.ask("search", f"/search.json?image={image}&model={quote(model)}&angle=45")
    client.close()


def run(target: Target, name: str, seed: int, seconds: float) -> list[Answer]:
    """One client for so long; bodies are dropped."""
    rng, client, found = random.Random(f"{seed}/{name}"), Client(target.url), []
    numbers, image = itertools.count(), None
    until = time.monotonic() + seconds

    def note(answer: Answer) -> Answer:
        found.append(answer._replace(body=b""))
        return answer

    def send_and_search() -> None:
        nonlocal image
        sent = note(client.send(another(target.query, f"{seed}/{name}/{next(numbers)}")))
        if sent.status == 201:
            image = json.loads(sent.body)["image"]
            note(client.ask("search", f"/search.json?image={image}&model={quote(rng.choice(target.models))}"))

    def look_up() -> None:
        if image is None:
            return send_and_search()
        angles = ",".join(str(angle) for angle in rng.sample(range(0, 360, 45), 2))
        path = f"/search.json?image={image}&model={quote(rng.choice(target.models))}&angle={angles}"
        note(client.ask("look-up", path))
        return None

    doings: Mapping[str, Callable[[], object]] = {
        "page": lambda: note(client.ask("page", rng.choice(target.pages), accept="text/html")),
        "json": lambda: note(client.ask("json", rng.choice(target.twins))),
        "picture": lambda: note(client.ask("picture", rng.choice(target.pictures))),
        "upload": send_and_search,
        "look-up": look_up,
    }
    while time.monotonic() < until:
        doings[rng.choices(list(SHARES), SHARES.values())[0]]()
    client.close()
    return found
