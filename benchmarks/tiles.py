"""Tiles: eight views of each, and from JPEG files to embeddings in the database."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import machine, models, notebook, peers, pictures, timm_model
from benchmarks.figures import Figure, Results, faster
from benchmarks.rounds import Contest, Skipped, Way, contest
from benchmarks.size import Size
from coarseloc.core import geo, rotation
from coarseloc.core.errors import CoarselocError
from coarseloc.core.rotation import HEADINGS, Affine
from coarseloc.core.types import Failure, Float32, LonLat, ReferenceSet, Tile, UInt8, View
from coarseloc.embedding import specs
from coarseloc.embedding.backbone import LoadedBackbone, load_backbone
from coarseloc.embedding.weights import LocatedWeights
from coarseloc.imagery.captures import open_captures
from coarseloc.imagery.decode import read_image
from coarseloc.simulate.captures import write_captures
from coarseloc.store import Database, open_database
from ingest import worker
from ingest.worker import IngestSummary

FP32, INT8, ENCODER = "coarseloc fp32", "coarseloc int8", "coarseloc fp32, the encoder alone"
NAIVE = "transformers, one image at a time"
INGESTED = {("vits16", 512), ("vits16", 1024), ("vitb16", 512)}  # (backbone, source pixels) of tile ingests
LEAST_COSINE = 1 - 1e-5  # between the embeddings of one picture by two ways


class PaintedTiles:
    """A TileSource of pictures, each turned to eight headings: what captures are written of."""

    def __init__(self, painted: Sequence[UInt8], count: int) -> None:
        """count: of the tiles; each picture is that of several where they are more."""
        self.reference_set = ReferenceSet("painted", "orthophoto", "", 300.0, 0.5, 300.0, HEADINGS)
        columns = math.isqrt(count - 1) + 1
        centres = [
            geo.offset(LonLat(127.0, 37.5), 150.0 * (i % columns), -150.0 * (i // columns)) for i in range(count)
        ]
        self.tiles: Sequence[Tile] = [
            Tile(i, centre, geo.square(centre, 300.0)) for i, centre in enumerate(centres, start=1)
        ]
        self.failures: Sequence[Failure] = ()
        self.notices: Sequence[str] = ()
        self._views = [eight_views(picture) for picture in painted]

    def angles_of(self, tile: Tile) -> tuple[int, ...]:
        return HEADINGS

    def source_fingerprint(self, tile: Tile, angle_deg: int) -> str:
        return ""

    def views(self, tile: Tile, angles: Sequence[int]) -> Iterator[View | Failure]:
        for angle, pixels in self._views[tile.index % len(self._views)].items():
            yield View(angle, pixels, "", 1.0, None)


def eight_views(picture: UInt8, side: int | None = None) -> dict[int, UInt8]:
    """The middle `side` pixels of a picture, all of it by default, at eight headings."""
    side = side or len(picture)
    margin = (len(picture) - side) // 2
    turned = rotation.affine_views(picture, Affine(1, 0, margin, 0, 1, margin), side, HEADINGS)
    return {angle: view.pixels for angle, view in turned.items()}


class Captures:
    """A capture tree in the users' layout: a JPEG file for each tile and heading, and the labels."""

    def __init__(self, root: Path, count: int, side: int, painted: int | None = None) -> None:
        """painted: different pictures, by default one a tile."""
        self.root, self.count = root, count
        views = [pictures.picture(side, seed) for seed in range(min(count, painted or count))]
        folders = write_captures(PaintedTiles(views, count), root, quality=pictures.QUALITY)
        self.tiles = list(zip(*(sorted(folder.glob("*.jpg")) for folder in folders), strict=True))
        """Each tile's files, by heading."""


class Ingests:
    """The application's own ingest of captures into one database; each call makes a reference set of its own."""

    def __init__(self, folder: Path, captures: Captures, backbones: Sequence[LoadedBackbone]) -> None:
        self.summary: IngestSummary | None = None
        self._folder, self._captures = folder, captures
        self._backbones = {backbone.spec.backbone: backbone for backbone in backbones}
        self._db: Database = open_database(f"sqlite:///{folder / 'coarseloc.db'}")
        self._calls = 0

    def one_pass(self) -> None:
        """Read once, embed with every backbone."""
        self._ingest(list(self._backbones))

    def separate_passes(self) -> None:
        """One ingest for each backbone: the pictures are read and turned every time."""
        for name in self._backbones:
            self._ingest([name])

    def _ingest(self, names: Sequence[str]) -> None:
        self._calls += 1
        (source,) = open_captures(self._captures.root, name=f"set-{self._calls}", footprint_m=300.0)
        backbone_specs = [self._backbones[name].spec for name in names]
        thumbnails = self._folder / f"thumbnails-{self._calls}"  # empty: those of another run would be found
        self.summary = worker.run(
            self._db, source, backbone_specs, lambda spec: self._backbones[spec.backbone], thumbnails
        )
        if self.summary.failures or sum(self.summary.embedded.values()) != 8 * self._captures.count * len(names):
            raise RuntimeError(f"the ingest went wrong: {self.summary.facts()}")


# --- eight views --------------------------------------------------------------------------------


def views(size: Size) -> Results:
    """Two resamplings and six transposes against eight rotations; equal pixels, or it is no comparison."""
    side = size.source_px[0]
    window = pictures.picture(side * 182 // 128 // 2 * 2, seed=1)  # 1.42 times the view: room for 45 degrees
    whole = pictures.picture(side, seed=2)
    picture, isolated = Image.fromarray(window), Image.fromarray(whole)
    _check_same(list(eight_views(window, side).values()), peers.eight_rotations_cut(picture, side))
    _check_same(list(eight_views(whole).values()), [np.array(p) for p in peers.eight_rotations(isolated)])
    cut = contest(
        f"eight views of {side} px, from a window that holds their corners",
        "tile",
        {
            "coarseloc": Way(lambda: eight_views(window, side)),
            "PIL rotate x 8, cut": Way(lambda: peers.eight_rotations_cut(picture, side)),
        },
        size.rounds,
    )
    inside = contest(
        f"eight views of {side} px, turned inside their own frame",
        "tile",
        {
            "coarseloc": Way(lambda: eight_views(whole)),
            "PIL rotate x 8": Way(lambda: [np.array(p) for p in peers.eight_rotations(isolated)]),
        },
        size.rounds,
    )
    named = "eight views of a tile, equal pixels"
    return Results(
        [cut, inside],
        [
            faster(f"{named}, corners hold ground", cut, "coarseloc", "PIL rotate x 8, cut", 2.5),
            faster(f"{named}, black corners", inside, "coarseloc", "PIL rotate x 8", note="PIL copies at 90 degrees"),
        ],
    )


def _check_same(ours: Sequence[UInt8], theirs: Sequence[UInt8]) -> None:
    if not all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)):
        raise RuntimeError("coarseloc's eight views are not PIL's: nothing to compare")


# --- embedding ----------------------------------------------------------------------------------


def ingest(name: str, side: int, size: Size, work: Path) -> Results:
    """JPEG files → rows in the database, against the loops that users write."""
    row = specs.row(name)
    weights = models.random_backbone(row, work / "weights", layers=size.layers)
    fewer = row.dim // 384  # a larger backbone's ingest is long enough with fewer tiles
    captures = Captures(work / "captures", max(1, size.tiles // fewer), side)
    process, forward = notebook.processor_of(weights, size.input_px), notebook.transformers_forward(weights)
    loader = peers.dataloader(captures.tiles, process)
    tiles = captures.tiles[: max(1, size.peer_tiles // fewer)]
    ours = load_backbone(weights, input_px=size.input_px, device="cpu")
    own = Ingests(work, captures, [ours])
    views = [read_image(path) for path in captures.tiles[0]]
    _check_cosine(ours.embed_many(views), peers.batched_loop(tiles[:1], process, forward), LEAST_COSINE)
    ways: dict[str, Way | Skipped] = {
        NAIVE: Way(lambda: peers.naive_loop(tiles, process, forward), len(tiles)),
        "transformers, batches of 8": Way(lambda: peers.batched_loop(tiles, process, forward), len(tiles)),
    }
    if row.name == "vits16":
        ways["DataLoader, as clip-retrieval"] = Way(lambda: peers.dataloader_loop(loader, forward), captures.count)
        ways["timm, batches of 8"] = _timm(name, tiles, process)
    ways[FP32] = Way(own.one_pass, captures.count)
    ways[INT8] = _int8(weights, size, captures, work / "int8")
    ways[ENCODER] = Way(lambda: ours.embed_many(views * 2), 2)
    timed = contest(
        f"tile ingest, {name}, {size.input_px} px, 8 headings, captures of {side} px JPEG",
        "tile",
        ways | machine.matmul_ways(size.ceiling_side),
        size.rounds,
    )
    return Results([timed], _ingest_figures(timed, row, side, size), {timed.name: _stages(own)})


def large_input(size: Size, work: Path) -> Results:
    """One picture at an input as large as the users' own tiles: attention is most of it."""
    weights = models.random_backbone(specs.row("vits16"), work / "weights", layers=size.layers)
    (path,) = pictures.write_tiles(work / "pictures", 1, size.large_px)
    process, forward = notebook.processor_of(weights, size.large_px), notebook.transformers_forward(weights)
    picture = read_image(path)[None]
    ours = load_backbone(weights, input_px=size.large_px, device="cpu")
    ways: dict[str, Way | Skipped] = {
        "transformers": Way(lambda: peers.batched_loop([[path]], process, forward)),
        FP32: Way(lambda: ours.embed(picture)),
        INT8: _int8_picture(weights, size.large_px, picture),
    }
    _check_cosine(ours.embed(picture), peers.batched_loop([[path]], process, forward), LEAST_COSINE)
    timed = contest(f"one picture at an input of {size.large_px} px, vits16", "picture", ways, min(3, size.rounds))
    return Results(
        [timed],
        [
            faster(f"{timed.name}, fp32", timed, FP32, "transformers", 2.0, note="by its default, torch's sdpa"),
            faster(f"{timed.name}, int8", timed, INT8, "transformers"),
        ],
    )


def _int8_picture(weights: LocatedWeights, input_px: int, picture: UInt8) -> Way | Skipped:
    try:
        backbone = load_backbone(weights, input_px=input_px, precision="int8", device="cpu")
    except (CoarselocError, ImportError) as error:
        return Skipped(str(error))
    return Way(lambda: backbone.embed(picture))


def _ingest_figures(timed: Contest, row: specs.BackboneSpec, side: int, size: Size) -> list[Figure]:
    others = [way for way in timed.seconds if not way.startswith((machine.CEILING, "coarseloc"))]
    best = min(others, key=timed.median)
    figures = [
        faster(f"{timed.name}, fp32", timed, FP32, NAIVE),
        faster(f"{timed.name}, int8", timed, INT8, NAIVE),
        faster(f"{timed.name}, fp32", timed, FP32, best, 1.5, note="the best other way"),
        faster(f"{timed.name}, int8", timed, INT8, best, 3.0, note="the best other way"),
    ]
    if size.layers is None:
        ceiling = machine.ceiling(timed)
        of_tile, nominal = (
            8 * models.flops(row, size.input_px, class_token_only=class_token_only) / ceiling * 100
            for class_token_only in (True, False)
        )
        for what, way, target in (("whole ingest", FP32, None), ("the encoder alone", ENCODER, 90.0)):
            share = f"share of the matmul ceiling, {row.name} from {side} px, {what}"
            counted = f"of the operations done; {nominal / timed.median(way):.0f} % counting all of the model's own"
            measured = of_tile / timed.median(way)
            figures.append(Figure(share, "large float32 product", measured, "%", target, note=counted))
    return figures


def _timm(name: str, tiles: Sequence[Sequence[Path]], process: notebook.Processor) -> Way | Skipped:
    model = timm_model.timm_dinov3(name, process.side)
    if isinstance(model, Skipped):
        return model
    return Way(lambda: peers.batched_loop(tiles, process, model), len(tiles))


def _int8(weights: LocatedWeights, size: Size, captures: Captures, folder: Path) -> Way | Skipped:
    try:
        backbone = load_backbone(weights, input_px=size.input_px, precision="int8", device="cpu")
    except (CoarselocError, ImportError) as error:
        return Skipped(str(error))
    folder.mkdir()
    return Way(Ingests(folder, captures, [backbone]).one_pass, captures.count)


def _check_cosine(ours: Float32, theirs: Float32, least_cosine: float) -> None:
    cosine = float((ours * theirs).sum(axis=1).min())
    if cosine < least_cosine:
        raise RuntimeError(f"coarseloc's embeddings have a cosine of {cosine:.6f} with the peer's: nothing to compare")


def _stages(own: Ingests) -> dict[str, float]:
    """Seconds of each stage of one ingest, its wall clock, and how many cores it kept busy."""
    started, cpu = time.perf_counter(), time.process_time()
    own.one_pass()
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    if own.summary is None:
        raise RuntimeError("no ingest has run")
    stages = {name: round(seconds, 3) for name, seconds in own.summary.seconds.items()}
    return stages | {"wall clock": round(wall, 3), "cores busy": round(cpu / wall, 2), "readers": worker.READERS}


# --- several backbones --------------------------------------------------------------------------


def six_backbones(size: Size, work: Path) -> Results:
    """Pictures are read, turned and digested once for all backbones; and memory does not grow with the tiles."""
    side = size.source_px[-1]
    weights = [models.small_backbone(f"small-{i}", work / f"weights-{i}", seed=i) for i in range(6)]
    backbones = [load_backbone(located, input_px=size.input_px, device="cpu") for located in weights]
    captures = Captures(work / "captures", max(1, size.tiles // 2), side)
    own = Ingests(work, captures, backbones)
    one_pass, six = "six backbones in one pass", "a pass each"
    timed = contest(
        f"six small backbones, captures of {side} px JPEG",
        "tile",
        {one_pass: Way(own.one_pass, captures.count), six: Way(own.separate_passes, captures.count)},
        size.rounds,
    )
    memory = _memory(side, backbones[0], work / "memory")
    return Results(
        [timed],
        [faster(f"six backbones in one pass, {side} px source, small models", timed, one_pass, six, 1.2), memory],
        {timed.name: _stages(own)},
    )


def _memory(side: int, backbone: LoadedBackbone, folder: Path) -> Figure:
    """The most memory resident while four times as many tiles are ingested; the first time fills the queues too."""
    peaks, counts = [], (2 * worker.READ_AHEAD, 8 * worker.READ_AHEAD)
    for count in counts:
        (folder / str(count)).mkdir(parents=True)
        own = Ingests(folder / str(count), Captures(folder / str(count) / "captures", count, side, 3), [backbone])
        with machine.peak_memory() as peak:
            own.one_pass()
        peaks += peak
    mib = [round(peak / 2**20) for peak in peaks]
    note = f"{mib[0]} MiB for {counts[0]} tiles, {mib[1]} MiB for {counts[1]}"
    grown = peaks[1] / peaks[0] * 100
    return Figure("memory of an ingest of four times as many tiles", "itself", grown, "%", 110, at_most=True, note=note)
