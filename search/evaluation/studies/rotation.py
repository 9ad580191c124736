"""The rotation laboratory: how stable are embeddings when the aircraft turns, and what makes a search robust to it.

Frames are cut at random places off the references' grid and turned to every heading; references lie on the grid at
eight headings. Everything below follows from these two sets of vectors: `queries` float32 [Q, H, D] and `references`
float32 [R, 8, D].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from coarseloc.core.errors import BackboneError, InputError
from coarseloc.core.rotation import HEADINGS
from coarseloc.core.types import Backbone, EmbeddingSpec, Float32, Progress, UInt8
from coarseloc.store import Database
from coarseloc.store.studies import Arrays, CurvePoint
from search.evaluation.studies import truth
from search.evaluation.studies.ground import TURNING_ROOM, Ortho, Pictures, anywhere, shared_pixels
from search.evaluation.studies.patches import PATCH_ARRAYS, patch_curves, patch_figures
from search.evaluation.studies.study import Answer, Load, Parts, Step, run_study
from search.evaluation.studies.timing import EMBED_TIMES, embed_times
from search.evaluation.studies.truth import Truth
from search.evaluation.studies.turns import Vectors, compare, curves
from search.evaluation.studies.ways import Way

STEPS = (5, 9, 15, 45)  # degrees: so that the eight headings are among all
_VERSION = 3  # raise it when the same question would be answered otherwise


def run_rotation(
    db: Database,
    ground: Ortho | Pictures,
    specs: Sequence[EmbeddingSpec],
    load: Load,
    environment: Mapping[str, Any],
    *,
    frames_from: Ortho | None = None,
    step: int = 15,
    frames: int = 40,
    patches: int = 6,
    seed: int = 1,
    progress: Progress | None = None,
) -> Answer:
    """Answer, or go on answering, or look up what was answered before.

    `frames_from`: another orthophoto of the same place (another year, another season) that frames are cut from.
    `patches`: the frames whose patch tokens are followed. Raises InputError for a step that is not 5, 9, 15 or 45.
    """
    if step not in STEPS:
        raise InputError(f"a step of {step} degrees: expected one of {', '.join(map(str, STEPS))}, which divide 45")
    asked = {
        "version": _VERSION,
        "ground": ground.facts,
        "frames_from": frames_from and frames_from.facts,
        "step": step,
        "frames": frames,
        "patches": patches,
        "seed": seed,
    }

    def set_up() -> Rotation:
        if isinstance(ground, Pictures):
            scene = _pictured(ground, frames)
        else:
            scene = _cut(ground, frames_from or ground, frames, seed)
        return Rotation(scene, step, patches)

    return run_study(db, "rotation", asked, environment, specs, load, set_up, progress)


# --- what is looked at --------------------------------------------------------------------------

See = Callable[[int, Sequence[int]], UInt8]
"""(a number, H headings) → uint8 [H, S, S, 3]."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Reference places and frames, each seen from any heading."""

    references: int
    frames: int
    reference: See
    frame: See
    source: See  # what the references' own image shows where a frame was cut
    truth: Truth


def _cut(ground: Ortho, eyes: Ortho, count: int, seed: int) -> Scene:
    """References of one orthophoto, frames at random places in the same or another."""
    places = anywhere(ground, eyes, count, ground.footprint_m * TURNING_ROOM, seed)

    def reference(i: int, headings: Sequence[int]) -> UInt8:
        return np.stack([ground.view(ground.centres[i], heading) for heading in headings])

    def frame(i: int, headings: Sequence[int]) -> UInt8:
        return np.stack([eyes.view(places[i], heading, ground.footprint_m) for heading in headings])

    def source(i: int, headings: Sequence[int]) -> UInt8:
        return np.stack([ground.view(places[i], heading) for heading in headings])

    held = truth.of_places(places, ground.centres, ground.footprint_m / 2)
    return Scene(len(ground.centres), len(places), reference, frame, source, held)


def _pictured(ground: Pictures, count: int) -> Scene:
    """Pictures are references and frames at once."""
    references = len(ground.paths)
    frames = min(count, references)

    def see(i: int, headings: Sequence[int]) -> UInt8:
        return np.stack([ground.view(i, heading) for heading in headings])

    return Scene(references, frames, see, see, see, truth.of_pictures(frames, references, ground.centres))


@dataclass(frozen=True, slots=True)
class Rotation:
    """The experiment: the scene at every `step` degrees, the patch tokens of the first frames."""

    scene: Scene
    step: int
    patches: int

    @property
    def counts(self) -> Mapping[str, int]:
        return {"frames": self.scene.frames, "references": self.scene.references}

    def limits(self) -> Mapping[str, Any]:
        every = np.ones(self.scene.references, np.bool_)
        nearest = self.scene.truth.nearest(every)
        floor_m = float(np.median(self.scene.truth.nearest_m(every)))
        return {
            **shared_pixels(self._pictures(i, int(reference)) for i, reference in enumerate(nearest)),
            "floor_m": floor_m if math.isfinite(floor_m) else None,
        }

    def _pictures(self, frame: int, reference: int) -> tuple[UInt8, UInt8, UInt8]:
        scene = self.scene
        return scene.frame(frame, (0,))[0], scene.source(frame, (0,))[0], scene.reference(reference, (0,))[0]

    def steps(self) -> list[Step]:
        made = [Step(name, partial(self._reference, i)) for i, name in enumerate(self._names("references"))]
        made += [Step(name, partial(self._frame, i)) for i, name in enumerate(self._names("frames"))]
        made += [Step(name, partial(self._patches, i)) for i, name in enumerate(self._names("patches"))]
        return [*made, Step("times", self._times)]

    def judged(self, backbone: str, parts: Parts) -> tuple[list[CurvePoint], list[Way]]:
        frames, references = (parts(self._names(of), "vectors") for of in ("frames", "references"))
        vectors = Vectors(frames, references, self.scene.truth, self.step)
        points = curves(backbone, vectors)
        if self.patches:
            names = self._names("patches")
            points += patch_curves(backbone, self.step, {array: parts(names, array) for array in PATCH_ARRAYS})
        return points, compare(vectors, {name: float(parts(["times"], name)[0]) for name in EMBED_TIMES})

    def _names(self, of: str) -> list[str]:
        counts = {**self.counts, "patches": min(self.patches, self.scene.frames)}
        return [f"{of}/{i}" for i in range(counts[of])]

    def _reference(self, i: int, backbone: Backbone) -> Arrays:
        return {"vectors": backbone.embed(self.scene.reference(i, HEADINGS))}

    def _frame(self, i: int, backbone: Backbone) -> Arrays:
        return {"vectors": backbone.embed(self._all_round(i))}

    def _patches(self, i: int, backbone: Backbone) -> Arrays:
        other = self.scene.frame((i + 1) % self.scene.frames, (0,))
        mine = _patch_tokens(backbone, self._all_round(i))
        return patch_figures(mine, _patch_tokens(backbone, other)[0], self.step)

    def _times(self, backbone: Backbone) -> Arrays:
        return embed_times(backbone, self.scene.frame(0, HEADINGS))

    def _all_round(self, i: int) -> UInt8:
        return self.scene.frame(i, range(0, 360, self.step))


def _patch_tokens(backbone: Backbone, images: UInt8) -> Float32:
    """float32 [B, G, G, D]; BackboneError for an encoder that has none."""
    tokens = getattr(backbone, "patch_tokens", None)
    if tokens is None:
        raise BackboneError(f"backbone {backbone.spec.backbone} has no patch tokens: leave them out with --patches 0")
    found: Float32 = tokens(images)
    return found
