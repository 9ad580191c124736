"""The cheap part alone: what matters before an ingest or a search, in a line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from coarseloc.core.types import EmbeddingSpec, Flight, ReferenceSet, TileSource
from search.preflight.cost import THUMBNAIL_BYTES, EncoderCost, disk_bytes, disk_findings, disk_free
from search.preflight.findings import Finding, worst
from search.preflight.flight_facts import WIDTHS_APART, flight_facts
from search.preflight.map_facts import magnified_findings, map_findings, source_facts


def ingest_doubts(source: TileSource, specs: Sequence[EmbeddingSpec], folder: Path) -> list[str]:
    """What matters before an ingest, in a line or none: the map's doubts, and a disk that is too small."""
    facts = source_facts(source)
    findings = [finding for finding in map_findings(facts) if finding.key != "unusable"]  # the ingest counts these
    for spec in specs:
        findings += magnified_findings(spec, facts)
    costs = [EncoderCost(spec.backbone, spec.dim, facts.views, facts.views, None, None) for spec in specs]
    findings += disk_findings(disk_bytes(costs, THUMBNAIL_BYTES), disk_free(folder))
    return _line(findings)


def search_doubts(flight: Flight, sets: Sequence[ReferenceSet]) -> list[str]:
    """What matters before a search, in a line or none, beside a flight that lies off the map (`search.flight`)."""
    widest = max((facts.footprint_m or 0.0 for facts in sets), default=0.0)
    if not widest or (flight.camera.footprint_m is None and flight.camera.fov_deg is None):
        return []
    facts = flight_facts(flight, None)
    if facts.footprint_m is None:
        return []
    nearest = min((s.footprint_m for s in sets if s.footprint_m), key=lambda m: abs(math.log(m / facts.footprint_m)))  # type: ignore[operator]
    apart = abs(math.log(facts.footprint_m / nearest)) > math.log(WIDTHS_APART)
    values = {"frame": f"{facts.footprint_m:.0f}", "tile": f"{nearest:.0f}", "source": facts.footprint_source}
    return _line([Finding("overlap", "doubtful", "width-apart", values)] if apart else [])


def _line(findings: Sequence[Finding]) -> list[str]:
    doubts = [finding for finding in findings if finding.level != "ok"]
    if not doubts:
        return []
    return [f"preflight: {worst(doubts)}: " + " ".join(finding.sentence() for finding in doubts)]
