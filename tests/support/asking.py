"""Questions to a running server, sent as they are spelled: no client library tidies the path or the headers."""

from __future__ import annotations

import http.client
import io
import time
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

BOUNDARY = "x-boundary-x"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def ask(server, method, path, body=None, headers=None) -> Answer:
    there = urlsplit(server.url)
    connection = http.client.HTTPConnection(there.hostname, there.port, timeout=60)
    connection.putrequest(method, path, skip_host="Host" in (headers or {}))
    for name, value in {"Accept": "application/json", **(headers or {})}.items():
        connection.putheader(name, value)
    if body is not None:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    found = Answer(answer.status, dict(answer.getheaders()), answer.read())
    connection.close()
    return found


def upload(server, data, path="/search", name="image.jpg", **headers) -> Answer:
    body = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    ).encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()  # fmt: skip
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", **headers}
    return ask(server, "POST", path, body, headers)


def png(pixels=None, side=64) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((side, side, 3), np.uint8) if pixels is None else pixels).save(file, "PNG")
    return file.getvalue()


def noise(number: int) -> bytes:
    """A picture that no other number gives, large enough to take a moment."""
    pixels = np.random.default_rng(number).integers(0, 255, (64, 64, 3), np.uint8)
    return png(np.kron(pixels, np.ones((16, 16, 1), np.uint8)))


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)
