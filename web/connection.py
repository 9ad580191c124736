"""The deadlines of a connection: an asyncio protocol around uvicorn's, which has none for a head or for writing."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

log = logging.getLogger(__name__)

_HEAD_LATE = (
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 33\r\n\r\n"
    b"The head of the request is late.\n"
)
_SPARE_CONNECTIONS = 256  # above the limit, answered 503; what is above these too is reset


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may take of the server. Times in seconds, sizes in bytes."""

    head_s: float = 20.0  # from a connection's opening, or the first byte of a later request, to the end of the head
    body_s: float = 20.0  # from the end of the head to the end of the body, and more by `body_rate`
    body_rate: float = 16_384.0  # bytes a second: each byte that has come puts the body's deadline off
    write_s: float = 30.0  # for the client's side to take what waits to be sent: 64 KiB at most
    keep_alive_s: int = 60  # from an answer to the next request
    drain_s: float = 30.0  # what is under way at a stop has so long to be answered
    quiet_s: float = 0.5  # after a stop: a connection without a request for so long is not about to send one
    connections: int = 2_000  # beyond: 503
    waiting: int = 1_024  # requests that wait for a thread; beyond: 503
    long_threads: int = 2  # for the answers that take seconds of work
    streams: int = 64  # event streams, each with a thread of its own; beyond: 503
    body: int = 64_000_000  # of one request; beyond: 413
    bodies: int = 1_000_000_000  # of all requests together, spooled to disk; beyond: 503
    answers: int = 500_000_000  # made and not yet sent, in memory; beyond: 503 for large answers


class Connection(asyncio.Protocol):
    """uvicorn's HTTP protocol, dropped where its client keeps it waiting.

    A client that does not read is dropped `write_s` after the system's buffers are full: each write must leave this
    process within that time. Uses asyncio's public interface alone, and of uvicorn that `Config(http=...)` takes what
    makes a protocol. The application finds the connection of a request in its scope, as `state["connection"]`.
    """

    def __init__(self, limits: Limits, connections: set[Connection], app_state: dict[str, Any], **uvicorn: Any) -> None:
        """limits: the deadlines; connections: all that are open, this one included while it is;
        the others: the arguments of uvicorn's protocol."""
        self._limits, self._connections = limits, connections
        self._http = H11Protocol(app_state={**app_state, "connection": self}, **uvicorn)
        self._loop = asyncio.get_running_loop()
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._received = False
        self._answering = 0  # requests: two for a moment where a client sends the next before the answer
        self.lost = False

    # --- called by asyncio --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)
        # An answer's body follows its head at once: else it waits for the head's acknowledgement, 40 ms.
        self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Any byte that the system does not take at once counts as waiting: the deadline covers an answer's end too.
        self._transport.set_write_buffer_limits(high=0)
        self._http.connection_made(self._transport)
        self._await_head()
        if len(self._connections) > self._limits.connections + _SPARE_CONNECTIONS:
            self.abort()

    def data_received(self, data: bytes) -> None:
        self._received = True
        if not self._answering:
            self._await_head()
        self._http.data_received(data)

    def eof_received(self) -> None:
        self._http.eof_received()

    def pause_writing(self) -> None:
        if self._write_timer is None:
            self._write_timer = self._loop.call_later(self._limits.write_s, self._drop_reader)
        self._http.pause_writing()

    def resume_writing(self) -> None:
        self._stop_write_timer()
        self._http.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._connections.discard(self)
        self._stop_head_timer()
        self._stop_write_timer()
        self._http.connection_lost(exc)

    # --- called by the server -----------------------------------------------------------------

    @contextmanager
    def answering(self) -> Iterator[None]:
        """The head of a request has come; its deadline is met."""
        self._stop_head_timer()
        self._answering += 1
        try:
            yield
        finally:
            self._answering -= 1
            self._received = False

    def abort(self) -> None:
        """Close without sending what waits."""
        self._transport.abort()

    # --- deadlines ----------------------------------------------------------------------------

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self._loop.call_later(self._limits.head_s, self._drop_sender)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _drop_sender(self) -> None:
        self._head_timer = None
        if self._received and not self._transport.is_closing():
            self._transport.write(_HEAD_LATE)
        self._transport.close()

    def _drop_reader(self) -> None:
        peer = self._transport.get_extra_info("peername") or ("?",)
        log.info("dropped %s, which took nothing of its answer for %g s", peer[0], self._limits.write_s)
        self.abort()
