"""Meta's .pth files and Hugging Face folders into models: the same numbers, and nothing missing unnoticed."""

import json
import pickle
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file as save_numpy_file
from safetensors.torch import load_file, save_file
from transformers import DINOv3ViTConfig

from coarseloc.core.config import CustomBackbone
from coarseloc.core.errors import WeightsError
from coarseloc.embedding import checkpoint, dinov3
from coarseloc.embedding.backbone import embedding_spec
from coarseloc.embedding.dinov3 import VitConfig, VitWeights
from coarseloc.embedding.engine import EncoderEngine, load_engine
from coarseloc.embedding.loading import load_model
from coarseloc.embedding.specs import BACKBONES, BackboneSpec, table
from coarseloc.embedding.weights import LocatedWeights, require

NAMES = ["vits16", "vits16+", "vitl16sat"]  # plain, gated, with a local norm
SMALL = {"dim": 32, "layers": 2, "heads": 2, "mlp": 64}


def _small(name: str) -> BackboneSpec:
    return replace(BACKBONES[name], **SMALL)


def _model_folder(spec: BackboneSpec, folder: Path, make_dinov3) -> Path:
    gated = {"use_gated_mlp": True, "hidden_act": "silu"} if spec.gated else {}
    return make_dinov3(folder, seed=3, **gated)


def to_original(state: dict[str, torch.Tensor], spec: BackboneSpec) -> dict[str, torch.Tensor]:
    """transformers' names → Meta's: the way back, written apart from the code under test."""
    renames = [
        ("embeddings.patch_embeddings", "patch_embed.proj"),
        ("embeddings.register_tokens", "storage_tokens"),
        ("embeddings.", ""),
        (r"layer\.(\d+)\.attention\.o_proj", r"blocks.\1.attn.proj"),
        (r"layer\.(\d+)\.layer_scale(\d)\.lambda1", r"blocks.\1.ls\2.gamma"),
        (r"mlp\.gate_proj", "mlp.w1"),
        (r"mlp\.up_proj", "mlp.w2" if spec.gated else "mlp.fc1"),
        (r"mlp\.down_proj", "mlp.w3" if spec.gated else "mlp.fc2"),
        (r"layer\.(\d+)", r"blocks.\1"),
    ]
    original = {}
    for key, value in state.items():
        if re.search(r"attention\.[qkv]_proj", key):
            continue
        for pattern, replacement in renames:
            key = re.sub(pattern, replacement, key)
        original[key] = value.squeeze(0) if key == "mask_token" else value
    for i in range(spec.layers):
        q, k, v = (f"layer.{i}.attention.{name}_proj" for name in "qkv")
        original[f"blocks.{i}.attn.qkv.weight"] = torch.cat([state[f"{name}.weight"] for name in (q, k, v)])
        # Meta keeps a key bias and masks it: put a number there that must not get through.
        d = spec.dim
        original[f"blocks.{i}.attn.qkv.bias"] = torch.cat(
            [state[f"{q}.bias"], torch.full((d,), 9.0), state[f"{v}.bias"]]
        )
        original[f"blocks.{i}.attn.qkv.bias_mask"] = torch.cat([torch.ones(d), torch.zeros(d), torch.ones(d)])
    head = spec.dim // spec.heads
    original["rope_embed.periods"] = (100.0 ** (2 * torch.arange(head // 4) / (head // 2))).bfloat16()
    if spec.pretraining == "SAT-493M":
        original |= {"local_cls_norm.weight": torch.ones(spec.dim), "local_cls_norm.bias": torch.zeros(spec.dim)}
    return original


@pytest.fixture(params=NAMES)
def spec(request: pytest.FixtureRequest) -> BackboneSpec:
    return _small(request.param)


@pytest.fixture
def folder(spec, make_dinov3, tmp_path) -> Path:
    return _model_folder(spec, tmp_path / "hf", make_dinov3)


@pytest.fixture
def original(spec, folder) -> dict[str, torch.Tensor]:
    return to_original(load_file(folder / "model.safetensors"), spec)


def _load_pth(spec: BackboneSpec, tensors: object, path: Path) -> VitWeights:
    torch.save(tensors, path)
    return dinov3.load(LocatedWeights(spec, "pth", path))


def test_an_original_checkpoint_gives_the_same_model_as_the_folder_and_transformers(spec, folder, original, tmp_path):
    ours = _load_pth(spec, original, tmp_path / "m.pth")
    theirs = dinov3.load(LocatedWeights(spec, "folder", folder))
    model = load_model(LocatedWeights(spec, "folder", folder))
    oracle = {key.removeprefix("model."): tensor for key, tensor in model.state_dict().items()}
    assert ours.config == theirs.config
    assert ours.state.keys() == theirs.state.keys() == oracle.keys()
    for name, tensor in oracle.items():
        np.testing.assert_array_equal(ours.state[name], tensor.numpy())
        np.testing.assert_array_equal(theirs.state[name], tensor.numpy())
    assert all(getattr(model.config, name) == value for name, value in ours.config)


def test_what_config_json_leaves_out_is_as_transformers_has_it():
    theirs = DINOv3ViTConfig()
    assert {name: getattr(theirs, name) for name, _ in VitConfig()} == dict(VitConfig())


@pytest.mark.parametrize("biases", [{}, {"key_bias": True, "query_bias": False}, {"mlp_bias": False}])
def test_a_laboratorys_own_dinov3_has_the_tensors_that_transformers_gives_it(biases, make_dinov3, tmp_path):
    row = CustomBackbone(name="ours", path=make_dinov3(tmp_path / "m", seed=4, num_register_tokens=0, **biases))
    vit = dinov3.load(require(table([row])["ours"], tmp_path))
    saved = load_file(tmp_path / "m" / "model.safetensors")
    assert vit.state.keys() == saved.keys()
    assert all(np.array_equal(vit.state[name], saved[name]) for name in saved)


def test_sharded_folders_and_tensors_saved_within_another_model_are_read(spec, folder):
    whole = dinov3.load(LocatedWeights(spec, "folder", folder)).state
    shards: dict[str, dict[str, np.ndarray]] = {"model-1.safetensors": {}, "model-2.safetensors": {}}
    for number, (name, tensor) in enumerate(whole.items()):
        shards[f"model-{number % 2 + 1}.safetensors"][f"dinov3_vit.model.{name}"] = tensor
    for name, tensors in shards.items():
        save_numpy_file(tensors, folder / name, metadata={"format": "pt"})
    weight_map = {key: name for name, tensors in shards.items() for key in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "model.safetensors").unlink()
    again = dinov3.load(LocatedWeights(spec, "folder", folder)).state
    assert all(np.array_equal(again[name], tensor) for name, tensor in whole.items())


def test_weights_that_are_replaced_while_they_are_used_change_nothing(spec, folder):
    state = dinov3.load(LocatedWeights(spec, "folder", folder)).state
    before = {name: tensor.copy() for name, tensor in state.items()}
    path = folder / "model.safetensors"
    path.write_bytes(b"\0" * path.stat().st_size)
    assert all(np.array_equal(state[name], tensor) for name, tensor in before.items())


def test_names_make_the_round_trip(spec, folder, original):
    state = load_file(folder / "model.safetensors")
    mapped = checkpoint.to_transformers(original, spec, "here")
    assert mapped.keys() == state.keys()
    assert all(np.array_equal(mapped[key], state[key]) for key in state)


def test_half_precision_checkpoints_are_widened(spec, original, tmp_path):
    vit = _load_pth(spec, {key: value.bfloat16() for key, value in original.items()}, tmp_path / "m.pth")
    assert {tensor.dtype for tensor in vit.state.values()} == {np.dtype(np.float32)}


def test_a_missing_tensor_is_refused(spec, original, tmp_path):
    del original["blocks.1.norm2.bias"], original["storage_tokens"]
    with pytest.raises(WeightsError, match=r"missing blocks\.1\.norm2\.bias, storage_tokens"):
        _load_pth(spec, original, tmp_path / "m.pth")


def test_a_tensor_left_over_is_refused(spec, original, tmp_path):
    original["blocks.2.norm1.weight"] = torch.ones(spec.dim)
    with pytest.raises(WeightsError, match=r"left over blocks\.2\.norm1\.weight"):
        _load_pth(spec, original, tmp_path / "m.pth")


def test_the_satellite_checkpoint_and_the_other_one_cannot_be_swapped(make_dinov3, tmp_path):
    sat, lvd = _small("vitl16sat"), _small("vitl16")
    state = load_file(_model_folder(sat, tmp_path / "hf", make_dinov3) / "model.safetensors")
    with pytest.raises(WeightsError, match="left over local_cls_norm"):
        checkpoint.to_transformers(to_original(state, sat), lvd, "here")
    with pytest.raises(WeightsError, match="missing local_cls_norm"):
        checkpoint.to_transformers(to_original(state, lvd), sat, "here")


def test_a_tensor_of_another_shape_is_refused(spec, original, tmp_path):
    original["norm.weight"] = torch.ones(7)
    with pytest.raises(WeightsError, match=r"norm\.weight \[7\], expected \[32\]"):
        _load_pth(spec, original, tmp_path / "m.pth")


def test_numbers_that_are_not_finite_are_refused(spec, original, tmp_path):
    original["norm.bias"][3] = torch.nan
    with pytest.raises(WeightsError, match=r"not finite in norm\.bias"):
        _load_pth(spec, original, tmp_path / "m.pth")


def test_a_key_bias_that_is_not_masked_is_refused(spec, original, tmp_path):
    del original["blocks.0.attn.qkv.bias_mask"]
    with pytest.raises(WeightsError, match="has a key bias"):
        _load_pth(spec, original, tmp_path / "m.pth")


def test_other_rope_periods_are_another_model(spec, original, tmp_path):
    original["rope_embed.periods"] = original["rope_embed.periods"] * 2
    with pytest.raises(WeightsError, match="other RoPE periods"):
        _load_pth(spec, original, tmp_path / "m.pth")


class _Code:
    def __reduce__(self) -> tuple:
        return print, ("this must never be printed",)


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, capsys):
    path = tmp_path / "m.pth"
    path.write_bytes(pickle.dumps({"cls_token": _Code()}, protocol=2))
    with pytest.raises(WeightsError, match="no plain file of tensors"):
        checkpoint.read(path)
    assert "never" not in capsys.readouterr().out


def test_files_that_are_no_checkpoint_are_named(original, tmp_path):
    path = tmp_path / "m.pth"
    torch.save(original, path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(WeightsError, match="truncated"):
        checkpoint.read(path)
    path.write_bytes(b"")
    with pytest.raises(WeightsError, match="truncated"):
        checkpoint.read(path)
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(WeightsError, match=r"m\.pth"):
        checkpoint.read(path)
    torch.save({"teacher": original, "epoch": 3}, path)
    with pytest.raises(WeightsError, match="holds teacher, epoch; expected a flat dict"):
        checkpoint.read(path)
    with pytest.raises(WeightsError, match="there is no file"):
        checkpoint.read(tmp_path / "other.pth")


# --- folders ----------------------------------------------------------------------------------------


def _change(folder: Path, change) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("norm.weight"), r"missing norm\.weight"),
        (lambda state: state.update(extra=torch.ones(3)), "left over extra"),
        (lambda state: state.update({"norm.bias": torch.ones(7)}), r"of another shape norm\.bias"),
    ],
)
def test_a_folder_that_is_not_complete_is_refused(change, message, spec, folder):
    _change(folder, change)
    with pytest.raises(WeightsError, match=message):
        dinov3.load(LocatedWeights(spec, "folder", folder))


def test_a_truncated_folder_is_refused(spec, folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="truncated or damaged"):
        dinov3.load(LocatedWeights(spec, "folder", folder))


def test_a_folder_of_another_architecture_is_refused(spec, make_dinov3, tmp_path):
    for changes, message in (
        ({"num_register_tokens": 0}, "num_register_tokens 0, expected 4"),
        ({"rope_theta": 50.0}, "50.0"),
    ):
        gated = {"use_gated_mlp": spec.gated, "hidden_act": "silu" if spec.gated else "gelu"}
        path = make_dinov3(tmp_path / message[:5], **gated, **changes)
        with pytest.raises(WeightsError, match=message):
            dinov3.load(LocatedWeights(spec, "folder", path))


def _engine(row: CustomBackbone) -> EncoderEngine:
    weights = require(table([row])["ours"], row.path)
    return load_engine(weights, embedding_spec(weights, input_px=32), "cpu")


def test_a_custom_folder_that_states_another_mean_is_refused(tiny_dinov3, tmp_path):
    folder = shutil.copytree(tiny_dinov3, tmp_path / "m")
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    row = CustomBackbone(name="ours", path=folder)
    with pytest.raises(WeightsError, match=r"states image_mean \[0.5, 0.5, 0.5\].*has \[0.485"):
        _engine(row)
    row = CustomBackbone(name="ours", path=folder, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert _engine(row) is not None


def test_an_unknown_model_type_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "nothing-known", "hidden_size": 8}')
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    row = CustomBackbone(name="ours", path=tmp_path)
    with pytest.raises(WeightsError, match="not understood by transformers"):
        load_model(require(table([row])["ours"], tmp_path))


def test_a_config_that_makes_no_sense_is_refused_by_its_field(spec, folder):
    path = folder / "config.json"
    for changes, message in (
        ({"layer_norm_eps": "small"}, "layer_norm_eps"),
        ({"patch_size": [16, 14]}, "patch_size"),
        ({"num_attention_heads": 5}, "multiple of 4 for each head"),
    ):
        stated = json.loads(path.read_text())
        (folder / "other").mkdir(exist_ok=True)
        (folder / "other" / "config.json").write_text(json.dumps(stated | changes))
        with pytest.raises(WeightsError, match=message):
            dinov3.load(LocatedWeights(replace(spec, hub_id=None), "folder", folder / "other"))


def test_numbers_of_a_folder_that_are_not_finite_are_refused(spec, folder):
    _change(folder, lambda state: state["norm.bias"].fill_(torch.inf))
    with pytest.raises(WeightsError, match=r"not finite in norm\.bias"):
        dinov3.load(LocatedWeights(spec, "folder", folder))


def test_loading_prints_nothing(spec, folder, capfd):
    dinov3.load(LocatedWeights(spec, "folder", folder))
    assert capfd.readouterr() == ("", "")


def test_a_dinov3_is_read_and_run_without_transformers(spec, folder, original, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)  # an import of it fails
    torch.save(original, tmp_path / "m.pth")
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), dtype=np.uint8)
    vectors = []
    for weights in (LocatedWeights(spec, "folder", folder), LocatedWeights(spec, "pth", tmp_path / "m.pth")):
        engine = load_engine(weights, embedding_spec(weights, input_px=32), "cpu")
        vectors.append(engine.pooled(images))
    np.testing.assert_array_equal(*vectors)
