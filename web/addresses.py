"""What may stand in an address: numbers that a database can hold, and queries that may come from a reader, whom
`url_for`'s own options (`_external`, …) are not for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from flask import url_for
from werkzeug.routing import IntegerConverter, Map

_LARGEST = 2**63 - 1


class Number(IntegerConverter):
    """`<int:…>` of an address; one too large for a database names nothing, and is not found."""

    def __init__(self, map: Map) -> None:
        super().__init__(map, max=_LARGEST)


def address(endpoint: str, ids: Mapping[str, Any], query: Mapping[str, Any]) -> str:
    """The endpoint's path with `query` as it is; values of None are left out, a list's each get the name."""
    text = urlencode({name: value for name, value in query.items() if value is not None}, doseq=True)
    return url_for(endpoint, **ids) + (f"?{text}" if text else "")
