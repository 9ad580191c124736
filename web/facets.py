"""The filters of an address, spelled as the command line spells them, and what each of them would leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from flask import request

from coarseloc.errors import InputError
from coarseloc.store.references import StoredReferenceSet
from coarseloc.types import BBox, Where
from coarseloc.where import percent
from web.i18n import _
from web.problems import Problem


def where_of_address(sets: Sequence[StoredReferenceSet]) -> Where:
    """The filters of the address. Raises InputError for what they cannot be, Problem 404 for an unknown set."""
    names = [one.name for one in sets]
    name = request.args.get("set") or None
    if name is not None and name not in names:
        raise Problem(404, _("There is no reference set {name}.", name=name))
    angles = sorted({int(n) for n in _numbers("angle", ",".join(request.args.getlist("angle")), ",")})
    altitude = _numbers("altitude", request.args.get("altitude", ""), ":")
    overlap = _numbers("overlap", request.args.get("overlap", ""), ",")
    if len(altitude) == 1:
        altitude *= 2
    if len(altitude) not in (0, 2) or len(overlap) > 1:
        raise InputError("altitude is one number or LOW:HIGH in metres, overlap one percentage")
    return Where(
        reference_sets=() if name is None else (name,),
        angles=tuple(angles) or None,
        altitude_m=(altitude[0], altitude[1]) if altitude else None,
        overlap_pct=round(overlap[0]) if overlap else None,
        touches=_bbox_of_address(),
    )


def _bbox_of_address() -> BBox | None:
    bounds = _numbers("bbox", request.args.get("bbox", ""), ",")
    if len(bounds) not in (0, 4):
        raise InputError(f"bbox has {len(bounds)} parts: expected west,south,east,north in degrees")
    return BBox(*bounds) if bounds else None


def _numbers(name: str, text: str, separator: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(separator) if part.strip()]
    except ValueError:
        raise InputError(f"{name} is {text!r}: expected numbers separated by {separator!r}") from None
    if any(abs(number) > 1e6 or number != number for number in found):
        raise InputError(f"{name} is {text!r}: expected finite numbers")
    return found


def facets(
    sets: Sequence[StoredReferenceSet], counts: Mapping[tuple[int, int], int], where: Where
) -> dict[str, list[dict[str, Any]]]:
    """Of each facet its values, each with how many references it would leave, all other facets as they are."""

    def count(asked: Where) -> int:
        fitting = {one.id for one in sets if fits(one, asked)}
        among = asked.angles or {angle for _set, angle in counts}
        return sum(n for (of_set, angle), n in counts.items() if of_set in fitting and angle in among)

    def value(of: Any, asked: Where, on: bool) -> dict[str, Any]:
        return {"value": of, "count": count(asked), "on": on}

    angles = sorted({angle for _set, angle in counts})
    altitudes = sorted({one.reference_set.altitude_m for one in sets if one.reference_set.altitude_m is not None})
    overlaps = sorted({percent(one.reference_set.overlap) for one in sets})
    return {
        "set": [
            value(one.name, replace(where, reference_sets=(one.name,)), one.name in where.reference_sets)
            for one in sets
        ],
        "angle": [value(angle, replace(where, angles=(angle,)), angle in (where.angles or ())) for angle in angles],
        "altitude": [value(at, replace(where, altitude_m=(at, at)), where.altitude_m == (at, at)) for at in altitudes],
        "overlap": [value(at, replace(where, overlap_pct=at), where.overlap_pct == at) for at in overlaps],
        "matching": [value("matching", where, True)],
    }


def fits(one: StoredReferenceSet, asked: Where) -> bool:
    """Whether the set as a whole may answer; headings and bounds are asked of its tiles."""
    facts = one.reference_set
    low, high = asked.altitude_m or (None, None)
    return (
        (not asked.reference_sets or one.name in asked.reference_sets)
        and (low is None or high is None or (facts.altitude_m is not None and low <= facts.altitude_m <= high))
        and asked.overlap_pct in (None, percent(facts.overlap))
    )
