"""What every request and answer passes through: who may ask, request ids, and the headers of a page that
runs no code but its own."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
import time
from collections.abc import Iterable
from urllib.parse import urlsplit

from flask import Blueprint, Flask, Response, current_app, g, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from coarseloc import i18n
from web.language import _, request_language
from web.problems import Problem

MAX_UPLOAD_BYTES = 32_000_000
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
THEMES = ("auto", "light", "dark")
TOKEN_COOKIE = "coarseloc_token"  # noqa: S105 - a name
_YEAR_S = 31_536_000

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


def trusted_hosts(bound: str | None, extra: Iterable[str] = ()) -> list[str]:
    """The names under which this server may be addressed; any other Host header is refused, so that a page
    elsewhere cannot reach us through a name of its own (DNS rebinding)."""
    names = ["localhost", "127.0.0.1", "[::1]", *extra]
    if bound and not is_loopback(bound):
        names += [socket.gethostname(), socket.getfqdn()]
        if not ipaddress_is_any(bound):
            names.append(f"[{bound}]" if ":" in bound else bound)
    return list(dict.fromkeys(names))


def ipaddress_is_any(host: str) -> bool:
    return host in ("0.0.0.0", "::", "")  # noqa: S104 - compared, not bound


def register(app: Flask) -> None:
    app.before_request(_begin)
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


def _refuse_foreign_writes() -> None:
    """Writes come from our own pages (or from no browser at all), and with the token where one is needed."""
    if request.method in SAFE_METHODS:
        return
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    foreign_origin = origin is not None and urlsplit(origin).netloc != request.host
    if site not in (None, "same-origin", "none") or foreign_origin:
        raise Problem(403, _("Another site sent this request. Send it from a page of this server."))
    if request.endpoint != "safety.unlock" and not _has_token():
        raise Problem(
            401,
            _("This server listens beyond its own machine and wants its token first: give it at /token."),
        )


@routes.get("/token")
def token() -> str:
    return render_template("token.html", page="token")


@routes.post("/token")
def unlock() -> AnyResponse:
    """Keep the token in a cookie that scripts cannot read; a wrong one is told at once."""
    text = request.form.get("token", "")
    if not is_token(text):
        raise Problem(401, _("This is not the token of this server."))
    response = redirect(url_for("flights.flights"), 303)
    response.set_cookie(TOKEN_COOKIE, text, httponly=True, samesite="Strict")
    return response


def _has_token() -> bool:
    bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
    return is_token(bearer) or is_token(request.cookies.get(TOKEN_COOKIE, ""))


def is_token(text: str) -> bool:
    """Whether this is the server's token; anything is, where none is needed."""
    token = current_app.config["WRITE_TOKEN"]
    return token is None or hmac.compare_digest(text.encode(), token.encode())


def add_timing(name: str, ms: float) -> None:
    """Tell the browser's network panel where the time went (`Server-Timing`)."""
    g.timings.append((name, ms))


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
    for name, allowed in (("lang", tuple(i18n.LANGUAGES)), ("theme", THEMES)):
        if request.args.get(name) in allowed:
            response.set_cookie(name, request.args[name], max_age=_YEAR_S, samesite="Lax", httponly=True)
    return response
