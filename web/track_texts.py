"""What pages say of a track, in the request's language."""

from __future__ import annotations

from web.language import _


def state_text(state: str) -> str:
    texts = {
        "acquiring": _("acquiring"),
        "tracking": _("tracking"),
        "lost": _("lost"),
        "recovered": _("recovered"),
    }
    return texts.get(state, state)


def evidence_text(evidence: str | None) -> str:
    """What told a track's places."""
    texts = {"fixes": _("fixes"), "ranks": _("ranks of tiles"), "both": _("ranks and fixes")}
    return texts.get(evidence or "", evidence or "–")


def lane_text(name: str) -> str:
    """The name of a lane over the time axis."""
    texts = {
        "state": _("state"),
        "probability": _("probability"),
        "p_off_map": _("off the map"),
        "p_blind": _("blind"),
        "jump": _("Top-1 jumps"),
        "error": _("error"),
    }
    return texts.get(name, name)
