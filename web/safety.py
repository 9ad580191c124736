"""What every request and answer passes through: who may ask, request ids, and the headers of a page that
runs no code but its own."""

from __future__ import annotations

import gzip
import hmac
import ipaddress
import math
import secrets
import socket
import threading
import time
from collections.abc import Iterable
from urllib.parse import urlsplit

from flask import Blueprint, Flask, Response, current_app, g, redirect, render_template, request, url_for
from werkzeug.exceptions import SecurityError
from werkzeug.sansio.utils import host_is_trusted
from werkzeug.wrappers import Response as AnyResponse

from coarseloc import i18n
from coarseloc.core.errors import ConfigError
from web.language import _, request_language
from web.problems import Problem

MAX_UPLOAD_BYTES = 32_000_000
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
THEMES = ("auto", "light", "dark")
TOKEN_COOKIE = "coarseloc_token"  # noqa: S105 - a name
MIN_TOKEN_CHARACTERS = 16
_YEAR_S = 31_536_000
_COMPRESSED_FROM_BYTES = 16_000

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

routes = Blueprint("safety", __name__)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_token(token: str | None, host: str) -> None:
    """Raises ConfigError where a server on this address has no token, or one that could be guessed."""
    if is_loopback(host):
        return
    if token is None:
        raise ConfigError(
            f"{host} is reachable from other machines, and uploads would be open to all of them: "
            "set COARSELOC_TOKEN to a secret, or serve on 127.0.0.1"
        )
    if len(token) < MIN_TOKEN_CHARACTERS:
        raise ConfigError(
            f"COARSELOC_TOKEN has {len(token)} characters, expected {MIN_TOKEN_CHARACTERS} or more, since {host} is "
            "reachable from other machines: set it to a long random text, such as that of `openssl rand -hex 16`"
        )


class TokenGuard:
    """The token of one server, and how long it takes no more guesses: twice as long with each wrong one, 30 s at most.

    Nobody waits inside a request. A client that gave the token before is heard meanwhile, so that a stranger's
    guesses do not lock its users out.
    """

    FREE_GUESSES = 3
    MAX_DELAY_S = 30.0
    FORGIVEN_AFTER_S = 600.0  # without a wrong one
    _MAX_CLIENTS = 1000

    def __init__(self, token: str | None) -> None:
        """token: None where none is needed, and any is right."""
        self._token = token
        self._lock = threading.Lock()
        self._wrong = 0
        self._latest_wrong = self._closed_until = 0.0  # of the monotonic clock
        self._admitted: dict[str, None] = {}  # addresses that gave the token, oldest first

    def accepts(self, text: str, client: str) -> bool:
        """Whether this is the token. Raises Problem 429 without looking while the server takes no guesses."""
        if self._token is None:
            return True
        if not text:
            return False
        now = time.monotonic()
        with self._lock:
            wait_s = self._closed_until - now
            if wait_s > 0 and client not in self._admitted:
                raise Problem(
                    429,
                    _("Too many wrong tokens were given to this server. Try again in a moment."),
                    retry_after_s=math.ceil(wait_s),
                )
            if hmac.compare_digest(text.encode(), self._token.encode()):
                self._admit(client)
                return True
            self._admitted.pop(client, None)
            self._wrong = 1 if now - self._latest_wrong > self.FORGIVEN_AFTER_S else self._wrong + 1
            self._latest_wrong = now
            if self._wrong > self.FREE_GUESSES:
                self._closed_until = now + min(2.0 ** min(self._wrong - self.FREE_GUESSES - 1, 16), self.MAX_DELAY_S)
            return False

    def _admit(self, client: str) -> None:
        self._admitted[client] = None
        if len(self._admitted) > self._MAX_CLIENTS:
            del self._admitted[next(iter(self._admitted))]


def trusted_hosts(bound: str | None, extra: Iterable[str] = ()) -> list[str]:
    """The names under which this server may be addressed; any other Host header is refused, so that a page
    elsewhere cannot reach us through a name of its own (DNS rebinding)."""
    names = ["localhost", "127.0.0.1", "[::1]", *extra]
    if bound and not is_loopback(bound):
        names += [socket.gethostname(), socket.getfqdn()]
        if not ipaddress_is_any(bound):
            names.append(f"[{_compressed(bound)}]" if ":" in bound else bound)
    return list(dict.fromkeys(names))


def _compressed(address: str) -> str:
    """An IPv6 address as browsers write it, without its zone."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).compressed
    except ValueError:
        return address


def ipaddress_is_any(host: str) -> bool:
    return host in ("0.0.0.0", "::", "")  # noqa: S104 - compared, not bound


def register(app: Flask) -> None:
    app.before_request(_begin)
    app.before_request(_refuse_foreign_hosts)
    app.before_request(_refuse_foreign_writes)
    app.after_request(_finish)
    app.register_blueprint(routes)


def _begin() -> None:
    g.began = time.perf_counter()
    g.request_id = secrets.token_hex(6)
    g.timings = []
    g.language = request_language()
    theme = request.args.get("theme") or request.cookies.get("theme")
    g.theme = theme if theme in THEMES else "auto"


def _refuse_foreign_hosts() -> None:
    names, host = current_app.config["HOST_NAMES"], request.host
    # Werkzeug cuts names at their first colon, so it would refuse every IPv6 address (Flask's TRUSTED_HOSTS as well).
    is_trusted = f"{host.partition(']')[0]}]" in names if host.startswith("[") else host_is_trusted(host, names)
    if not is_trusted:
        raise SecurityError(f"Host {host!r} is not trusted.")


def _refuse_foreign_writes() -> None:
    """Writes come from our own pages (or from no browser at all), and with the token where one is needed."""
    if request.method in SAFE_METHODS:
        return
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site not in (None, "same-origin", "none") or (origin is not None and not _is_ours(origin)):
        raise Problem(403, _("Another site sent this request. Send it from a page of this server."))
    if request.endpoint != "safety.unlock" and not _has_token():
        raise Problem(
            401,
            _("This server listens beyond its own machine and wants its token first: give it at /token."),
        )


def _is_ours(origin: str) -> bool:
    try:
        return urlsplit(origin).netloc == request.host
    except ValueError:  # no address at all, such as http://[
        return False


@routes.get("/token")
def token() -> str:
    return render_template("token.html", page="token")


@routes.post("/token")
def unlock() -> AnyResponse:
    """Keep the token in a cookie that scripts cannot read; a wrong one is told at once."""
    text = request.form.get("token", "")
    if not _guard().accepts(text, request.remote_addr or ""):
        raise Problem(401, _("This is not the token of this server."))
    response = redirect(url_for("flights.flights"), 303)
    response.set_cookie(TOKEN_COOKIE, text, httponly=True, samesite="Strict")
    return response


def _has_token() -> bool:
    credentials = request.authorization
    bearer = credentials.token if credentials is not None and credentials.type == "bearer" else None
    text = bearer or request.cookies.get(TOKEN_COOKIE, "")
    return _guard().accepts(text, request.remote_addr or "")


def _guard() -> TokenGuard:
    guard: TokenGuard = current_app.config["TOKEN_GUARD"]
    return guard


def add_timing(name: str, ms: float) -> None:
    """Tell the browser's network panel where the time went (`Server-Timing`)."""
    g.timings.append((name, ms))


def _compress(response: Response) -> None:
    """Columns of a long flight are a tenth as long so; an answer that is named by its digest stays as it is."""
    response.vary.add("Accept-Encoding")
    if response.status_code != 200 or response.is_streamed or response.direct_passthrough or response.get_etag()[0]:
        return
    data = response.get_data()
    if len(data) >= _COMPRESSED_FROM_BYTES and request.accept_encodings["gzip"] > 0:
        response.set_data(gzip.compress(data, 4, mtime=0))
        response.headers["Content-Encoding"] = "gzip"


def _finish(response: Response) -> Response:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["X-Request-Id"] = g.get("request_id", "")
    if "began" in g:
        add_timing("total", (time.perf_counter() - g.began) * 1e3)
        response.headers["Server-Timing"] = ", ".join(f"{name};dur={ms:.1f}" for name, ms in g.timings)
    if response.mimetype in ("text/html", "application/json"):
        response.headers.setdefault("Cache-Control", "no-cache")
        response.vary.update(("Cookie", "Accept-Language", "Accept"))
        _compress(response)
    for name, allowed in (("lang", tuple(i18n.LANGUAGES)), ("theme", THEMES)):
        if request.args.get(name) in allowed:
            response.set_cookie(name, request.args[name], max_age=_YEAR_S, samesite="Lax", httponly=True)
    return response
