"""The models of one server: loaded when first asked for, kept, and asked one at a time behind a short queue."""

from __future__ import annotations

import gc
import logging
import time
from dataclasses import dataclass
from threading import Lock, Thread

import numpy as np

from coarseloc.core.config import Settings
from coarseloc.core.errors import BackboneError
from coarseloc.core.types import Backbone, EmbeddingSpec, Float32, UInt8
from coarseloc.embedding.encoders import Encoders
from web.language import _
from web.problems import Problem

MOST_WAITING = 3  # beyond the one being embedded; they hold a server thread each
_log = logging.getLogger("coarseloc")


@dataclass(frozen=True, slots=True)
class Embedded:
    """A query's vector, and what it cost."""

    vector: Float32  # [D], unit norm
    load_ms: float  # 0 where the model was there
    embed_ms: float  # resize, normalise, forward; the device synchronised


class QueryEncoders:
    def __init__(self, settings: Settings) -> None:
        self._encoders = Encoders(settings)
        self._loaded: dict[str, Backbone] = {}  # by spec digest
        self._one_at_a_time = Lock()
        self._counting = Lock()
        self._inside = 0

    def loaded(self) -> list[str]:
        return sorted(backbone.spec.backbone for backbone in self._loaded.values())

    def missing(self, spec: EmbeddingSpec) -> str | None:
        """Why this backbone cannot embed here and what to do about it; None where its weights are."""
        try:
            found = self._encoders.missing(spec.backbone)
        except BackboneError:
            return _("{name} is not among this server's backbones.", name=spec.backbone)
        return f"{found.reason}. {found.remedy}" if found else None

    def warm(self, spec: EmbeddingSpec) -> None:
        """Begin to load a backbone in the background, if it can be loaded and nobody is at it."""
        if spec.digest in self._loaded or self._inside or self.missing(spec):
            return
        Thread(target=self._warm, args=(spec,), name="coarseloc-warm", daemon=True).start()

    def _warm(self, spec: EmbeddingSpec) -> None:
        if not self._one_at_a_time.acquire(blocking=False):
            return
        try:
            self._backbone(spec)
        except Exception as error:  # the search that needs it will say so to its reader
            _log.warning("%s could not be loaded ahead: %s", spec.backbone, error)
        finally:
            self._one_at_a_time.release()

    def embed(self, spec: EmbeddingSpec, pixels: UInt8) -> Embedded:
        """uint8 [H, W, 3] → its embedding by the very weights and settings of `spec`.

        Raises Problem 429 where too many wait already, WeightsError where the weights are missing or others.
        """
        with self._counting:
            if self._inside > MOST_WAITING:
                detail = _("{n} images are being embedded or wait for it. Try again in a moment.", n=self._inside)
                raise Problem(429, detail, retry_after_s=2 * self._inside)
            self._inside += 1
        try:
            with self._one_at_a_time:
                started = time.perf_counter()
                fresh = spec.digest not in self._loaded
                backbone = self._backbone(spec)
                loaded = time.perf_counter()
                vector = backbone.embed(pixels[None])[0]
                done = time.perf_counter()
        finally:
            with self._counting:
                self._inside -= 1
        return Embedded(vector, (loaded - started) * 1e3 if fresh else 0.0, (done - loaded) * 1e3)

    def _backbone(self, spec: EmbeddingSpec) -> Backbone:
        if spec.digest not in self._loaded:
            self._loaded[spec.digest] = loaded = self._encoders.load_matching(spec)
            loaded.embed(_blank(spec.input_px))  # the first call allocates and compiles; nobody times it
            # The half a million objects of torch and the model stay as long as the server does. Looking through
            # them for garbage, every other second under load, stopped all threads for 0.3 s.
            gc.collect()
            gc.freeze()
        return self._loaded[spec.digest]


def _blank(side: int) -> UInt8:
    return np.full((1, side, side, 3), 128, np.uint8)
