"""How figures are written. Missing ones are a dash, never a zero."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

NONE = "–"


def score(value: float | None) -> str:
    """A cosine. Four decimals: nearly all of them are 0.98 and up."""
    return NONE if value is None else f"{value:.4f}"


def drop(value: float | None) -> str:
    if value is None:
        return NONE
    return "0" if value == 0 else f"−{value:.4f}"


def ms(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def metres(value: float | None) -> str:
    """Metres, and kilometres from ten thousand of them."""
    if value is None:
        return NONE
    return f"{value:.0f} m" if value < 10_000 else f"{value / 1000:.1f} km"


def degrees(value: float | None) -> str:
    """A heading as captures name it: 045°."""
    return NONE if value is None else f"{round(value) % 360:03d}°"


def difference(value: float | None) -> str:
    return NONE if value is None else f"{value:.0f}°"


def position(value: dict[str, float] | None) -> str:
    """Latitude and longitude as people say them; five decimals are about a metre."""
    if value is None:
        return NONE
    lat, lon = value["lat"], value["lon"]
    return f"{abs(lat):.5f}° {'NS'[lat < 0]} {abs(lon):.5f}° {'EW'[lon < 0]}"


def number(value: float | None) -> str:
    return NONE if value is None else f"{value:,.0f}"


def cosine(value: float) -> float:
    """Of degrees: how much a degree of longitude shrinks at a latitude."""
    return math.cos(math.radians(value))


FILTERS: dict[str, Callable[[Any], object]] = {
    "cosine": cosine,
    "score": score,
    "drop": drop,
    "ms": ms,
    "metres": metres,
    "degrees": degrees,
    "difference": difference,
    "position": position,
    "number": number,
}
