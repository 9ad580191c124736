"""What pages say of a fix, in the request's language: whether there is one, and where its numbers are from."""

from __future__ import annotations

from coarseloc.core.camera import ALTITUDE_AND_FOV, GIVEN, REFERENCE_FOOTPRINT
from coarseloc.core.fixes import HALF_A_PIXEL
from coarseloc.store.localizations import BEST_PLACE, FIX, TRACK, TRACK_SMOOTHED
from search.export.fix_infos import NOT_VERIFIED
from search.export.records import FixInfo
from search.tracking.texts import state_text
from web.language import _


def fix_state(fix: FixInfo | None) -> str:
    """The name of a fix's badge in style sheets: match, no-match or unverified."""
    return "unverified" if fix is None or fix.match is None else "match" if fix.match else "no-match"


def fix_text(fix: FixInfo | None) -> str:
    """A badge's text: fix, no match and why, or not verified; `not_verified_reason` says why."""
    if fix is None or fix.match is None:
        return _("not verified")
    return _("fix") if fix.match else no_match_text(fix.reason)


def not_verified_reason(fix: FixInfo | None) -> str:
    reason = NOT_VERIFIED if fix is None or fix.reason is None else fix.reason
    return _("This search was not asked to look for frames on the map.") if reason == NOT_VERIFIED else reason


def no_match_help(fix: FixInfo) -> str:
    """A no match in a sentence."""
    if fix.reason == "no-ground":
        return _("Nowhere does enough of this frame lie on the map.")
    return _("Nothing tells this frame's best place on the map from the next best: the map does not confirm any.")


def no_match_text(reason: str | None) -> str:
    texts = {"ambiguous": _("ambiguous"), "no-ground": _("not enough ground")}
    return _("no match: {reason}", reason=texts.get(reason or "", reason or ""))


def fix_source(source: str | None) -> str:
    """Where a number of a fix is from."""
    texts = {
        GIVEN: _("given"),
        REFERENCE_FOOTPRINT: _("the reference set's footprint"),
        ALTITUDE_AND_FOV: _("altitude label and field of view"),
        HALF_A_PIXEL: _("half a pixel of the map"),
        "label": _("from its label"),
        "boresight": _("from the boresight"),
        "mounting": _("from its stated mounting"),
        "estimated": _("estimated from the picture"),
        "unknown": _("not known"),
    }
    return texts.get(source or "", source or "–")


def answer_state(state: str) -> str:
    """A state of an answer: where the truth lies of its best tile, whether its fix matches, what its track knows."""
    names = {
        "on": _("truth on the tile"),
        "near": _("truth near the tile"),
        "far": _("truth far from the tile"),
        "located": _("truth not known"),
        "match": _("fix"),
        "no-match": _("no match"),
        "unverified": _("not verified"),
    }
    return names[state] if state in names else state_text(state, _)


def method_text(method: str) -> str:
    names = {BEST_PLACE: _("best tile"), FIX: _("fix"), TRACK: _("track"), TRACK_SMOOTHED: _("smoothed track")}
    return names.get(method, method)
