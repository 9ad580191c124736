"""The WSGI application as an ASGI one, so that no client holds a thread.

A thread of the pool is busy only while the application works: a request's body is whole before it is called, and its
answer is taken piece by piece, the next when the client has taken the last. Answers that take seconds of work have
a small pool of their own; an event stream, whose generator waits for events, a thread of its own, within a budget.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from io import BytesIO
from queue import SimpleQueue
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import unquote_to_bytes, urlsplit

from web.connection import Connection, Limits

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]
_Message = dict[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]

_PIECE_BYTES = 262_144  # an answer in small chunks is taken up to so much, or for so long, at a time
_PIECE_S = 0.1
_WRITE_BYTES = 65_536  # what the deadline for writing applies to
_SPOOL_BYTES = 524_288  # larger bodies are kept on disk
_LARGE_BYTES = 1_048_576  # a piece in memory that counts towards the limit on answers
_LINGER_S = 2.0  # a refused body is read and dropped for so long
_JOIN_S = 5.0


class Refusal(Exception):
    """A request that is not handed to the application."""

    def __init__(self, status: HTTPStatus, detail: str, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.retry_after_s = status, detail, retry_after_s


class ClientGone(Exception):
    """The connection was closed before its answer was sent."""


class WsgiBridge:
    """An ASGI application that runs a WSGI one in threads, within limits."""

    def __init__(self, app: Application, threads: int, limits: Limits, is_long: Callable[[str], bool]) -> None:
        """threads: for pages; is_long: whether the answer at a path takes seconds of work."""
        self._app, self._limits, self._is_long = app, limits, is_long
        self._pages = WorkerThreads("coarseloc-page", threads)
        self._long = WorkerThreads("coarseloc-long", limits.long_threads)
        self._stopping = asyncio.Event()
        self._streams = 0
        self._body_bytes = 0  # of all requests
        self._answer_bytes = 0  # of all large pieces

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        connection: Connection = scope["state"]["connection"]
        with connection.answering():
            request = _Request(scope, receive, send, connection)
            try:
                await self._answer(request)
            except Refusal as refusal:
                await request.refuse(refusal)
            except ClientGone:
                pass
            finally:
                self._body_bytes -= request.body_bytes

    def stop(self) -> None:
        """End event streams, and say in each answer from now on that it is its connection's last."""
        self._stopping.set()

    def close(self) -> None:
        """End the threads; one that does not end within seconds is left behind."""
        until = time.monotonic() + _JOIN_S
        for threads in (self._pages, self._long):
            threads.stop()
        for threads in (self._pages, self._long):
            threads.join(until)

    async def _answer(self, request: _Request) -> None:
        body = await self._body(request)
        response = _Response(self._app, _environ(request.scope, body, request.body_bytes))
        threads = self._long if self._is_long(request.scope["path"]) else self._pages
        if threads.waiting >= self._limits.waiting:
            raise _busy("too many requests wait for an answer")
        try:
            piece, more_body = await threads.run(partial(request.unless_gone, response.begin))
            if response.is_event_stream and more_body:
                if self._streams >= self._limits.streams:
                    raise _busy("too many event streams are open")
                threads = WorkerThreads("coarseloc-stream", 1)
                self._streams += 1
            elif len(piece) > _LARGE_BYTES and self._answer_bytes + len(piece) > self._limits.answers:
                raise _busy("too many large answers are under way")
            await request.start(response.status, response.headers, last=self._stopping.is_set())
            while True:
                await self._write(request, piece, more_body)
                if not more_body:
                    return
                piece, more_body = await self._next(threads, response)
        finally:
            if not response.closed:
                threads.submit(response.close)
            if threads not in (self._pages, self._long):
                # Its thread may still wait for an event, and counts until it has ended.
                loop = asyncio.get_running_loop()
                threads.submit(lambda: _call_soon(loop, self._release_stream))
                threads.stop()

    async def _next(self, threads: WorkerThreads, response: _Response) -> tuple[bytes, bool]:
        """The next piece, and whether more may follow. A stream has no more once the server stops."""
        if not response.is_event_stream:
            return await threads.run(response.next_piece)
        piece = asyncio.ensure_future(threads.run(response.next_piece))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((piece, stopping), return_when=asyncio.FIRST_COMPLETED)
            return piece.result() if piece.done() else (b"", False)
        finally:
            stopping.cancel()
            piece.cancel()

    async def _write(self, request: _Request, piece: bytes, more_body: bool) -> None:
        large_bytes = len(piece) if len(piece) > _LARGE_BYTES else 0
        self._answer_bytes += large_bytes
        try:
            await request.write(piece, more_body)
        finally:
            self._answer_bytes -= large_bytes

    async def _body(self, request: _Request) -> BinaryIO:
        """The request's body, whole."""
        if request.announced > self._limits.body:
            raise _too_large(self._limits.body)
        due = time.monotonic() + self._limits.body_s
        message = await request.receive(due)
        new_file = partial(tempfile.SpooledTemporaryFile, _SPOOL_BYTES) if message.get("more_body") else BytesIO
        file = cast(BinaryIO, new_file())
        while True:
            data = message.get("body", b"")
            request.body_bytes += len(data)
            self._body_bytes += len(data)
            if request.body_bytes > self._limits.body:
                raise _too_large(self._limits.body)
            if self._body_bytes > self._limits.bodies:
                raise _busy("too many uploads are under way")
            file.write(data)
            if not message.get("more_body"):
                file.seek(0)
                return file
            due += len(data) / self._limits.body_rate
            message = await request.receive(due)

    def _release_stream(self) -> None:
        self._streams -= 1


class WorkerThreads:
    """Daemon threads that work off a queue: none keeps the process from ending."""

    def __init__(self, name: str, count: int) -> None:
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        return self._queue.qsize()

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        future: Future[Result] = Future()
        self._queue.put((future, work))
        return future

    async def run(self, work: Callable[[], Result]) -> Result:
        return await asyncio.wrap_future(self.submit(work))

    def stop(self) -> None:
        """End each thread after what is queued."""
        for _ in self._threads:
            self._queue.put(None)

    def join(self, until: float) -> None:
        """Wait for the threads' end, until this time on the monotonic clock at most."""
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            future, work = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = work()
            except BaseException as error:  # raised where the result is awaited
                _settle(future.set_exception, error)
            else:
                _settle(future.set_result, result)
            del item, future, work  # nothing of an answer is kept until the next


class _Request:
    """A request's messages, and what was said of its answer."""

    def __init__(self, scope: _Message, receive: _Receive, send: _Send, connection: Connection) -> None:
        self.scope, self._receive, self._send, self._connection = scope, receive, send, connection
        self.announced = next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)
        self.body_bytes = 0
        self._whole = False

    async def receive(self, due: float) -> _Message:
        """The next message with a part of the body, until `due` on the monotonic clock."""
        try:
            async with asyncio.timeout(due - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            raise Refusal(HTTPStatus.REQUEST_TIMEOUT, "The body of the request is late: send it again.") from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        self._whole = not message.get("more_body")
        return message

    def unless_gone(self, work: Callable[[], Result]) -> Result:
        """Not for a client that has gone while its request waited. Raises ClientGone."""
        if self._connection.lost:
            raise ClientGone
        return work()

    async def start(self, status: int, headers: Iterable[tuple[str, str]], last: bool) -> None:
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        if last:
            encoded.append((b"connection", b"close"))
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})

    async def write(self, data: bytes, more_body: bool) -> None:
        """Hand on an answer's next bytes, and wait until the system has taken all but the last 64 KiB.

        Raises ClientGone.
        """
        for at in range(0, len(data) or (not more_body), _WRITE_BYTES):
            if self._connection.lost:
                raise ClientGone
            part = data[at : at + _WRITE_BYTES]
            follows = more_body or at + _WRITE_BYTES < len(data)
            await self._send({"type": "http.response.body", "body": part, "more_body": follows})
        if more_body and self._connection.lost:
            raise ClientGone

    async def refuse(self, refusal: Refusal) -> None:
        """Say why, and read what the client still sends: a connection closed over it would take the answer along."""
        status = refusal.status
        problem = {"type": "about:blank", "title": status.phrase, "status": status, "detail": refusal.detail}
        body = json.dumps(problem).encode()
        headers = [("Content-Type", "application/problem+json"), ("Content-Length", str(len(body)))]
        if refusal.retry_after_s is not None:
            headers.append(("Retry-After", str(refusal.retry_after_s)))
        await self.start(status, headers, last=True)
        with suppress(ClientGone, Refusal):
            await self.write(body, more_body=True)
            due = time.monotonic() + _LINGER_S
            while not self._whole and status != HTTPStatus.REQUEST_TIMEOUT:
                await self.receive(due)
        with suppress(ClientGone):
            await self.write(b"", more_body=False)


class _Response:
    """One call of the application. Its methods run in threads, one at a time, all in one context."""

    def __init__(self, app: Application, environ: Environ) -> None:
        self._app, self._environ = app, environ
        self._lock, self._context = threading.Lock(), contextvars.copy_context()
        self._body: Iterable[bytes] = ()
        self._iterator: Iterator[bytes] = iter(())
        self._written: list[bytes] = []
        self.status, self.headers = 0, list[tuple[str, str]]()
        self.closed = False

    @property
    def is_event_stream(self) -> bool:
        return any(
            name.lower() == "content-type" and value.lower().startswith("text/event-stream")
            for name, value in self.headers
        )

    def begin(self) -> tuple[bytes, bool]:
        """Call the application: the first piece of its answer (of an event stream none), whether more may follow."""
        return self._run(self._begin)

    def next_piece(self) -> tuple[bytes, bool]:
        """Of an event stream an event; of anything else as many chunks as make a piece."""
        return self._run(self._piece)

    def close(self) -> None:
        self._run(self._close)

    def _run(self, work: Callable[[], Result]) -> Result:
        with self._lock:
            return self._context.run(work)

    def _begin(self) -> tuple[bytes, bool]:
        self._body = self._app(self._environ, self._start_response)
        self._iterator = iter(self._body)
        piece, more_body = (b"", True) if self.is_event_stream else self._piece()
        if not self.status:
            raise RuntimeError("the application did not call start_response")
        return piece, more_body

    def _start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[..., None]:
        self.status, self.headers = int(status.split(" ", 1)[0]), headers
        return self._written.append

    def _piece(self) -> tuple[bytes, bool]:
        until, size = time.monotonic() + _PIECE_S, 0
        parts, self._written[:] = self._written[:], []
        for part in self._iterator:
            parts.append(part)
            size += len(part)
            if size >= _PIECE_BYTES or time.monotonic() > until or (part and self.is_event_stream):
                return b"".join(parts), True
        self._close()
        return b"".join(parts), False

    def _close(self) -> None:
        if self.closed:
            return
        self.closed = True
        try:
            if hasattr(self._body, "close"):
                self._body.close()
        except Exception:
            log.exception("an answer could not be closed")
        self._environ["wsgi.input"].close()


def _environ(scope: _Message, body: BinaryIO, body_bytes: int) -> Environ:
    """PEP 3333's; header names with an underscore, which could pass for others, are left out."""
    raw_path = scope["raw_path"]
    if not raw_path.startswith(b"/"):  # an absolute address, as to a proxy
        raw_path = urlsplit(raw_path).path or b"/"
    server, client = scope.get("server") or ("localhost", 80), scope.get("client") or ("", 0)
    environ: Environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(raw_path).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": client[0],
        "REMOTE_PORT": str(client[1]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": body,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for raw_name, raw_value in scope["headers"]:
        if b"_" in raw_name or raw_name in (b"content-length", b"transfer-encoding"):
            continue
        name, value = raw_name.decode("latin-1").upper().replace("-", "_"), raw_value.decode("latin-1")
        key = name if name == "CONTENT_TYPE" else f"HTTP_{name}"
        joint = "; " if name == "COOKIE" else ", "
        environ[key] = f"{environ[key]}{joint}{value}" if key in environ else value
    if body_bytes or any(name == b"content-length" for name, _value in scope["headers"]):
        environ["CONTENT_LENGTH"] = str(body_bytes)
    return environ


def _too_large(limit: int) -> Refusal:
    detail = f"The body of the request is too large: at most {limit:,} bytes are taken."
    return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)


def _busy(reason: str) -> Refusal:
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, f"The server is busy: {reason}. Try again in a moment.", 2)


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop has been closed
        loop.call_soon_threadsafe(function)


def _settle(set_outcome: Callable[[Any], None], outcome: Any) -> None:
    """Tell who waits; nobody does once the loop has been closed."""
    with suppress(RuntimeError, InvalidStateError):
        set_outcome(outcome)
