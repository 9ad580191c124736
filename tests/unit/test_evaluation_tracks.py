"""How long a track is lost, of its claims alone."""

from __future__ import annotations

import pytest

from search.evaluation.track_evaluation import losses


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ("", []),
        ("..", []),
        ("..xx", []),
        (".x..x.xx", [2, 1]),
        ("x..", [None]),
        ("x.x..", [1, None]),
    ],
)
def test_losses_are_gaps_after_the_first_claim(claims: str, expected: list[int | None]) -> None:
    assert losses([claim == "x" for claim in claims]) == expected
