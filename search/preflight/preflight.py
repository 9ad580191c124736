"""A preflight: the facts of maps and flight, what they cost, and a verdict with its reasons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coarseloc.core.errors import ImageryError
from coarseloc.core.types import Backbone, EmbeddingSpec, Flight, Tile, TileSource, UInt8
from coarseloc.imagery.decode import read_image
from coarseloc.localize import metrics
from coarseloc.localize.metrics import MapOverlap
from coarseloc.store import Database
from search.preflight import cost
from search.preflight.cost import EncoderCost
from search.preflight.findings import Finding, Level, worst
from search.preflight.flight_facts import (
    FlownFacts,
    flight_facts,
    flight_findings,
    frame_findings,
    overlap_findings,
)
from search.preflight.map_facts import (
    SampledTiles,
    SourceFacts,
    magnified_findings,
    map_findings,
    places_of,
    sample_findings,
    sample_tiles,
    source_facts,
)


@dataclass(frozen=True)
class Preflight:
    """What is to be expected, and why."""

    sources: tuple[SourceFacts, ...]
    samples: tuple[SampledTiles, ...]  # of each source; empty where nothing was measured
    flight: FlownFacts | None
    overlap: MapOverlap | None
    encoders: tuple[EncoderCost, ...]
    ingest_minutes: float | None
    search_minutes: float | None
    disk_needed_bytes: int
    disk_free_bytes: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]  # what readers chose, doubted or left unused
    tiles: tuple[Tile, ...]  # of all sources

    @property
    def verdict(self) -> Level:
        """The worst of its findings."""
        return worst(self.findings)


def run_preflight(
    db: Database,
    sources: Sequence[TileSource],
    flight: Flight | None,
    specs: Sequence[EmbeddingSpec],
    load: Callable[[EmbeddingSpec], Backbone],
    *,
    refusals: Sequence[Finding] = (),
    data_dir: Path,
    thumbnails: Path,
    device: str,
    measured: bool = True,
) -> Preflight:
    """Look at maps and a flight, and weigh what they would cost; nothing is recorded.

    specs: of the backbones asked for whose weights are here. refusals: what was found while these were opened.
    measured: read a few tiles and embed them too.
    """
    facts = [source_facts(source) for source in sources]
    findings = [*refusals, *(finding for of_source in facts for finding in map_findings(of_source))]
    samples = [sample_tiles(source) for source in sources] if measured else []
    for of_source, sample in zip(facts, samples, strict=False):
        findings += sample_findings(of_source.name, sample)
    for spec in specs:
        findings += (finding for of_source in facts for finding in magnified_findings(spec, of_source))
    tiles = [tile for source in sources for tile in source.tiles]
    flown = overlap = None
    if flight is not None:
        flown = flight_facts(flight, facts[0].footprint_m if facts else None)
        findings += flight_findings(flown, facts[0] if facts else None)
        if tiles:
            overlap = metrics.map_overlap(flight.frames, places_of(tiles))
            findings += overlap_findings(overlap)
        if measured:
            findings += frame_findings(flight)
    frames = _pictures(flight) if measured and flight is not None else []
    views = [pixels for sample in samples for pixels in sample.views]
    costs = [cost.encoder_cost(db, spec, sources, thumbnails, views, frames, load) for spec in specs]
    read_s = max((sample.read_s for sample in samples), default=0.0)
    minutes = cost.ingest_minutes(costs, read_s, device.startswith("cuda")) if samples else None
    findings += cost.cost_findings(costs, minutes, device, len(views))
    search_minutes = _search_minutes(costs, flown)
    if search_minutes is not None:
        findings.append(cost.search_finding(search_minutes))
    size = int(np.mean([sample.thumbnail_bytes for sample in samples])) if samples else cost.THUMBNAIL_BYTES
    needed, free = cost.disk_bytes(costs, size), cost.disk_free(data_dir)
    findings += cost.disk_findings(needed, free)
    notes = [text for source in sources for text in source.notices] + list(flight.notices if flight else ())
    return Preflight(
        tuple(facts), tuple(samples), flown, overlap, tuple(costs), minutes, search_minutes, needed, free,
        tuple(findings), tuple(dict.fromkeys(notes)), tuple(tiles),
    )  # fmt: skip


def _pictures(flight: Flight) -> list[UInt8]:
    pictures = []
    for frame in flight.frames[: cost.TIMED_FRAMES]:
        try:
            pictures.append(read_image(frame.path))
        except ImageryError:  # `frame_findings` says it
            continue
    return pictures


def _search_minutes(costs: Sequence[EncoderCost], flight: FlownFacts | None) -> float | None:
    times = [cost.frame_s for cost in costs]
    if flight is None or not times or any(seconds is None for seconds in times):
        return None
    return flight.frames * sum(seconds or 0.0 for seconds in times) / 60
