r"""Train the demo backbone: a small DINOv3 ViT that learns places on generated terrain, nothing else.

    python tools/train_demo_backbone.py --work /tmp/demo-training --out /tmp/demo-training/weights
    python tools/train_demo_backbone.py --work /tmp/demo-training --out /tmp/demo-training/weights \
        --resume --steps 1450
    python tools/train_demo_backbone.py --work /tmp/demo-training --out /tmp/demo-training/weights \
        --resume --steps 2000

The later commands raise the learning rate again and let it fall once more; the three make what is shipped.

The objective is contrastive: a query picture must be nearer to the reference whose pose is the nearest than
to every other of the batch: neighbouring tiles, neighbouring headings, other places. Step n draws from
generators seeded by (seed, n), so a run that was stopped and resumed sees what an unbroken one would.
What is shipped is the running average of the weights, written every `--save-every` steps.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from initial_weights import initialise
from torch import Tensor
from torch.nn import functional as nnf
from training_views import Area, Pool, alter, cut, draw_poses, pose_distance
from transformers import DINOv3ViTConfig, DINOv3ViTModel

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as the LVD rows use
SHARPNESS = 0.5  # of the targets, in units of pose_distance
SIZES_PX = (96, 96, 112)  # cheap ones first; the last part of the run is at 128, where the model is used
FINAL_PX, FINAL_PART = 128, 0.8

Figures = dict[str, float]


def build_model() -> DINOv3ViTModel:
    """Patch 16, four registers, RoPE: the architecture of the six, small."""
    config = DINOv3ViTConfig(  # type: ignore[call-arg]  # every configuration takes it
        patch_size=16,
        image_size=128,
        hidden_size=160,
        intermediate_size=640,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_register_tokens=4,
        key_bias=False,
        pos_embed_rescale=None,  # a training-time jitter of positions: here the position is the answer
        attn_implementation="sdpa",
    )
    return DINOv3ViTModel(config)


def embed(model: DINOv3ViTModel, pictures: Tensor) -> Tensor:
    """Float [N, 3, H, W] in 0..1 → unit float [N, D]."""
    return nnf.normalize(model(pixel_values=normalised(pictures)).pooler_output, dim=-1)


def normalised(pictures: Tensor) -> Tensor:
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (MEAN, STD))
    return (pictures - mean) / std


def sample_pictures(pool: Pool, seed: int) -> Tensor:
    """Some unaltered pictures of the first areas, float [N, 3, 96, 96]: what the first weights are made from."""
    return draw_batch(list(pool.at(0))[:16], np.random.default_rng(seed), 96, 4, np.zeros(16))[1]


def draw_batch(
    areas: Sequence[Area], rng: np.random.Generator, px: int, clusters: int, strengths: np.ndarray
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and references, float [N, 3, px, px], and how near each pair is: weights float [N, N] in 0..1.

    `strengths`, 0 to 1, one for each area: how much the two pictures of a pair differ in colour, season, camera.
    """
    queries, references, near = [], [], []
    for area, strength in zip(areas, strengths, strict=True):
        footprint = float(np.exp(rng.uniform(math.log(220), math.log(900))))
        reference, query = draw_poses(rng, clusters, footprint)
        first = int(rng.integers(len(area.seasons)))
        second = (first + int(rng.random() < 0.7 * strength)) % len(area.seasons)
        references.append(cut(area.seasons[first], reference, px, rng, loose=0.15 * strength))
        queries.append(cut(area.seasons[second], query, px, rng, loose=strength))
        near.append(np.exp(-(pose_distance(query, reference) ** 2) / (2 * SHARPNESS**2)))
    weights = torch.block_diag(*(torch.from_numpy(w).float() for w in near))
    pair_strengths = np.repeat(strengths, 4 * clusters)
    return alter(torch.cat(queries), rng, pair_strengths), alter(torch.cat(references), rng, pair_strengths), weights


def contrastive_loss(queries: Tensor, references: Tensor, weights: Tensor, temperature: Tensor) -> Tensor:
    """Cross entropy of similarities [N, N] against the nearness of poses, from both sides."""
    logits = queries @ references.T / temperature
    by_query = -(nnf.normalize(weights, p=1, dim=1) * logits.log_softmax(1)).sum(1).mean()
    by_reference = -(nnf.normalize(weights, p=1, dim=0) * logits.log_softmax(0)).sum(0).mean()
    return (by_query + by_reference) / 2


def strengths_at(step: int, ramp: int, areas: int, rng: np.random.Generator) -> np.ndarray:
    """From nearly equal pictures to altered ones, then anything between: float [areas].

    Started at full strength the loss stayed at chance; kept at full strength it fell slowly.
    """
    return np.full(areas, 0.1 + 0.00225 * step) if step < ramp else rng.uniform(0.25, 1.0, areas)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Warm up over 50 steps, stay, and fall to a hundredth over the last 35 %."""
    fall = max(0.0, (step / steps - 0.65) / 0.35)
    return peak * min(1.0, (step + 1) / 50) * (1 - 0.99 * fall)


def ship(average: DINOv3ViTModel, out: Path) -> None:
    """Write the Hugging Face folder; each file is whole or the one before."""
    part = out.with_name(f".{out.name}.part")
    average.save_pretrained(part)
    out.mkdir(parents=True, exist_ok=True)
    for file in part.iterdir():
        file.chmod(0o644)
        file.replace(out / file.name)
    part.rmdir()


@dataclass
class Run:
    """All that changes from step to step."""

    model: DINOv3ViTModel
    average: DINOv3ViTModel  # what is shipped
    log_temperature: torch.nn.Parameter
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0

    @classmethod
    def begin(cls, pictures: Tensor, seed: int) -> Run:
        torch.manual_seed(seed)
        model = build_model().train()
        initialise(model, normalised(pictures))
        log_temperature = torch.nn.Parameter(torch.tensor(math.log(0.07)))
        decayed = [p for p in model.parameters() if p.ndim >= 2]
        plain = [p for p in model.parameters() if p.ndim < 2] + [log_temperature]
        groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
        return cls(model, copy.deepcopy(model).eval(), log_temperature, optimizer)

    def load(self, file: Path) -> None:
        state = torch.load(file, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.log_temperature.data.copy_(state["log_temperature"])
        self.step, self.seconds = state["step"], state["seconds"]

    def save(self, file: Path) -> None:
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "log_temperature": self.log_temperature.data,
            "step": self.step,
            "seconds": self.seconds,
        }
        torch.save(state, file.with_suffix(".part"))
        file.with_suffix(".part").replace(file)


def take_step(run: Run, areas: Sequence[Area], rng: np.random.Generator, options: argparse.Namespace) -> Figures:
    """One batch, one update; returns what the log says of it."""
    chosen = [areas[int(i)] for i in rng.choice(len(areas), options.areas, replace=False)]
    px = FINAL_PX if run.step >= FINAL_PART * options.steps else int(rng.choice(SIZES_PX))
    strengths = strengths_at(run.step, options.ramp, options.areas, rng)
    queries, references, weights = draw_batch(chosen, rng, px, options.clusters, strengths)
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(run.step, options.steps, options.lr)
    q, r = embed(run.model, torch.cat([queries, references])).chunk(2)
    loss = contrastive_loss(q, r, weights, run.log_temperature.exp().clamp(0.02, 0.2))
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
    run.optimizer.step()
    decay = min(0.995, (run.step + 1) / (run.step + 20))
    with torch.no_grad():
        for slow, fast in zip(run.average.parameters(), run.model.parameters(), strict=True):
            slow.lerp_(fast, 1 - decay)
    hit = (q @ r.T).argmax(1) == weights.argmax(1)
    temperature = run.log_temperature.exp().item()
    return {"loss": loss.item(), "hit": hit.float().mean().item(), "px": px, "temperature": temperature}


def train(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    state = options.work / "state.pt"
    pool = Pool(options.seed * 1_000_000, options.pool, options.refresh)
    run = Run.begin(sample_pictures(pool, options.seed), options.seed)
    if options.resume:
        run.load(state)
    started = time.monotonic() - run.seconds
    with (options.work / "log.jsonl").open("a") as log:
        while run.step < options.steps:
            figures = take_step(run, pool.at(run.step), np.random.default_rng([options.seed, run.step]), options)
            run.seconds = time.monotonic() - started
            if run.step % 10 == 0:
                print(json.dumps({"step": run.step, **figures, "seconds": run.seconds}), file=log, flush=True)
            run.step += 1
            if run.step % options.save_every == 0 or run.step == options.steps:
                run.save(state)
                ship(run.average, options.out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="Hugging Face folder to write")
    parser.add_argument("--work", type=Path, required=True, help="folder for the log and the state to resume from")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--ramp", type=int, default=325, help="steps of ever more altered pictures")
    parser.add_argument("--areas", type=int, default=8, help="areas in a batch")
    parser.add_argument("--clusters", type=int, default=3, help="clusters of four pairs in an area")
    parser.add_argument("--pool", type=int, default=24, help="areas held at a time")
    parser.add_argument("--refresh", type=int, default=10, help="steps between two new areas")
    parser.add_argument("--save-every", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", action="store_true")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
