"""The addresses. Every page has a `.json` twin that holds what the page shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, jsonify, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from web.addresses import address
from web.compare import compare_page
from web.exports import export_page
from web.flights import flight_page, flights_page
from web.frames import frame_page
from web.language import _
from web.lookup import search_page
from web.problems import Problem
from web.references import references_page
from web.rotations import rotation_page
from web.safety import TOKEN_COOKIE, is_token

pages = Blueprint("pages", __name__)
View = Callable[..., dict[str, Any]]


def page(rule: str, name: str, view: View, twin: str | None = None) -> None:
    """Serve `view`'s values as the template `<name>.html` at `rule`, and as JSON at its twin."""

    def html(**ids: Any) -> str:
        twin_url = address(f"pages.{name}_json", ids, request.args.to_dict(flat=False))
        return render_template(f"{name}.html", page=name, twin_url=twin_url, **view(**ids))

    def data(**ids: Any) -> Response:
        return jsonify(view(**ids))

    pages.add_url_rule(rule, name, html)
    pages.add_url_rule(twin or f"{rule}.json", f"{name}_json", data)


page("/", "flights", flights_page, twin="/flights.json")
page("/flights/<flight_id>", "flight", flight_page)
page("/flights/<flight_id>/<int:frame>", "frame", frame_page)
page("/search", "search", search_page)
page("/compare", "compare", compare_page)
page("/rotation", "rotation", rotation_page)
page("/references", "references", references_page)
page("/flights/<flight_id>/export", "export", export_page, twin="/flights/<flight_id>/export-page.json")


@pages.get("/flights")
def flights_plural() -> AnyResponse:
    return redirect(url_for("pages.flights"))


@pages.get("/token")
def token() -> str:
    return render_template("token.html", page="token")


@pages.post("/token")
def unlock() -> AnyResponse:
    """Keep the token in a cookie that scripts cannot read; a wrong one is told at once."""
    given = request.form.get("token", "")
    if not is_token(given):
        raise Problem(401, _("This is not the token of this server."))
    response = redirect(url_for("pages.flights"), 303)
    response.set_cookie(TOKEN_COOKIE, given, httponly=True, samesite="Strict")
    return response
