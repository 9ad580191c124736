"""Addresses with a query that may come from a reader, whom `url_for`'s own options (`_external`, …) are not for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from flask import url_for


def address(endpoint: str, ids: Mapping[str, Any], query: Mapping[str, Any]) -> str:
    """The endpoint's path with `query` as it is; values of None are left out."""
    text = urlencode({name: value for name, value in query.items() if value is not None})
    return url_for(endpoint, **ids) + (f"?{text}" if text else "")
