"""What pages and reports say of a track. Pure."""

from __future__ import annotations

from coarseloc.i18n import Translator
from search.tracking.gaps import TrackGap


def state_text(state: str, translate: Translator) -> str:
    texts = {
        "acquiring": translate("acquiring"),
        "tracking": translate("tracking"),
        "lost": translate("lost"),
        "recovered": translate("recovered"),
    }
    return texts.get(state, state)


def evidence_text(evidence: str, translate: Translator) -> str:
    """What told a track's places."""
    texts = {
        "fixes": translate("fixes"),
        "ranks": translate("ranks of tiles"),
        "both": translate("ranks and fixes"),
    }
    return texts.get(evidence, evidence)


def lane_text(name: str, translate: Translator) -> str:
    """The name of a lane over the time axis."""
    texts = {
        "state": translate("state"),
        "probability": translate("probability"),
        "p_off_map": translate("off the map"),
        "p_blind": translate("blind"),
        "jump": translate("Top-1 jumps"),
        "error": translate("error"),
    }
    return texts.get(name, name)


def gap_text(gap: TrackGap, translate: Translator) -> str:
    """A gap in two sentences: where the track was lost and why, and where it was found again."""
    cause = {
        "unreadable": translate("its picture cannot be read"),
        "no-motion": translate("it registers with nothing before it (cloud, or no overlap)"),
        "off-map": translate("it lies off the map"),
        "blind": translate("the ground is not recognised (water, cloud, another season)"),
        "not-found": translate("it was looked for on the map and found nowhere"),
        "ambiguous": translate("it may be at {places} places"),
        "unsure": translate("no place is sure enough"),
    }[gap.cause]
    head = translate("Not placed from frame {start} on") if gap.acquiring else translate("Lost at frame {start}")
    if gap.found_index is None:
        end = translate("Never placed.") if gap.acquiring else translate("Not found again.")
    else:
        end = translate("Placed at frame {found}.") if gap.acquiring else translate("Found again at frame {found}.")
    text = f"{head}: {cause}. {end}"
    return text.format(start=gap.start_index, found=gap.found_index, places=gap.alternatives)
