"""Serving the pages: waitress, one process, threads, one set of models; told to stop, it answers what it holds."""

from __future__ import annotations

import logging
import select
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer, create_server

from coarseloc.config import Settings
from coarseloc.errors import ConfigError, InputError
from web.app import create_app
from web.safety import MAX_UPLOAD_BYTES, is_loopback

HELD_S = 30.0  # what is held at a stop has so long to be answered
_QUIET_S = 0.5  # a connection without a request for so long is not about to send one

_Sockets = dict[int, Any]  # by file descriptor: listeners, the pipes that wake the loop, and a channel per connection


def serve(
    settings: Settings,
    host: str = "127.0.0.1",
    port: int = 8000,
    threads: int = 8,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until interrupted or terminated. `ready` is called with the address once the port is open; port 0
    takes a free one.

    Raises ConfigError for an address beyond this machine without a token, InputError where the port is taken.
    """
    if not is_loopback(host) and settings.token is None:
        raise ConfigError(
            f"{host} is reachable from other machines, and uploads would be open to all of them: "
            "set COARSELOC_TOKEN to a secret, or serve on 127.0.0.1"
        )
    app = create_app(settings, host=host)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # it warns of every burst; the burst is answered
    sockets: _Sockets = {}
    try:
        server = create_server(
            app,
            map=sockets,
            host=host,
            port=port,
            threads=threads,
            ident="coarseloc",
            # Above the application's own limit, whose answer is the better explained one. Far larger
            # bodies are refused here, by their announced length, before they are read.
            max_request_body_size=2 * MAX_UPLOAD_BYTES,
            channel_timeout=60,
        )
    except OSError as error:
        raise InputError(
            f"cannot listen on {host}:{port}: {error.strerror or error}. Give another --port (0 takes a free one)."
        ) from None
    told = _told_to_stop()
    try:
        app.extensions["coarseloc"].vectors.follow()
        # The first look reckons every flight's medians and compiles the templates: not while a reader waits.
        threading.Thread(target=lambda: app.test_client().get("/"), name="coarseloc-first-look", daemon=True).start()
        if ready is not None:
            ready(_address(host, server))
        _answer(sockets, told)
        _see_out(sockets)
    finally:
        server.task_dispatcher.shutdown()
        wasyncore.close_all(sockets)
        app.extensions["coarseloc"].close()


def _told_to_stop() -> threading.Event:
    """Set by SIGTERM. No exception: it would come up in the middle of a read or a write."""
    told = threading.Event()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: told.set())
    return told


def _answer(sockets: _Sockets, told: threading.Event) -> None:
    """Waitress' own loop, left soon after SIGTERM, or by Ctrl-C."""
    try:
        while not told.is_set():
            wasyncore.loop(timeout=0.5, map=sockets, count=1)
    except KeyboardInterrupt:
        return


def _see_out(sockets: _Sockets) -> None:
    """Take no more connections, answer what comes over those there are, and close each when it is done."""
    for listener in [one for one in sockets.values() if isinstance(one, BaseWSGIServer)]:
        for _ in range(listener.adj.backlog):  # those that the kernel has taken already are ours
            if not select.select([listener.socket], [], [], 0)[0]:
                break
            listener.handle_accept()
        wasyncore.dispatcher.close(listener)  # the socket alone: threads still wake this loop by its pipe
    until = time.monotonic() + HELD_S
    while (open_ := [one for one in sockets.values() if isinstance(one, HTTPChannel)]) and time.monotonic() < until:
        for channel in open_:
            for request in list(channel.requests):
                request.headers["CONNECTION"] = "close"  # the answer says so, and the client goes elsewhere
            held = channel.requests or channel.request or channel.total_outbufs_len
            if not held and time.time() - channel.last_activity > _QUIET_S:
                channel.will_close = True
        wasyncore.loop(timeout=0.1, map=sockets, count=1)


def _address(host: str, server: object) -> str:
    ports = [port for _, port in getattr(server, "effective_listen", [])] or [getattr(server, "effective_port", 0)]
    shown = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host  # noqa: S104 - shown, not bound
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{ports[0]}/"
