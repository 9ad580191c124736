"""A map before an ingest: what its listing says, and what a few of its tiles hold."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from coarseloc.core import geo, tiling
from coarseloc.core.types import BBox, EmbeddingSpec, Failure, Floats, Tile, TileSource, UInt8
from coarseloc.imagery.decode import blank_colour, thumbnail_jpeg
from coarseloc.imagery.orthophoto import OrthophotoSource
from ingest.worker import BATCH_VIEWS
from search.preflight.findings import Finding, Level

SAMPLE_TILES = 24  # read at one heading, evenly over the map, for what is on them
BLOCK_BYTES = 4096  # of a file system: what a small file takes
_TURNED_TILES = 2  # of them read at all headings, for how long that takes
_PLAIN_SD = 6.0  # of a tile's luma, 0 … 255: water, snow, fog; a field of one crop has about 10
_LEAST_TILE_PX = 128
_MANY_HOLES = 0.05


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """A map as tiles, before a picture is read."""

    name: str
    kind: str
    path: str
    crs: str | None  # of an orthophoto
    gsd_m: float | None
    picture_px: int | None  # a tile's side
    footprint_m: float
    altitude_m: float | None
    overlap: float
    headings: tuple[int, ...]
    tiles: int
    views: int
    outside: int  # places with less than half of ground
    holes: int  # of the grid in the box around all places
    uneven: int  # places that lack some headings
    box: BBox
    ground_km2: float
    failures: dict[str, int]  # {kind: how many}

    @property
    def native_px(self) -> float | None:
        """A tile's side at the map's own resolution; None where nothing tells it."""
        return self.footprint_m / self.gsd_m if self.gsd_m else self.picture_px


@dataclass(frozen=True, slots=True)
class SampledTiles:
    """What a few tiles of a map hold."""

    tiles: tuple[Tile, ...]
    blank: tuple[Tile, ...]
    plain: tuple[Tile, ...]
    views: tuple[UInt8, ...]  # to measure encoders on
    read_s: float  # of one view, among all headings of a tile
    thumbnail_bytes: int  # of one view


def source_facts(source: TileSource) -> SourceFacts:
    """Describe a map from its listing."""
    facts = source.reference_set
    footprint_m = facts.footprint_m or geo.box_size_m(source.tiles[0].bbox)[0]
    angles = [source.angles_of(tile) for tile in source.tiles]
    most_angles = max(map(len, angles))
    boxes = np.array([tile.bbox for tile in source.tiles])
    box = geo.bounds(boxes[:, [0, 2]], boxes[:, [1, 3]])
    expected = _grid_places(box, footprint_m, facts.overlap)
    px = facts.picture_px
    return SourceFacts(
        name=facts.name,
        kind=facts.kind,
        path=facts.source,
        crs=source.crs if isinstance(source, OrthophotoSource) else None,
        gsd_m=facts.parameters.get("source_m_per_px"),
        picture_px=None if px is None else min(px),
        footprint_m=footprint_m,
        altitude_m=facts.altitude_m,
        overlap=facts.overlap,
        headings=tuple(sorted({angle for of_tile in angles for angle in of_tile})),
        tiles=len(source.tiles),
        views=sum(map(len, angles)),
        outside=int(facts.parameters.get("outside", 0)),
        holes=max(0, expected - len(source.tiles)),
        uneven=sum(len(of_tile) < most_angles for of_tile in angles),
        box=box,
        ground_km2=_ground_km2(boxes, box),
        failures=dict(Counter(failure.kind for failure in source.failures)),
    )


def _grid_places(box: BBox, footprint_m: float, overlap: float) -> int:
    """The places of a whole grid in a box."""
    stride_m = footprint_m * (1 - overlap)
    columns, rows = (max(1, round((extent - footprint_m) / stride_m) + 1) for extent in geo.box_size_m(box))
    return columns * rows


def _ground_km2(boxes: Floats, box: BBox) -> float:
    """The ground that boxes [N, 4] show, overlaps once: counted on a lattice."""
    side = 256
    covered = np.zeros((side, side), np.bool_)
    width, height = geo.box_width_deg(box), box.north - box.south
    left = np.floor((boxes[:, 0] - box.west) % 360.0 / width * side).astype(int)
    across = np.ceil((boxes[:, 2] - boxes[:, 0]) % 360.0 / width * side).astype(int)
    bottom = np.floor((boxes[:, 1] - box.south) / height * side).astype(int)
    top = np.ceil((boxes[:, 3] - box.south) / height * side).astype(int)
    for x, w, y0, y1 in zip(left, across, bottom, top, strict=True):
        covered[y0:y1, x : x + w] = True
    width_m, height_m = geo.box_size_m(box)
    return float(covered.mean()) * width_m * height_m / 1e6


def map_findings(facts: SourceFacts) -> Iterator[Finding]:
    """What a map's listing says."""
    stride_m = facts.footprint_m * (1 - facts.overlap)
    size = {
        "name": facts.name,
        "px": facts.picture_px or "?",
        "footprint": f"{facts.footprint_m:.0f}",
        "gsd": f"{facts.footprint_m / facts.native_px:.2f}" if facts.native_px else "?",
    }
    key = "crs" if facts.kind == "orthophoto" else "captures"
    yield Finding("map", "ok", key, {**size, "crs": facts.crs})
    if facts.native_px is not None and facts.native_px < _LEAST_TILE_PX:
        yield Finding("map", "doubtful", "coarse", {**size, "px": f"{facts.native_px:.0f}"})
    yield Finding(
        "map", "ok", "cover",
        {
            "name": facts.name, "tiles": facts.tiles, "stride": f"{stride_m:.0f}", "area": f"{facts.ground_km2:.2f}",
            "views": facts.views, "headings": len(facts.headings),
        },
    )  # fmt: skip
    if facts.outside:
        total = facts.tiles + facts.outside
        level: Level = "doubtful" if facts.outside > _MANY_HOLES * total else "ok"
        yield Finding("map", level, "outside", {"name": facts.name, "n": facts.outside, "total": total})
    elif facts.holes > _MANY_HOLES * facts.tiles:
        total = facts.tiles + facts.holes
        yield Finding("map", "doubtful", "holes", {"name": facts.name, "n": facts.holes, "total": total})
    if facts.uneven:
        values = {"name": facts.name, "n": facts.uneven, "tiles": facts.tiles, "headings": len(facts.headings)}
        yield Finding("map", "doubtful", "uneven", values)
    if facts.failures:
        kinds = ", ".join(f"{count} {kind}" for kind, count in facts.failures.items())
        yield Finding(
            "map", "doubtful", "unusable", {"name": facts.name, "n": sum(facts.failures.values()), "kinds": kinds}
        )


def sample_tiles(source: TileSource) -> SampledTiles:
    """Read a few tiles evenly over a map at one heading, and fewer at all headings."""
    chosen = [source.tiles[row] for row in tiling.spread_rows(len(source.tiles), SAMPLE_TILES)]
    blank, plain, pictures = [], [], []
    for tile in chosen:
        view = next(iter(source.views(tile, source.angles_of(tile)[:1])), None)
        if view is None or isinstance(view, Failure) or blank_colour([view.pixels]) is not None:
            blank.append(tile)
            continue
        if _luma_sd(view.pixels) < _PLAIN_SD:
            plain.append(tile)
        pictures.append(view.pixels)
    started, count = time.perf_counter(), 0
    for tile in chosen[:_TURNED_TILES]:
        for view in source.views(tile, source.angles_of(tile)):
            if not isinstance(view, Failure):
                _thumbnail_bytes(view.pixels)
                count += 1
    read_s = (time.perf_counter() - started) / max(1, count)
    sizes = [_thumbnail_bytes(pixels) for pixels in pictures[:4]] or [0]
    return SampledTiles(
        tuple(chosen), tuple(blank), tuple(plain), tuple(pictures[:BATCH_VIEWS]), read_s, int(np.mean(sizes))
    )


def sample_findings(name: str, sample: SampledTiles) -> Iterator[Finding]:
    """What the tiles that were read hold."""
    sampled = len(sample.tiles)
    if sample.blank:
        level: Level = "no" if 2 * len(sample.blank) > sampled else "doubtful"
        yield Finding("map", level, "blank", {"name": name, "n": len(sample.blank), "sampled": sampled})
    if sample.plain:
        yield Finding("map", "doubtful", "plain", {"name": name, "n": len(sample.plain), "sampled": sampled})
    if not sample.blank and not sample.plain:
        yield Finding("map", "ok", "seen", {"name": name, "sampled": sampled})


def _luma_sd(pixels: UInt8) -> float:
    """Of 8 x 8 means: noise of single pixels is no ground."""
    small = Image.fromarray(pixels).convert("L").reduce(max(1, min(pixels.shape[:2]) // 32))
    return float(np.asarray(small, np.float32).std())


def _thumbnail_bytes(pixels: UInt8) -> int:
    """What a view's thumbnail takes of a disk."""
    return -(-len(thumbnail_jpeg(pixels)) // BLOCK_BYTES) * BLOCK_BYTES


def magnified_findings(spec: EmbeddingSpec, facts: SourceFacts) -> Iterator[Finding]:
    """Whether an encoder looks at more pixels than a map has."""
    native_px = facts.native_px
    if native_px is not None and 2 * native_px < spec.input_px:
        values = {"backbone": spec.backbone, "input": spec.input_px, "name": facts.name, "px": f"{native_px:.0f}"}
        yield Finding("map", "doubtful", "magnified", values)


def places_of(tiles: Sequence[Tile]) -> Floats:
    """float64 [P, 6], as of `metrics.map_coverage`."""
    return np.array([(*tile.center, *tile.bbox) for tile in tiles], np.float64).reshape(-1, 6)
