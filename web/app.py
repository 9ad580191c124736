"""Make the Flask application: settings in, pages out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import cache, partial
from importlib import resources
from typing import Any

from flask import Flask, Response, g, request, send_from_directory, url_for

from coarseloc import __version__, i18n
from coarseloc.core.config import Settings
from coarseloc.core.marks import NOTE_CHARACTERS
from search.export.records import FixPointInfo, Location
from search.tracking import texts
from web import fix_texts, language, monitoring, openapi, problems, safety
from web.pages import (
    DatabaseInteger,
    address,
    compare,
    export,
    flight_columns,
    flights,
    frame,
    gallery,
    gallery_export,
    ground,
    images,
    jobs,
    live,
    localizability,
    localize,
    marks,
    references,
    rotation,
    search,
    track_drawing,
    upkeep,
)
from web.pages.map import map_texts
from web.state import WebState

_FEATURES = (
    flights, flight_columns, gallery, gallery_export, marks, jobs, frame, live, search, localize, compare, rotation,
    references, export, upkeep, ground, localizability, images, monitoring, openapi,
)  # fmt: skip
_FOR_EVER = "public, max-age=31536000, immutable"


def create_app(settings: Settings, *, host: str | None = None) -> Flask:
    """The pages over `settings`' database, whose schema is brought to the newest revision.

    host: the address the server binds, where it is not this machine alone; writes then need `settings.token`.
    """
    app = Flask("web", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = safety.MAX_UPLOAD_BYTES
    app.config["MAX_FORM_MEMORY_SIZE"] = 100_000
    app.config["HOST_NAMES"] = safety.trusted_hosts(host, settings.trusted_hosts)
    beyond = host is not None and not safety.is_loopback(host)
    token = settings.token.get_secret_value() if beyond and settings.token else None
    app.config["TOKEN_GUARD"] = safety.TokenGuard(token)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.jinja_env.policies["json.dumps_kwargs"] = {"sort_keys": False}
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.url_map.converters["int"] = DatabaseInteger
    app.extensions["coarseloc"] = WebState.open(settings)
    safety.register(app)
    problems.register(app)
    monitoring.register(app)
    for feature in _FEATURES:
        app.register_blueprint(feature.routes)
    app.add_url_rule("/static/<path:filename>", "static", _static)
    app.jinja_env.filters.update(_FILTERS)
    app.jinja_env.globals.update(
        _=language.translate,
        _n=language.translate_count,
        asset=_asset,
        this_url=_this_url,
        address=address,
        map_texts=map_texts,
        NOTE_CHARACTERS=NOTE_CHARACTERS,
    )
    app.context_processor(_template_values)
    return app


def _template_values() -> dict[str, Any]:
    """Values that every page's template gets; imported macros get the globals only."""
    return {
        "languages": i18n.LANGUAGES,
        "language": g.language,
        "theme": g.theme,
        "request_id": g.request_id,
        "version": __version__,
        "has_vendor": has_vendor(),
    }


def _this_url(**changes: Any) -> str:
    """The present address with some of its ids or its query changed; None removes."""
    ids = dict(request.view_args or {})
    query: dict[str, Any] = request.args.to_dict(flat=False)
    for passing in ("lang", "theme"):  # remembered by cookies, not carried along
        query.pop(passing, None)
    for name, value in changes.items():
        (ids if name in ids else query)[name] = value
    return address(request.endpoint or "flights.flights", ids, query)


def has_vendor() -> bool:
    """Whether the build has brought the pages' libraries (`hatch_build.py`)."""
    return (resources.files("web") / "static" / "vendor" / "ol.js").is_file()


def _asset(filename: str) -> str:
    return url_for("static", filename=filename, v=_digest(filename))


@cache
def _digest(filename: str) -> str:
    return hashlib.sha256(resources.files("web").joinpath("static", filename).read_bytes()).hexdigest()[:12]


def _static(filename: str) -> Response:
    response = send_from_directory(str(resources.files("web") / "static"), filename, conditional=True)
    response.headers["Cache-Control"] = _FOR_EVER if "v" in request.args else "no-cache"
    return response


# --- how figures are written: missing ones are a dash, never a zero -----------------------------


_DASH = "–"


def _score(value: float | None) -> str:
    """A cosine. Four decimals: nearly all of them are 0.98 and up."""
    return _DASH if value is None else f"{value:.4f}"


def _drop(value: float | None) -> str:
    if value is None:
        return _DASH
    return "0" if value == 0 else f"−{value:.4f}"


def _ms(value: float | None) -> str:
    if value is None:
        return _DASH
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _metres(value: float | None) -> str:
    """Metres, with decimals below ten of them, and kilometres from ten thousand."""
    if value is None:
        return _DASH
    if value < 10_000:
        return f"{value:.{2 if value < 0.995 else 1 if value < 9.95 else 0}f} m"
    return f"{value / 1000:.1f} km"


def _degrees(value: float | None) -> str:
    """A heading as captures name it: 045°."""
    return _DASH if value is None else f"{round(value) % 360:03d}°"


def _difference(value: float | None) -> str:
    return _DASH if value is None else f"{value:.0f}°"


def _fine_degrees(value: float | None) -> str:
    """An angle of a fix, whose headings are known to hundredths of a degree."""
    return _DASH if value is None else f"{value:.2f}°"


def _share(value: float | None) -> str:
    """A probability. It is never rounded up to certainty."""
    if value is None:
        return _DASH
    return "> 99.9 %" if value > 0.999 else f"{100 * value:.1f} %"


def _position(place: Location | FixPointInfo | None, decimals: int = 5) -> str:
    """Latitude and longitude as people say them; five decimals are about a metre."""
    if place is None:
        return _DASH
    lat, lon = place.lat, place.lon
    return f"{abs(lat):.{decimals}f}° {'NS'[lat < 0]} {abs(lon):.{decimals}f}° {'EW'[lon < 0]}"


def _number(value: float | None) -> str:
    return _DASH if value is None else f"{value:,.0f}"


def _cosine(value: float) -> float:
    """Of degrees: how much a degree of longitude shrinks at a latitude."""
    return math.cos(math.radians(value))


_FILTERS: dict[str, Callable[..., object]] = {
    "cosine": _cosine,
    "score": _score,
    "drop": _drop,
    "ms": _ms,
    "metres": _metres,
    "degrees": _degrees,
    "difference": _difference,
    "fine_degrees": _fine_degrees,
    "share": _share,
    "position": _position,
    "number": _number,
    "fix_state": fix_texts.fix_state,
    "fix_text": fix_texts.fix_text,
    "fix_source": fix_texts.fix_source,
    "no_match_text": fix_texts.no_match_text,
    "no_match_help": fix_texts.no_match_help,
    "not_verified_reason": fix_texts.not_verified_reason,
    "answer_state": fix_texts.answer_state,
    "method_text": fix_texts.method_text,
    "state_text": partial(texts.state_text, translate=language.translate),
    "evidence_text": partial(texts.evidence_text, translate=language.translate),
    "lane_text": partial(texts.lane_text, translate=language.translate),
    "track_sketch": track_drawing.track_sketch,
    "track_lanes": track_drawing.track_lanes,
}
