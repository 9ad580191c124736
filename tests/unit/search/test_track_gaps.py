"""Why a track has no position is told from what its frames were looked for with."""

from __future__ import annotations

from typing import Any

import pytest

from coarseloc.core.tracks import AlternativePlace, TrackEstimate
from coarseloc.core.types import LonLat
from coarseloc.i18n import translator
from search.tracking.gaps import track_gaps
from search.tracking.texts import gap_text

HERE = LonLat(127.0, 37.5)
MOVED: dict[str, Any] = {"motion": {"right_m": 0.0}, "error": None}


def estimate(index: int, state: Any, **changes: Any) -> TrackEstimate:
    claimed = state in ("tracking", "recovered")
    facts: dict[str, Any] = {
        "ground": HERE if claimed else None, "ground_covariance_m2": None, "heading_deg": None, "heading_sd_deg": None,
        "scale": None, "speed_mps": None, "probability": 0.3, "p_off_map": 0.0, "p_blind": 0.0, "odometry": "frames",
        "reset_counter": 0, "measured": claimed, "searched": "nearby",
    }  # fmt: skip
    return TrackEstimate(index=index, mode="causal", state=state, **facts | changes)


@pytest.mark.parametrize(
    ("changes", "evidence", "cause", "words"),
    [
        ({"searched": None}, MOVED | {"error": "2.jpg is damaged"}, "unreadable", "its picture cannot be read"),
        ({"searched": None, "p_off_map": 0.9}, MOVED | {"motion": None}, "no-motion", "cloud, or no overlap"),
        ({"searched": None, "p_off_map": 0.9}, MOVED, "off-map", "it lies off the map"),
        ({"p_blind": 0.7}, MOVED, "blind", "the ground is not recognised"),
        ({}, MOVED, "not-found", "found nowhere"),
        ({"alternatives": (AlternativePlace(HERE, 0.0, 0.4),) * 3}, MOVED, "ambiguous", "it may be at 3 places"),
        ({"measured": True}, MOVED, "unsure", "no place is sure enough"),
        ({"odometry": "none"}, MOVED | {"motion": None}, "not-found", "found nowhere"),
    ],
)
def test_a_loss_has_the_likeliest_cause(
    changes: dict[str, Any], evidence: dict[str, Any], cause: str, words: str
) -> None:
    frames = [estimate(1, "tracking"), estimate(2, "lost", **changes), estimate(3, "recovered")]
    (gap,) = track_gaps(frames, {2: evidence})
    assert (gap.cause, gap.start_index, gap.end_index, gap.found_index) == (cause, 2, 2, 3)
    text = gap_text(gap, translator("en"))
    assert text.startswith("Lost at frame 2: ") and words in text and text.endswith(" Found again at frame 3.")


def test_a_first_frame_has_nothing_before_it_to_register_with() -> None:
    frames = [estimate(1, "acquiring"), estimate(2, "acquiring")]
    (gap,) = track_gaps(frames, {1: MOVED | {"motion": None}})
    assert gap.cause == "not-found" and gap.acquiring and gap.searches == 2
    assert gap_text(gap, translator("en")).endswith(" Never placed.")


def test_a_track_that_ends_lost_says_so_and_one_without_a_gap_nothing() -> None:
    (gap,) = track_gaps([estimate(1, "tracking"), estimate(2, "lost")], {})
    assert gap.found_index is None and gap_text(gap, translator("ko")).endswith("다시 찾지 못했습니다.")
    assert track_gaps([estimate(1, "tracking")], {}) == []
