"""A precision is chosen by trial: only one that finds the same places, the fastest of these."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest

from coarseloc.core.errors import BackboneError
from coarseloc.core.types import EmbeddingSpec
from coarseloc.embedding import precision_trial
from coarseloc.embedding.precision_trial import PrecisionTrial, fastest, try_precisions

SPEC = EmbeddingSpec("fake", 16, "weights", 32, (0.5,) * 3, (0.5,) * 3, "cls")
CLOCK = [0.0]  # seconds, which encoders alone take
PICTURES = list(np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8))


@dataclass
class Encoder:
    """Embeds by a fixed projection, with noise and in a time of its precision's own."""

    spec: EmbeddingSpec
    noise: float
    seconds: float

    def embed(self, images):
        CLOCK[0] += self.seconds
        projection = np.random.default_rng(1).standard_normal((8 * 8 * 3, 16))
        vectors = (images.reshape(len(images), -1) / 255.0 - 0.5) @ projection
        noise = np.random.default_rng(int(images.sum())).standard_normal(vectors.shape)
        vectors = vectors + self.noise * noise
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(autouse=True)
def _their_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision_trial, "time", SimpleNamespace(perf_counter=lambda: CLOCK[0]))


def trials(bf16: tuple[float, float], int8: tuple[float, float] | None):
    ways = {"fp32": (0.0, 0.004), "bf16": bf16, "int8": int8}

    def load(spec):
        if ways[spec.precision] is None:
            raise BackboneError("not on this device")
        return Encoder(spec, *ways[spec.precision])

    return try_precisions(lambda precision: replace(SPEC, precision=precision), load, PICTURES)


def test_a_faster_precision_that_finds_the_same_places_is_chosen():
    found = trials((1e-4, 0.0), (5.0, 0.0))
    assert [trial.precision for trial in found] == ["fp32", "bf16", "int8"]
    fp32, bf16, int8 = found
    assert (fp32.agreement, fp32.drift) == (1.0, pytest.approx(0, abs=1e-6)) and fp32.ms == pytest.approx(0.5)
    assert bf16.agreement == 1.0 and 0 < bf16.drift < 1e-3
    assert int8.agreement < 0.9 and int8.drift > 0.1
    assert fastest(found) is bf16


def test_a_precision_that_the_device_has_not_got_is_left_out_and_fp32_stays_where_nothing_serves():
    found = trials((5.0, 0.0), None)
    assert [trial.precision for trial in found] == ["fp32", "bf16"] and fastest(found).precision == "fp32"


@pytest.mark.parametrize(("agreement", "chosen"), [(0.995, "int8"), (0.99, "fp32")])
def test_half_a_percent_of_other_places_is_the_limit(agreement, chosen):
    found = [PrecisionTrial("fp32", 10.0, 1.0, 0.0), PrecisionTrial("int8", 4.0, agreement, 1e-3)]
    assert fastest(found).precision == chosen
