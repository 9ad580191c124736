"""The filters of an address, and what each of them would leave."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from typing import Any

from flask import request
from werkzeug.datastructures import MultiDict

from coarseloc.core.filters import Where, percent
from coarseloc.store.references import StoredReferenceSet
from web.language import _
from web.problems import Problem


def where_of_address(sets: Sequence[StoredReferenceSet], beside: Collection[str]) -> Where:
    """The filters of the address, whose other keys may be those `beside`. Raises InputError for what they cannot be,
    Problem 404 for an unknown set."""
    where = Where.parse(given(request.args), beside=beside)
    for name in where.reference_sets:
        if all(name != one.name for one in sets):
            raise Problem(404, _("There is no reference set {name}.", name=name))
    return where


def given(texts: MultiDict[str, str]) -> dict[str, list[str]]:
    """Every text of a query or a form; a field that was left blank is none."""
    lists = {name: [text for text in values if text] for name, values in texts.lists()}
    return {name: values for name, values in lists.items() if values}


def facets(
    sets: Sequence[StoredReferenceSet], counts: Mapping[tuple[int, int], int], where: Where
) -> dict[str, list[dict[str, Any]]]:
    """Of each facet its values, each with how many references it would leave, all other facets as they are."""

    def count(asked: Where) -> int:
        fitting = {one.id for one in fitting_sets(sets, asked)}
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
        "angle": [value(angle, replace(where, angles=(angle,)), angle in where.angles) for angle in angles],
        "altitude": [value(at, replace(where, altitude_m=(at, at)), where.altitude_m == (at, at)) for at in altitudes],
        "overlap": [value(at, replace(where, overlap_pct=at), where.overlap_pct == at) for at in overlaps],
        "matching": [value("matching", where, True)],
    }


def fitting_sets(sets: Sequence[StoredReferenceSet], where: Where) -> list[StoredReferenceSet]:
    """The sets that may answer as a whole; headings and places are asked of their tiles."""
    return list(compress(sets, where.admits([one.reference_set for one in sets])))
