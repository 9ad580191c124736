"""Measure the demo backbone beside two baselines, side by side in one run, and print Markdown.

    pip install scikit-image        # for this tool only: the HOG baseline
    python tools/evaluate_demo_backbone.py --naip-references 2018.tif --naip-frames 2020.tif --work /tmp/evaluation

Baselines: the same architecture with random weights, and a colour histogram with HOG. References are cut at
50 % overlap and eight headings; frames lie anywhere, at any yaw. Generated areas use seeds that training,
which counts from its own seed times a million, never reaches.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from coarseloc.core import geo
from coarseloc.core.rotation import HEADINGS
from coarseloc.core.types import Failure, Flight, TileSource
from coarseloc.embedding.backbone import load_backbone
from coarseloc.embedding.specs import BACKBONES
from coarseloc.embedding.weights import MissingWeights, find
from coarseloc.imagery.orthophoto import open_orthophoto
from coarseloc.simulate.camera import Changes
from coarseloc.simulate.flight import simulate_flight
from coarseloc.simulate.terrain import write_area

Describe = Callable[[Sequence[np.ndarray]], np.ndarray]
"""uint8 [H, W, 3] pictures → float32 [N, D], rows of unit norm."""


@dataclass(frozen=True, slots=True)
class References:
    """Every rotated tile of a set: pictures [N], and float arrays [N] of place number, lon, lat, heading."""

    pictures: list[np.ndarray]
    place: np.ndarray
    lon: np.ndarray
    lat: np.ndarray
    heading: np.ndarray
    footprint_m: float


@dataclass(frozen=True, slots=True)
class Task:
    """Frames with their truth, and the references to find them in."""

    name: str
    references: References
    flight: Flight


def model_describer(folder: Path, input_px: int, batch: int = 64) -> Describe:
    """The loading path that every backbone takes, on a folder."""
    weights = find(replace(BACKBONES["demo"], folder=folder), folder)
    if isinstance(weights, MissingWeights):
        raise weights.error()
    backbone = load_backbone(weights, input_px=input_px, device="cpu")

    def describe(pictures: Sequence[np.ndarray]) -> np.ndarray:
        parts = [backbone.embed(np.stack(pictures[i : i + batch])) for i in range(0, len(pictures), batch)]
        return np.concatenate(parts)

    return describe


def random_describer(folder: Path, work: Path, input_px: int) -> Describe:
    """The architecture of `folder` as transformers initialises it."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    torch.manual_seed(0)
    DINOv3ViTModel(DINOv3ViTConfig.from_pretrained(folder)).save_pretrained(work / "random")
    return model_describer(work / "random", input_px)


def hog_describer(side_px: int = 128) -> Describe:
    """Colour histogram (8 bins each of HSV, square-rooted) and HOG (16-pixel cells), each of unit norm."""
    from skimage.feature import hog

    def descriptor(picture: np.ndarray) -> np.ndarray:
        image = Image.fromarray(picture).resize((side_px, side_px), Image.Resampling.BOX)
        hsv = np.asarray(image.convert("HSV"))
        colour = np.sqrt(np.concatenate([np.histogram(hsv[..., c], 8, (0, 256))[0] for c in range(3)]))
        shape = hog(np.asarray(image), 9, (16, 16), (2, 2), block_norm="L2-Hys", channel_axis=-1)
        combined = np.concatenate([colour / np.linalg.norm(colour), shape / max(np.linalg.norm(shape), 1e-9)])
        unit: np.ndarray = (combined / np.linalg.norm(combined)).astype(np.float32)
        return unit

    return lambda pictures: np.stack([descriptor(picture) for picture in pictures])


def read_references(source: TileSource) -> References:
    pictures, rows = [], []
    for number, tile in enumerate(source.tiles):
        for view in source.views(tile, HEADINGS):
            if isinstance(view, Failure):
                raise SystemExit(f"{view.item}: {view.message}")
            pictures.append(view.pixels)
            rows.append((number, tile.center.lon, tile.center.lat, view.angle_deg))
    place, lon, lat, heading = np.array(rows, float).T
    return References(pictures, place.astype(int), lon, lat, heading, float(source.reference_set.footprint_m or 0))


def measure(task: Task, references: np.ndarray, frames: np.ndarray) -> dict[str, float]:
    """The figures of one descriptor on one task. references, frames: unit float32 [N, D]."""
    r, frames_flown = task.references, task.flight.frames
    lon, lat, yaw = np.array([(*f.truth.location, f.truth.yaw_deg) for f in frames_flown if f.truth.location], float).T
    distance = geo.distance_m(lon[:, None], lat[:, None], r.lon, r.lat)  # [Q, N]
    east, north = np.array([geo.metres_per_degree(value) for value in lat]).T
    dx, dy = np.abs(r.lon - lon[:, None]) * east[:, None], np.abs(r.lat - lat[:, None]) * north[:, None]
    holds = np.maximum(dx, dy) <= r.footprint_m / 2
    right_place = holds | (distance <= distance.min(1, keepdims=True) + 0.01)
    off = np.abs((r.heading - yaw[:, None] + 180) % 360 - 180)
    order = np.argsort(-(frames @ references.T), axis=1, kind="stable")
    rows = np.arange(len(lon))
    top = order[:, 0]
    right = right_place[rows, top]
    nearest = distance[rows, top] <= distance.min(1) + 0.01
    heading = off[rows, top] <= 22.5
    top5 = np.take_along_axis(right_place, order[:, :5], 1).any(1)
    return {
        "n": len(lon),
        "top-1 place %": 100 * right.mean(),
        "nearest centre %": 100 * nearest.mean(),
        "top-5 place %": 100 * top5.mean(),
        "heading bin %": 100 * heading.mean(),
        "heading bin, place right %": 100 * heading[right].mean() if right.any() else float("nan"),
        "median error m": float(np.median(distance[rows, top])),
    }


def rotation_table(references: References, vectors: np.ndarray) -> list[tuple[int, float, float]]:
    """Per turn: (degrees, mean cosine of a place at 0 with itself so turned, mean margin of that cosine over
    the best other place at any heading)."""
    by_heading = {h: vectors[references.heading == h] for h in HEADINGS}  # in one order of places each
    upright = by_heading[0]
    cosines = np.stack([upright @ by_heading[h].T for h in HEADINGS])  # [8, P, P]
    of_other_places = cosines.copy()
    of_other_places[:, np.arange(len(upright)), np.arange(len(upright))] = -2.0
    best_other = of_other_places.max(axis=(0, 2))
    own = [np.diagonal(cosines[k]) for k in range(len(HEADINGS))]
    return [(h, float(o.mean()), float((o - best_other).mean())) for h, o in zip(HEADINGS, own, strict=True)]


def generated_tasks(work: Path, seeds: Sequence[tuple[int, str]], frames: int) -> list[Task]:
    """Areas of 3.8 x 3 km in 221 places of 400 m; frames of the same picture with a camera's changes, and of
    the place in another season."""
    tasks = []
    for seed, style in seeds:
        paint = partial(write_area, seed=seed, width_m=3800.0, height_m=3000.0, style=style)
        summer, later = paint(work / f"{style}-{seed}.tif"), paint(work / f"{style}-{seed}-later.tif", season=1)
        references = read_references(open_orthophoto(summer, footprint_m=400, overlap=0.5, tile_px=200))
        for name, picture, number in (("same season", summer, 1), ("another season", later, 2)):
            flight = simulate_flight(
                picture, work / "flights", flight_id=f"{style}-{seed}-{number}", frames=frames, footprint_m=400,
                seed=seed, side_px=200, path="random",
            )  # fmt: skip
            tasks.append(Task(f"generated {style}, {name}", references, flight))
    return tasks


def naip_tasks(work: Path, references: Path, frames: Path, count: int) -> list[Task]:
    """640 m footprints; frames of the other year as they are, and with a camera's changes."""
    tiles = read_references(open_orthophoto(references, footprint_m=640, overlap=0.5, tile_px=128))
    tasks = []
    for number, (name, changes) in enumerate((("as is", Changes.none()), ("camera's changes", Changes())), 1):
        flight = simulate_flight(
            frames, work / "flights", flight_id=f"naip-{number}", frames=count, footprint_m=640, seed=number,
            side_px=128, path="random", changes=changes,
        )  # fmt: skip
        tasks.append(Task(f"NAIP 2018 → 2020, {name}", tiles, flight))
    return tasks


def markdown(rows: Sequence[dict[str, object]]) -> str:
    heads = list(rows[0])
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        lines.append("| " + " | ".join(f"{v:.1f}" if isinstance(v, float) else str(v) for v in row.values()) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=Path("coarseloc/embedding/demo_weights"))
    parser.add_argument("--input-px", type=int, default=224)
    parser.add_argument("--naip-references", type=Path)
    parser.add_argument("--naip-frames", type=Path)
    parser.add_argument("--frames", type=int, default=320)
    parser.add_argument("--seeds", type=int, nargs="*", default=[101, 102])
    parser.add_argument("--styles", nargs="*", default=["mixed"])
    parser.add_argument("--only-model", action="store_true", help="leave the baselines out (a quick look)")
    parser.add_argument("--work", type=Path, required=True, help="an empty or new folder for areas and flights")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    describers = {"demo": model_describer(options.weights, options.input_px)}
    if not options.only_model:
        describers["random weights"] = random_describer(options.weights, options.work, options.input_px)
        describers["histogram + HOG"] = hog_describer()
    seeds = [(seed, style) for style in options.styles for seed in options.seeds]
    tasks = generated_tasks(options.work, seeds, options.frames)
    if options.naip_references and options.naip_frames:
        tasks += naip_tasks(options.work, options.naip_references, options.naip_frames, options.frames)
    rows, turns, cache = [], [], {}
    for task in tasks:
        frames = [np.asarray(Image.open(frame.path)) for frame in task.flight.frames]
        for name, describe in describers.items():
            started = time.monotonic()
            key = (name, id(task.references))
            if key not in cache:
                cache[key] = describe(task.references.pictures)
                for degrees, cosine, margin in rotation_table(task.references, cache[key]):
                    turns.append(
                        {
                            "set": task.name,
                            "descriptor": name,
                            "turn": degrees,
                            "cosine": f"{cosine:.3f}",
                            "margin": f"{margin:+.3f}",
                        }
                    )
            figures = measure(task, cache[key], describe(frames))
            rows.append(
                {"task": task.name, "places": int(task.references.place.max()) + 1, "descriptor": name, **figures}
            )
            print(json.dumps({**rows[-1], "seconds": round(time.monotonic() - started, 1)}), flush=True)
    print("\n" + markdown(rows) + "\n\n" + markdown([turn for turn in turns if turn["descriptor"] == "demo"]))


if __name__ == "__main__":
    main()
