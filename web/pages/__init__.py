"""The pages, a module and a blueprint for each feature. Every page has a `.json` twin that holds what it shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar
from urllib.parse import urlencode

from flask import Blueprint, Response, render_template, request, url_for
from werkzeug.routing import IntegerConverter, Map

from web.models import AnswerModel, json_response

_LARGEST = 2**63 - 1

View = TypeVar("View", bound=Callable[..., AnswerModel])


class DatabaseInteger(IntegerConverter):
    """`<int:…>` of an address; one too large for a database names nothing, and is not found."""

    def __init__(self, map: Map) -> None:
        super().__init__(map, max=_LARGEST)


def address(endpoint: str, ids: Mapping[str, Any], query: Mapping[str, Any]) -> str:
    """The endpoint's path with `query` as it is; values of None are left out, a list's each get the name.

    For queries that come from a reader, whom `url_for`'s own options (`_external`, …) are not for.
    """
    text = urlencode({name: value for name, value in query.items() if value is not None}, doseq=True)
    return url_for(endpoint, **ids) + (f"?{text}" if text else "")


def page(
    routes: Blueprint, rule: str, name: str, twin: str | None = None, template: str | None = None
) -> Callable[[View], View]:
    """Serve a view's model by `<template>.html`, by default `<name>.html`, at `rule`, and as JSON at `twin`, by default
    `<rule>.json`.

    The template gets the model's fields by their names.
    """

    def register(view: View) -> View:
        def html(**ids: Any) -> str:
            twin_url = address(f"{routes.name}.{name}_json", ids, request.args.to_dict(flat=False))
            return render_template(f"{template or name}.html", page=name, twin_url=twin_url, **dict(view(**ids)))

        routes.add_url_rule(rule, name, html)
        routes.add_url_rule(twin or f"{rule}.json", f"{name}_json", as_json(view))
        return view

    return register


def as_json(view: Callable[..., AnswerModel]) -> Callable[..., Response]:
    """The view with its model as a JSON response; which model that is, its annotation says to `web.openapi`."""

    @wraps(view)
    def respond(**ids: Any) -> Response:
        return json_response(view(**ids))

    return respond
