"""Serving the pages: waitress, one process, threads, one set of models."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable

from waitress.server import create_server

from coarseloc.config import Settings
from coarseloc.errors import ConfigError, InputError
from web.app import create_app
from web.safety import MAX_UPLOAD_BYTES, is_loopback


def serve(
    settings: Settings,
    host: str = "127.0.0.1",
    port: int = 8000,
    threads: int = 8,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until interrupted. `ready` is called with the address once the port is open; port 0 takes a free one.

    Raises ConfigError for an address beyond this machine without a token, InputError where the port is taken.
    """
    if not is_loopback(host) and settings.token is None:
        raise ConfigError(
            f"{host} is reachable from other machines, and uploads would be open to all of them: "
            "set COARSELOC_TOKEN to a secret, or serve on 127.0.0.1"
        )
    app = create_app(settings, host=host)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # it warns of every burst; the burst is answered
    try:
        server = create_server(
            app,
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
    _end_on_sigterm()
    try:
        app.extensions["coarseloc"].vectors.follow()
        # The first look reckons every flight's medians and compiles the templates: not while a reader waits.
        threading.Thread(target=lambda: app.test_client().get("/"), name="coarseloc-first-look", daemon=True).start()
        if ready is not None:
            ready(_address(host, server))
        server.run()
    finally:
        server.close()
        app.extensions["coarseloc"].close()


def _end_on_sigterm() -> None:
    """Stopped by a supervisor, leave as after Ctrl-C: the vector store is closed, its lock given back."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def _address(host: str, server: object) -> str:
    ports = [port for _, port in getattr(server, "effective_listen", [])] or [getattr(server, "effective_port", 0)]
    shown = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host  # noqa: S104 - shown, not bound
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{ports[0]}/"
