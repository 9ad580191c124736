"""Measure coarseloc on a GPU in one call:  PYTHONPATH=. python benchmarks/gpu.py

Needs coarseloc's source, torch, transformers and numpy, nothing else. The six true architectures with random
weights: ms for one frame at 224 and 1024 px (decode excluded), images a second in batches of 64, exact search, and
agreement with the CPU. Writes benchmarks/results/gpu-<date>-<device>.json and .md, which `make bench` takes into
docs/benchmarks.md. `--device cpu --layers 1 --backbones vits16` tries the script where there is no GPU.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from benchmarks import machine, models
from benchmarks.figures import Figure, Results, figures_table, plain_facts, table
from benchmarks.notebook import processor_of, transformers_forward
from benchmarks.report import write_json
from benchmarks.rounds import Contest, Way, contest
from coarseloc.core import ids
from coarseloc.core.types import Float32, UInt8
from coarseloc.embedding import specs
from coarseloc.embedding.backbone import LoadedBackbone, load_backbone
from coarseloc.embedding.device import resolve_device
from coarseloc.embedding.weights import LocatedWeights
from search.engines import Torch
from search.neighbors import nearest

SIX = ("vits16", "vits16+", "vitb16", "vitl16", "vitl16sat", "vith16+")
FRAME_MS = dict(zip(SIX, (4.0, 4.0, 6.0, 14.0, 14.0, 32.0), strict=True))  # at 1024 px
LARGE = ("vitl16", "vith16+")  # whose share of the matmul ceiling has a target
K = 10
OURS, NAIVE = "coarseloc", "transformers, float32, one image at a time"


@dataclass(frozen=True, slots=True)
class GpuSettings:
    device: str
    backbones: tuple[str, ...]
    layers: int | None
    rounds: int
    small_px: int  # of the model's input
    large_px: int
    batch: int
    references: tuple[tuple[int, int], ...]  # (vectors, values) to search
    agree_on: tuple[int, int]  # queries, references embedded on both
    matmul_side: int

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def precision(self) -> str:
        return "bf16" if self.on_gpu else "fp32"

    @property
    def has_targets(self) -> bool:
        """They are a GPU's, and of whole backbones."""
        return self.on_gpu and self.layers is None


def measure(settings: GpuSettings) -> Results:
    """Everything, each backbone's weights written to a temporary folder and deleted after it."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    results = Results(records={"machine": machine.facts() | {"device": device_name(settings.device)}})
    results.take(ceilings(settings))
    peak = results.records["ceilings"]["matmul_gflops"] * 1e9
    for name in settings.backbones:
        print(f"{name} …", flush=True)
        with tempfile.TemporaryDirectory(prefix="coarseloc-gpu-") as folder:
            weights = models.random_backbone(specs.row(name), Path(folder) / "weights", layers=settings.layers)
            results.take(one_backbone(name, weights, settings, peak))
        _show(results.figures[-7:])
    for count, dim in settings.references:
        results.take(search(count, dim, settings))
        _show(results.figures[-2:])
    return results


def device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"


def synchronised(call: Callable[[], object], device: str) -> Callable[[], None]:
    """The call, and then whatever it left the device to do."""

    def run() -> None:
        call()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)

    return run


def ceilings(settings: GpuSettings) -> Results:
    """A large product in the precision of the encoder, another in true float32, and a large read."""
    side, device = settings.matmul_side, settings.device
    half = torch.randn(side, side, device=device).to(torch.bfloat16 if settings.precision == "bf16" else torch.float32)
    full, long = torch.randn(side, side, device=device), torch.ones(side * side * 4, device=device)
    calls: dict[str, tuple[Callable[[], object], float]] = {
        f"matmul, {settings.precision}": (lambda: half @ half, 2 * side**3),
        "matmul, fp32": (lambda: full @ full, 2 * side**3),
        "read": (long.sum, long.nbytes),
    }
    contests = {
        name: contest(name, "call", {name: Way(synchronised(call, device))}, settings.rounds, warm_ups=3)
        for name, (call, _) in calls.items()
    }
    rates = {name: calls[name][1] / contests[name].median(name) / 1e9 for name in calls}
    facts = {
        "matmul_gflops": rates[f"matmul, {settings.precision}"],
        "matmul_fp32_gflops": rates["matmul, fp32"],
        "read_gb_per_s": rates["read"],
    }
    facts = {name: round(value, 1) for name, value in facts.items()}
    print(facts)
    return Results(list(contests.values()), records={"ceilings": facts})


# --- embedding ----------------------------------------------------------------------------------


def one_backbone(name: str, weights: LocatedWeights, settings: GpuSettings, peak: float) -> Results:
    """Latency at both sizes, throughput, and agreement with the CPU in float32."""
    results = Results()
    frames = pictures(2, settings.large_px)
    forward = transformers_forward(weights, settings.device)
    for px in (settings.small_px, settings.large_px):
        ours = load_backbone(weights, input_px=px, precision=settings.precision, device=settings.device)
        naive = naive_loop(weights, forward, px, settings.device)
        timed = contest(
            f"{name}, one frame at {px} px",
            "frame",
            {OURS: Way(partial(ours.embed, frames[:1])), NAIVE: Way(partial(naive, frames[:1]))},
            settings.rounds,
            warm_ups=3,
        )
        target = FRAME_MS[name] if px == 1024 and settings.has_targets else None
        results.contests.append(timed)
        results.figures.append(_milliseconds(timed, target))
        results.figures.append(Figure(timed.name, NAIVE, timed.ratio(OURS, NAIVE), "x"))
    results.take(
        throughput(name, weights, naive_loop(weights, forward, settings.small_px, settings.device), settings, peak)
    )
    results.take(agreement(name, weights, settings))
    return results


def throughput(
    name: str, weights: LocatedWeights, naive: Callable[[UInt8], Float32], settings: GpuSettings, peak: float
) -> Results:
    """Images a second, from bytes in memory to vectors in memory."""
    ours = load_backbone(weights, input_px=settings.small_px, precision=settings.precision, device=settings.device)
    images = pictures(settings.batch, settings.small_px)
    peer_images = images[: max(1, settings.batch // 8)]
    timed = contest(
        f"{name}, batches of {settings.batch} at {settings.small_px} px",
        "image",
        {OURS: Way(lambda: ours.embed(images), len(images)), NAIVE: Way(lambda: naive(peer_images), len(peer_images))},
        settings.rounds,
        warm_ups=3,
    )
    rate = 1 / timed.median(OURS)
    target = 5.0 if name == "vits16" and settings.has_targets else None
    figures = [Figure(timed.name, NAIVE, timed.ratio(OURS, NAIVE), "x", target, note=f"{rate:.0f} images/s")]
    if settings.layers is None:
        share = models.flops(specs.row(name), settings.small_px, class_token_only=True) * rate / peak * 100
        target = 40.0 if name in LARGE and settings.has_targets else None
        label = f"{name}, share of the {settings.precision} matmul ceiling"
        figures.append(Figure(label, "large product", share, "%", target))
    return Results([timed], figures)


def naive_loop(
    weights: LocatedWeights, forward: Callable[[torch.Tensor], torch.Tensor], px: int, device: str
) -> Callable[[UInt8], Float32]:
    """A notebook's: processor on the CPU, model on the device in float32, one image at a time."""
    process = processor_of(weights, px)

    def embed(images: UInt8) -> Float32:
        with torch.inference_mode():
            return np.concatenate(
                [normalize(forward(process(image)[None].to(device))).cpu().numpy() for image in images]
            )

    return embed


def agreement(name: str, weights: LocatedWeights, settings: GpuSettings) -> Results:
    """The same pictures on the device and, in float32, on the CPU: cosines, and the ten nearest of each query."""
    queries, references = settings.agree_on
    images = pictures(queries + references, settings.small_px, seed=5)

    def embed_and_rank(precision: str, device: str) -> tuple[Float32, Any]:
        backbone: LoadedBackbone = load_backbone(
            weights, input_px=settings.small_px, precision=precision, device=device
        )
        vectors = backbone.embed(images)
        return vectors, np.argsort(-(vectors[:queries] @ vectors[queries:].T), axis=1, kind="stable")[:, :K]

    device_vectors, device_rows = embed_and_rank(settings.precision, settings.device)
    cpu_vectors, cpu_rows = embed_and_rank("fp32", "cpu")
    cosines = (device_vectors * cpu_vectors).sum(axis=1)
    overlap = np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(device_rows, cpu_rows, strict=True)])
    note = f"mean {cosines.mean():.6f}, {len(images)} pictures, random weights"
    label = f"{name}, {settings.precision} against the CPU in fp32"
    least_cosine = Figure(f"{label}: least cosine", "CPU", float(cosines.min()), "", 0.999, note=note)
    return Results(figures=[least_cosine, Figure(f"{label}: Top-{K} overlap", "CPU", float(overlap) * 100, "%")])


def pictures(count: int, side: int, seed: int = 0) -> UInt8:
    """uint8 [count, side, side, 3]: coloured cells of many sizes, so that pictures differ as scenes do."""
    rng = np.random.default_rng(seed)
    cells = rng.choice([2, 4, 8, 16], size=count)
    coarse = [rng.integers(0, 256, (n, n, 3), np.uint8) for n in cells]
    return np.stack([np.kron(c, np.ones((side // len(c), side // len(c), 1), np.uint8)) for c in coarse])


# --- exact search -------------------------------------------------------------------------------


def search(count: int, dim: int, settings: GpuSettings) -> Results:
    """As `ExactIndex` answers where torch has the GPU: rows are proposed there and decided here."""
    generator = torch.Generator(settings.device).manual_seed(0)
    vectors = normalize(torch.randn(count, dim, device=settings.device, generator=generator)).cpu().numpy()
    queries = normalize(torch.randn(64, dim, generator=torch.Generator().manual_seed(1))).numpy()
    engine = Torch(vectors, settings.device)

    def hits(queries: Float32) -> Any:
        return nearest(vectors, engine, queries, K)[1]

    _check_exact(vectors, queries[:4], hits(queries[:4]))
    timed = [
        contest(
            f"{n} exact {'query' if n == 1 else 'queries'}, {count:,} x {dim}",
            "call",
            {OURS: Way(partial(hits, queries[:n]))},
            settings.rounds,
            warm_ups=3,
        )
        for n in (1, 64)
    ]
    target = {36_672: 0.3, 1_000_000: 2.0}.get(count) if settings.on_gpu else None
    return Results(timed, [_milliseconds(timed[0], target), _milliseconds(timed[1], None)])


def _check_exact(vectors: Float32, queries: Float32, rows: Any) -> None:
    """The K best by float64 on the CPU are those that were found."""
    parts = [queries.astype(np.float64) @ part.astype(np.float64).T for part in np.array_split(vectors, 64)]
    best = np.argsort(-np.concatenate(parts, axis=1), axis=1, kind="stable")[:, :K]
    if not np.array_equal(rows, best):
        raise RuntimeError("the device's top-k is not exact")


def _milliseconds(timed: Contest, target: float | None) -> Figure:
    note = f"minimum {timed.minimum(OURS) * 1e3:.3f} ms"
    return Figure(timed.name, "", timed.median(OURS) * 1e3, "ms", target, at_most=True, note=note)


# --- the call -----------------------------------------------------------------------------------


def _show(figures: Sequence[Figure]) -> None:
    print("\n".join(figures_table(figures)[2:]), flush=True)


def write(results: Results, folder: Path) -> Path:
    """gpu-<date>-<device>.json, and its table as .md beside it."""
    facts, peaks = results.records["machine"], results.records["ceilings"]
    path = write_json(results, folder, f"gpu-{facts['date'][:10]}-{ids.slug(facts['device'])}")
    head = [
        ("date", f"{facts['date']}, commit {facts['commit']}"),
        ("device", f"{facts['device']}; {facts['cpu']}, {facts['cores']} cores"),
        ("versions", f"Python {facts['python']}, " + plain_facts(facts["versions"])),
        ("ceilings", plain_facts(peaks)),
    ]
    lines = [*table(("", ""), head), "", *figures_table(results.figures)]
    path.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cuda:0 or cpu")
    parser.add_argument("--backbones", nargs="+", default=SIX, choices=SIX, metavar="NAME")
    parser.add_argument("--layers", type=int, help="only so many of each backbone, to try the script")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    device = str(resolve_device(options.device))
    on_gpu = device.startswith("cuda")
    dims = sorted({specs.row(name).dim for name in options.backbones})
    results = measure(
        GpuSettings(
            device=device,
            backbones=tuple(options.backbones),
            layers=options.layers,
            rounds=15 if on_gpu else 2,
            small_px=224,
            large_px=1024 if on_gpu else 256,
            batch=64 if on_gpu else 8,
            references=(*((36_672, dim) for dim in dims), *(((1_000_000, dim) for dim in dims) if on_gpu else ())),
            agree_on=(8, 64),
            matmul_side=8192 if on_gpu else 512,
        )
    )
    print(f"written: {write(results, options.out)}")


if __name__ == "__main__":
    main()
