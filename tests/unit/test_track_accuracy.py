"""The pure parts of the tool that measures tracks: its table."""

from __future__ import annotations

from typing import Any

import track_accuracy as tool

Row = dict[str, Any]


def row(frame: int, error_m: float | None = 1.0, *, cloud: bool = False, on_map: bool = True) -> Row:
    claim = None if error_m is None else {"error_m": error_m, "nees": error_m**2, "probability": 0.99}
    return {
        "set": "a set", "seed": 1, "frame": frame, "hidden": cloud, "on_map": on_map, "top1_m": 80.0,
        "state": "tracking", "searched": "nearby", "causal": claim, "smoothed": claim, "ms": 100.0 + frame,
    }  # fmt: skip


def flight(recovered_after: int = 1) -> list[Row]:
    clear = [row(frame) for frame in range(40)]
    cloud = [row(frame, None, cloud=True) for frame in range(40, 70)]
    lost = [row(frame, None) for frame in range(70, 70 + recovered_after)]
    return [*clear, *cloud, *lost, *(row(frame) for frame in range(70 + recovered_after, 110))]


def test_a_line_a_set_and_method_tells_claims_with_their_bounds() -> None:
    lines = tool.report_table({("a set", "fixes"): [flight()]})
    assert len(lines) == 3
    values = dict(zip(lines[0].split(" | "), lines[2].split(" | "), strict=True))
    assert values["causal m median / p90"] == "1 / 1"
    assert values["claimed causal / smoothed % of clear frames"].startswith("99 [93, 100] (80)")
    assert values["false causal"] == "0 of 79 (≤ 3.7 %)"
    assert values["frames to recover"] == "1"


def test_a_claim_is_false_beyond_100_m_by_fixes_and_300_m_by_ranks() -> None:
    rows = [row(0, 200.0), row(1)]
    assert tool.false_share(rows, "causal", tool.FALSE_FIXES_M).startswith("1 of 2")
    assert tool.false_share(rows, "causal", tool.FALSE_RANKS_M).startswith("0 of 2")
    assert tool.false_share([row(0, None)], "causal", 100.0) == "0 of 0 claims in 1 frames"


def test_recovery_is_counted_from_the_first_clear_frame_on_the_map() -> None:
    assert tool.frames_to_recover(flight(3)) == 3
    away = [entry | {"on_map": False} if entry["frame"] == 70 else entry for entry in flight()]
    assert tool.frames_to_recover(away) is None
    never = [entry | {"causal": None} for entry in flight()]
    assert tool.frames_to_recover(never) is None


def test_sets_have_seeds_of_their_own_and_fewer_frames_where_it_is_quick(tmp_path) -> None:
    sets = list(tool.track_sets(tmp_path, None, quick=False))
    assert len({group.seed for group in sets}) == len(sets)
    assert all(max(group.hidden) < group.frames for group in sets)
    clouds = {len(group.cloud) for group in sets if not group.lake_frames}
    assert clouds == {tool.CLOUD_FRAMES}
    quick = list(tool.track_sets(tmp_path, None, quick=True))
    assert sum(group.frames for group in quick) < sum(group.frames for group in sets) / 2
