"""Weights that run code, settings that are none, options as nobody would type them."""

from __future__ import annotations

import io
import json
import os
import pickle
from contextlib import suppress
from pathlib import Path

import click
import pytest
import torch
from hostile import fuzzed, mutated, survives
from hypothesis import strategies as st

from coarseloc.cli.options import Angles, Overlap
from coarseloc.core import config, filters
from coarseloc.core.config import CustomBackbone
from coarseloc.core.filters import Where
from coarseloc.embedding import backbone, checkpoint, specs, weights
from coarseloc.imagery.flight_toml import read_flight_toml


def saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


GOOD_PTH = saved({"cls_token": torch.zeros(1, 1, 4), "norm.weight": torch.ones(4)})


class Code:
    """Runs when it is unpickled by someone careless."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.proof),)


@fuzzed(content=st.data())
def test_checkpoints(scratch, content):
    path = scratch / "model.pth"
    path.write_bytes(content.draw(mutated(GOOD_PTH) | mutated(GOOD_PTH, within=80) | st.binary(max_size=200)))
    with survives():
        found = checkpoint.read(path)
        checkpoint.to_transformers(found, specs.row("vits16"), path.name)


@pytest.mark.parametrize("wrap", [lambda code: code, lambda code: {"cls_token": code}, lambda code: [code]])
@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("by", ["pickle", "torch"])
def test_code_in_a_checkpoint_is_refused_and_never_run(tmp_path, wrap, protocol, by):
    proof, path = tmp_path / "proof", tmp_path / "model.pth"
    content = wrap(Code(proof))
    if by == "pickle":
        path.write_bytes(pickle.dumps(content, protocol))
    else:
        torch.save(content, path, pickle_protocol=max(protocol, 1))
    with survives():
        checkpoint.read(path)
        raise AssertionError("it was read")
    assert not proof.exists()


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))
KEYS = st.sampled_from(
    ["model_type", "hidden_size", "hidden_sizes", "num_hidden_layers", "patch_size", "num_attention_heads",
     "intermediate_size", "use_gated_mlp", "num_register_tokens", "hidden_act", "rope_theta", "image_size"]
)  # fmt: skip


@fuzzed(changes=st.dictionaries(KEYS, VALUES, min_size=1, max_size=2), whole=st.booleans())
def test_model_configurations(scratch, tiny_dinov3, changes, whole):
    folder = scratch / "model"
    folder.mkdir(exist_ok=True)
    facts = json.loads((tiny_dinov3 / "config.json").read_text()) if whole else {}
    (folder / "config.json").write_text(json.dumps(facts | changes))
    (folder / "model.safetensors").write_bytes((tiny_dinov3 / "model.safetensors").read_bytes())
    row = specs.table([CustomBackbone(name="hostile", path=folder)])["hostile"]
    with survives():
        found = weights.require(row, scratch)
        if (
            max((v for v in changes.values() if isinstance(v, int)), default=0) < 4096
        ):  # else: a model as large as asked
            backbone.load_backbone(found, input_px=32)


@fuzzed(content=st.data())
def test_safetensors(scratch, tiny_dinov3, content):
    folder = scratch / "tensors"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_bytes((tiny_dinov3 / "config.json").read_bytes())
    whole = (tiny_dinov3 / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content.draw(mutated(whole, within=content.draw(st.integers(8, 3000)))))
    row = specs.table([CustomBackbone(name="hostile", path=folder)])["hostile"]
    with survives():
        backbone.load_backbone(weights.require(row, scratch), input_px=32)


GOOD_TOML = b'input_px = 224\ndevice = "cpu"\n[[backbones]]\nname = "x"\npath = "/m"\nmean = [0.1, 0.2, 0.3]\n'


@fuzzed(content=st.data())
def test_configuration_files(scratch, content):
    path = scratch / "coarseloc.toml"
    path.write_bytes(content.draw(mutated(GOOD_TOML) | st.binary(max_size=80) | st.text().map(str.encode)))
    with survives():
        config.load(scratch)


GOOD_FLIGHT_TOML = (
    b"[camera]\nfocal_length_px = 3000\nimage_width_px = 4000\ndistortion = [0.1, 0.2, 0, 0]\nstabilised = true\n"
    b"mount_pitch_deg = 5\n[truth]\nsd_m = 0.5\n"
)


@fuzzed(content=st.data())
def test_cameras_of_flights(scratch, content):
    path = scratch / "flight.toml"
    path.write_bytes(content.draw(mutated(GOOD_FLIGHT_TOML) | st.binary(max_size=80) | st.text().map(str.encode)))
    with survives():
        camera = read_flight_toml(path).camera
        assert camera.half_fov_tan is None or camera.half_fov_tan >= 0


@fuzzed(
    name=st.sampled_from(sorted(config.Settings.model_fields)),
    value=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
    | st.sampled_from(["-1", "1e999", "nan", "[]", "{}", '["a"]', "0", "null"]),
)
def test_settings_in_the_environment(scratch, name, value):
    key = f"COARSELOC_{name.upper()}"
    before = os.environ.get(key)
    os.environ[key] = value
    (scratch / "none.toml").touch()
    try:
        with survives():
            config.load(config_file=scratch / "none.toml")
    finally:
        os.environ.pop(key) if before is None else os.environ.update({key: before})


TEXTS = st.text(max_size=20) | st.lists(st.floats().map(str), max_size=5).map(",".join)


@fuzzed(texts=st.dictionaries(st.sampled_from(list(filters.KEYS)), st.lists(TEXTS, max_size=2)))
def test_filters(texts):
    with survives():
        where = Where.parse(texts)
        assert Where.parse(where.to_texts()) == where


@fuzzed(text=TEXTS)
def test_options(text):
    for kind in (Overlap(), Angles()):
        with suppress(click.BadParameter):
            kind.convert(text, None, None)
