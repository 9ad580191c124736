"""The filters of an address, spelled as the command line spells them, and what each of them would leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from flask import request

from coarseloc.filters import Where, percent
from coarseloc.store.references import StoredReferenceSet
from web.i18n import _
from web.problems import Problem

_BESIDE = ("image", "flight", "frame", "model", "by", "lang", "words", "theme")  # what an address says beside filters


def where_of_address(sets: Sequence[StoredReferenceSet]) -> Where:
    """The filters of the address, spelled as the command line spells them. Raises InputError for what they cannot be
    and for a key that nothing reads, Problem 404 for an unknown set."""
    where = Where.parse({key: texts for key, texts in request.args.lists() if key not in _BESIDE})
    names = [one.name for one in sets]
    for name in where.reference_sets:
        if name not in names:
            raise Problem(404, _("There is no reference set {name}.", name=name))
    return where


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
