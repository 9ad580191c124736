"""What a finished run comes to: one row of medians, for the end of a command and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from coarseloc.errors import StoreError
from coarseloc.scoring import metrics
from coarseloc.store import Database, runs
from coarseloc.types import Floats, Timing
from search.localize import candidates, ranked

_PARTS = ("decode", "embed", "search", "total")


def summarize(db: Database, run_id: int) -> dict[str, Any]:
    """A run's facts, medians of its metrics (None where no frame has the truth) and of its milliseconds."""
    with db.read() as session:
        run = next((run for run in runs.runs(session) if run.id == run_id), None)
        if run is None:
            raise StoreError(f"search run {run_id} is not known: `coarseloc flights --json` lists the runs there are")
        results = runs.results(session, run_id)
    read = [result for result in results if result.error is None]
    found = ranked([(result.frame.truth, candidates(result.hits)) for result in read])
    errors_m = metrics.error_m(found)
    return {
        "run": run.id,
        "flight_id": run.flight_id,
        "reference_set": run.reference_set.name,
        "backbone": run.spec.spec.backbone,
        "input_px": run.spec.spec.input_px,
        "precision": run.spec.spec.precision,
        "angle_deg": run.parameters.get("angle_deg"),
        "frames": len(results),
        "unreadable": len(results) - len(read),
        "references": run.references,
        "median_error_m": _median(errors_m),
        "median_heading_error_deg": _median(metrics.heading_error_deg(found)),
        "median_margin": _median(metrics.margin(found)),
        "frames_with_truth": int(np.count_nonzero(~np.isnan(errors_m))),
        "median_ms": _median_ms([result.timing for result in read if result.timing]),
        "index_build_ms": run.index_build_ms,
        **{name: run.environment.get(name) for name in ("backend", "device", "warm_up")},
    }


def _median(values: Floats) -> float | None:
    """Over what is not NaN."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else None


def _median_ms(timings: Sequence[Timing]) -> dict[str, float | None]:
    return {
        part: float(np.median([getattr(timing, f"{part}_ms") for timing in timings])) if timings else None
        for part in _PARTS
    }
