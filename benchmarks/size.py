"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Size:
    """The settings of one benchmark. `layers` cuts the backbones short; None leaves them whole."""

    rounds: int
    backbones: tuple[str, ...]
    layers: int | None
    input_px: int
    source_px: tuple[int, ...]  # of the JPEG tiles
    tiles: int  # of an ingest: enough that its stages overlap
    peer_tiles: int  # of a loop whose time is proportional to them
    ceiling_side: int
    ceiling_mib: int
    counts: tuple[int, ...]  # vectors of 384 values
    wider: tuple[tuple[int, int], ...]  # (vectors, values) beside them
    call_s: float  # a timed call of searches takes about this long or longer
    many_up_to: int  # values; 64 queries at once take FAISS a minute beyond
    filtered: int  # points in Qdrant Edge
    filtered_local: int  # and in the client's local mode, which takes three seconds to write a thousand
    references: int  # for the one frame, and for commands
    large_px: int  # of an input as large as the users' own tiles
    map_km2: float
    fixed_frames: int  # found on the map; with none, processes of their own are not measured


FULL = Size(
    rounds=7,
    backbones=("vits16", "vitb16"),
    layers=None,
    input_px=224,
    source_px=(512, 1024),
    tiles=6,
    peer_tiles=1,
    ceiling_side=2048,
    ceiling_mib=1024,
    counts=(1_000, 10_000, 100_000, 1_000_000),
    wider=((10_000, 1280), (100_000, 768), (100_000, 1280), (1_000_000, 1280)),
    call_s=0.1,
    many_up_to=100_000 * 1280,
    filtered=50_000,
    filtered_local=5_000,
    references=36_672,
    large_px=1024,
    map_km2=17.0,
    fixed_frames=13,
)

QUICK = Size(
    rounds=3,
    backbones=("vits16",),
    layers=None,
    input_px=224,
    source_px=(512,),
    tiles=4,
    peer_tiles=1,
    ceiling_side=2048,
    ceiling_mib=512,
    counts=(1_000, 10_000, 100_000),
    wider=(),
    call_s=0.02,
    many_up_to=10_000 * 384,
    filtered=10_000,
    filtered_local=1_000,
    references=36_672,
    large_px=1024,
    map_km2=17.0,
    fixed_frames=4,
)
