"""A server's backbones: the first picture need not wait for torch."""

import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from coarseloc.core import config
from coarseloc.embedding import engine
from coarseloc.embedding.encoders import Encoders
from web import state


def test_the_first_picture_is_embedded_by_numpy_until_what_is_faster_is_loaded(
    make_dinov3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dinov3(tmp_path / "model")
    toml = f'input_px = 32\ndevice = "cpu"\n[[backbones]]\nname = "small"\npath = "{tmp_path / "model"}"\n'
    (tmp_path / "coarseloc.toml").write_text(toml)
    settings = config.load(tmp_path)
    spec = Encoders(settings).spec("small")
    monkeypatch.setattr(engine, "_needs_no_torch", lambda *_: True)  # it is imported here
    monkeypatch.setattr(state, "REPLACED_AFTER_S", 0.0)
    encoders = state.QueryEncoders(settings)
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    first = encoders.embed(spec, lambda: nullcontext(picture))
    assert first.load_ms > 0 and encoders.loaded() == ["small"]
    until = time.monotonic() + 60
    while encoders._loaded[spec.digest].for_few and time.monotonic() < until:
        time.sleep(0.01)
    second = encoders.embed(spec, lambda: nullcontext(picture))
    assert not encoders._loaded[spec.digest].for_few and second.load_ms == 0
    np.testing.assert_allclose(second.vector, first.vector, atol=1e-5)
