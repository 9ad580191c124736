"""coarseloc tells an aircraft where it is from what it sees.

    import coarseloc as cl
    ws = cl.open("my-data")

Names are loaded when first used: `coarseloc --help` needs none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from coarseloc.core.filters import Where
    from coarseloc.core.types import BBox, Estimate, Flight, Frame, Hit, LonLat, Near
    from coarseloc.map_use_cases import MapRequest
    from coarseloc.results import Answer, Run, Runs
    from coarseloc.workspace import Workspace
    from coarseloc.workspace import open_captures as captures
    from coarseloc.workspace import open_flight as flight
    from coarseloc.workspace import open_orthophoto as orthophoto
    from coarseloc.workspace import open_workspace as open

_HOMES = {
    "open": "coarseloc.workspace:open_workspace",
    "captures": "coarseloc.workspace:open_captures",
    "orthophoto": "coarseloc.workspace:open_orthophoto",
    "flight": "coarseloc.workspace:open_flight",
    "MapRequest": "coarseloc.map_use_cases:MapRequest",
    "Workspace": "coarseloc.workspace:Workspace",
    **{name: f"coarseloc.results:{name}" for name in ("Answer", "Run", "Runs")},
    "Where": "coarseloc.core.filters:Where",
    **{
        name: f"coarseloc.core.types:{name}"
        for name in ("BBox", "Estimate", "Flight", "Frame", "Hit", "LonLat", "Near")
    },
}
__all__ = [
    "Answer", "BBox", "Estimate", "Flight", "Frame", "Hit", "LonLat", "MapRequest", "Near", "Run", "Runs", "Where",
    "Workspace", "captures", "flight", "open", "orthophoto",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'coarseloc' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(module), attribute)
