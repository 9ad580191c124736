"""What a user says of labels, beside the files themselves."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from coarseloc.core.types import Doubt


class StatedLabels(NamedTuple):
    """What a user says of labels: the file, the CRS of positions that are not in degrees, doubts that are answered."""

    path: Path | None = None  # in place of those that are looked for
    crs: str | None = None  # before the one that a table names
    accepted: frozenset[Doubt] = frozenset()

    def over(self, base: StatedLabels) -> StatedLabels:
        """This, with what it does not say taken from another."""
        return StatedLabels(self.path or base.path, self.crs or base.crs, self.accepted | base.accepted)
