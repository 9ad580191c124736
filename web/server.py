"""Serving the pages: one process, one event loop for connections, threads for the application, one set of models.

uvicorn holds the connections, `connection.py` adds the deadlines that it has not (head, write), `wsgi.py` runs the
Flask application so that no client holds a thread. Why these: `docs/operations.md`, "The server".
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import re
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, cast

import uvicorn
from flask import Flask

from coarseloc.core.config import Settings
from coarseloc.core.errors import InputError
from coarseloc.core.process import return_freed_memory
from web.app import create_app
from web.connection import Connection, Limits
from web.safety import MAX_UPLOAD_BYTES, check_token
from web.wsgi import Application, WsgiBridge

# Bodies: above the application's own limit, whose answer is the better explained one. Far larger bodies are refused
# by their announced length, before they are read.
LIMITS = Limits(body=2 * MAX_UPLOAD_BYTES)
_EXPORT = re.compile(r"/flights/[^/]+/export\.\w+")  # of 1,500 frames: three seconds of a core
_BACKLOG = 2048
_POLL_S = 0.05


def serve(
    settings: Settings,
    host: str = "127.0.0.1",
    port: int = 8000,
    threads: int = 8,
    ready: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Serve the pages until interrupted, terminated, or `stop` is set; arguments as of `serve_wsgi`.

    Raises ConfigError for an address beyond this machine without a token of 16 characters, InputError where the port
    is taken.
    """
    return_freed_memory()
    check_token(settings.token.get_secret_value() if settings.token else None, host)
    app = create_app(settings, host=host)
    # What was imported stays: looking through it for garbage took 0.2 s of an answer in columns.
    gc.collect()
    gc.freeze()

    def begin(url: str) -> None:
        app.extensions["coarseloc"].vectors.follow()
        threading.Thread(target=_look_first, args=(app,), name="coarseloc-first-look", daemon=True).start()
        if ready is not None:
            ready(url)

    try:
        serve_wsgi(app, host, port, threads, LIMITS, begin, stop, lambda path: bool(_EXPORT.fullmatch(path)))
    finally:
        app.extensions["coarseloc"].close()


def _look_first(app: Flask) -> None:
    """Reckon the flights' medians and compile the templates: not while a reader waits."""
    app.test_client().get("/")
    for name in app.jinja_env.list_templates():
        app.jinja_env.get_template(name)


def serve_wsgi(
    app: Application,
    host: str = "127.0.0.1",
    port: int = 8000,
    threads: int = 8,
    limits: Limits = LIMITS,
    ready: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
    is_long: Callable[[str], bool] = lambda _path: False,
) -> None:
    """Serve a WSGI application until SIGTERM or Ctrl-C, or until `stop` is set; then answer what is under way.

    port: 0 takes a free one. threads: for pages; an event stream has its own, and so have, together, the paths whose
    answers take seconds of work (`is_long`). ready: called with the address once the
    port is open. A second Ctrl-C does not wait for what is under way. In another thread than the main one, signals
    are left alone.

    Raises InputError where the port is taken.
    """
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # it warns of every request that cannot be read
    _raise_file_limit(limits.connections)
    listeners = _listen(host, port)
    reachable = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    url = f"http://{f'[{reachable}]' if ':' in reachable else reachable}:{listeners[0].getsockname()[1]}/"
    new_bridge = partial(WsgiBridge, app, threads, limits, is_long)
    asyncio.run(
        _serve(new_bridge, listeners, limits, partial(ready, url) if ready else None, stop or threading.Event())
    )


class _Server(uvicorn.Server):
    """uvicorn's, whose signals are ours: its own handlers would end the process by the signal, not with 0."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(
    new_bridge: Callable[[], WsgiBridge],
    listeners: list[socket.socket],
    limits: Limits,
    ready: Callable[[], None] | None,
    stop: threading.Event,
) -> None:
    bridge, connections = new_bridge(), set[Connection]()
    server = _Server(
        uvicorn.Config(
            cast(Any, bridge),
            http=cast(Any, partial(Connection, limits, connections)),  # called as a class would be
            ws="none",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            headers=[("Server", "coarseloc")],
            backlog=_BACKLOG,
            limit_concurrency=limits.connections,
            timeout_keep_alive=limits.keep_alive_s,
            timeout_graceful_shutdown=math.ceil(limits.drain_s),
        )
    )
    serving = asyncio.create_task(server.serve(listeners))
    try:
        with _signals(stop, server):
            while not server.started and not serving.done():
                await asyncio.sleep(0)
            if ready is not None and not serving.done():
                await asyncio.to_thread(ready)
            while not stop.is_set() and not serving.done():
                await asyncio.sleep(_POLL_S)
            bridge.stop()
            await _stop_listening(server, listeners)
            await asyncio.sleep(0 if server.force_exit else limits.quiet_s)
            server.should_exit = True
            await serving
    finally:
        server.should_exit = server.force_exit = True
        for connection in list(connections):
            connection.abort()
        with suppress(Exception):
            await serving
        bridge.close()


@contextmanager
def _signals(stop: threading.Event, server: uvicorn.Server) -> Iterator[None]:
    """SIGTERM and Ctrl-C stop the server. No exception: it would come up in the middle of a read or a write."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt() -> None:
        server.force_exit = stop.is_set()  # by the second
        stop.set()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        loop.remove_signal_handler(signal.SIGTERM)


async def _stop_listening(server: uvicorn.Server, listeners: list[socket.socket]) -> None:
    """Take no more connections, but those that the kernel has taken already."""
    for _ in range(_BACKLOG):
        if not select.select(listeners, [], [], 0)[0]:
            break
        await asyncio.sleep(0)  # the loop accepts all that wait
    for listener in server.servers:
        listener.close()


def _listen(host: str, port: int) -> list[socket.socket]:
    """A listener for each address of the host, all at one port.

    Raises InputError where there is none, or one is taken.
    """
    listeners: list[socket.socket] = []
    try:
        for family, *_, address in socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            at = listeners[0].getsockname()[1] if listeners else port
            listeners.append(socket.create_server((str(address[0]), at), family=family, backlog=_BACKLOG))
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise InputError(
            f"cannot listen on {host}:{port}: {error.strerror or error}. Give another --port (0 takes a free one)."
        ) from None
    return listeners


def _raise_file_limit(connections: int) -> None:
    """Each connection is an open file, and many systems allow a process 1,024 unless it asks for more."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit: Any = connections + 2048
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
