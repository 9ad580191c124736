"""Where weights are found, what is said where they are not, and their digests."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

from coarseloc.core.config import CustomBackbone
from coarseloc.core.errors import WeightsError
from coarseloc.embedding.encoders import LICENCE_NOTE, inventory
from coarseloc.embedding.specs import BACKBONES, BackboneSpec, table
from coarseloc.embedding.weights import LocatedWeights, MissingWeights, find, require, weights_digest


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's own Hugging Face cache must not decide a test."""
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)


@pytest.fixture
def small() -> BackboneSpec:
    """`vits16+` with the numbers of a small model, as `make_dinov3` writes it below."""
    return replace(BACKBONES["vits16+"], dim=32, layers=2, heads=2, mlp=64)


@pytest.fixture
def model(make_dinov3, tmp_path: Path) -> Path:
    return make_dinov3(tmp_path / "model", use_gated_mlp=True, hidden_act="silu")


@pytest.mark.parametrize("name", ["vits16+", "vits16plus", "dinov3-vits16plus-pretrain-lvd1689m"])
def test_a_hugging_face_folder_is_found_under_each_of_its_names(name, small, model, tmp_path):
    shutil.copytree(model, tmp_path / "w" / name)
    assert find(small, tmp_path / "w") == LocatedWeights(small, "folder", tmp_path / "w" / name)


@pytest.mark.parametrize("inside", ["", "vits16plus"])
@pytest.mark.parametrize(
    "name", ["dinov3_vits16plus_pretrain_lvd1689m-4057cbaa.pth", "dinov3_vits16plus_pretrain_lvd1689m.pth"]
)
def test_an_original_checkpoint_is_found_in_the_folder_or_below_it(name, inside, tmp_path):
    path = tmp_path / inside / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    (tmp_path / "dinov3_vits16_pretrain_lvd1689m-08c60483.pth").touch()
    assert require(BACKBONES["vits16+"], tmp_path).path == path


def test_a_folder_comes_before_a_checkpoint(small, model, tmp_path):
    shutil.copytree(model, tmp_path / "w/vits16plus")
    (tmp_path / "w/dinov3_vits16plus_pretrain_lvd1689m-4057cbaa.pth").touch()
    assert require(small, tmp_path / "w").kind == "folder"


def test_a_broken_folder_is_reported_and_not_passed_over(small, model, tmp_path):
    shutil.copytree(model, tmp_path / "w/vits16plus")
    (tmp_path / "w/vits16plus/config.json").unlink()
    (tmp_path / "w/dinov3_vits16plus_pretrain_lvd1689m-4057cbaa.pth").touch()
    with pytest.raises(WeightsError, match=r"vits16plus has no config\.json"):
        require(small, tmp_path / "w")


def test_the_local_cache_is_used_without_asking_the_network(small, model, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(model / "config.json"))
    assert require(small, tmp_path / "w") == LocatedWeights(small, "hub", model)


def test_what_is_not_there_says_what_to_do():
    missing = find(BACKBONES["vitl16sat"], Path("/nowhere"))
    assert isinstance(missing, MissingWeights)
    message = str(missing.error())
    for part in (
        "vitl16sat: no weights under /nowhere",
        "https://huggingface.co/facebook/dinov3-vitl16-pretrain-sat493m",
        "hf auth login",
        "/nowhere/vitl16sat",
        "dinov3_vitl16_pretrain_sat493m-eadcf0ff.pth",
    ):
        assert part in message


def _edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), r"has no config\.json"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read as JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "holds a list, expected a JSON object"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), r"found: pytorch_model\.bin"),
        (lambda f: (f / "model.safetensors").unlink(), r"has no model\.safetensors"),
        (lambda f: _edit(f, hidden_size=48), "another architecture than vits16.*dim 48, expected 32"),
        (lambda f: _edit(f, use_gated_mlp=False), "gated False, expected True"),
        (lambda f: _edit(f, model_type="dinov2"), "model_type 'dinov2', expected 'dinov3_vit'"),
    ],
)
def test_each_thing_wrong_with_a_folder_has_its_own_message(damage, message, small, model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "w/vits16plus")
    damage(folder)
    with pytest.raises(WeightsError, match=message):
        require(small, tmp_path / "w")


def test_shards_named_by_the_index_must_all_be_there(small, model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "w/vits16plus")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match=r"has no model-00002-of-00002\.safetensors"):
        require(small, tmp_path / "w")


def test_a_custom_row_takes_its_numbers_from_the_folder(tiny_backbone, tmp_path):
    spec = require(table([tiny_backbone])["tiny"], tmp_path).spec
    assert (spec.dim, spec.layers, spec.heads, spec.mlp, spec.gated, spec.patch) == (32, 2, 2, 64, False, 16)


def test_a_custom_folder_that_is_not_there_or_no_vision_model_is_named(tmp_path):
    rows = table([CustomBackbone(name="gone", path=tmp_path / "gone"), CustomBackbone(name="clip", path=tmp_path)])
    with pytest.raises(WeightsError, match="gone: there is no folder"):
        require(rows["gone"], tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(WeightsError, match="states no hidden_size: expected a vision encoder alone"):
        require(rows["clip"], tmp_path)


class _Response:
    """As much of an HTTP response as huggingface_hub's errors ask for."""

    headers: dict[str, str] = {}  # noqa: RUF012
    status_code = 403
    request = None


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (GatedRepoError("403", response=_Response()), "is gated.*accept the licence at https.*HF_TOKEN"),
        (RepositoryNotFoundError("401", response=_Response()), "check the token"),
        (LocalEntryNotFoundError("no network"), "the hub cannot be reached.*go on-line"),
        (OSError("disk"), "the hub cannot be reached"),
    ],
)
def test_each_refusal_of_the_hub_becomes_one_clear_line(error, message, tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(WeightsError, match=message):
        find(BACKBONES["vits16"], tmp_path, allow_hub=True)


def test_the_hub_is_asked_only_when_allowed(small, model, tmp_path, monkeypatch):
    downloads = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: downloads.append(name) or str(model))
    assert isinstance(find(small, tmp_path / "w"), MissingWeights)
    assert downloads == []
    assert require(small, tmp_path / "w", allow_hub=True) == LocatedWeights(small, "hub", model)
    assert downloads == ["facebook/dinov3-vits16plus-pretrain-lvd1689m"]


def test_the_digest_follows_the_bytes_and_not_the_place(small, model, tmp_path):
    copy = shutil.copytree(model, tmp_path / "copy")
    digest = weights_digest(LocatedWeights(small, "folder", model))
    assert weights_digest(LocatedWeights(small, "folder", copy)) == digest
    _edit(copy, layer_norm_eps=1e-6)
    assert weights_digest(LocatedWeights(small, "folder", copy)) != digest


def test_a_digest_is_remembered_until_the_file_changes(tmp_path):
    pth, cache = tmp_path / "a.pth", tmp_path / "cache"
    weights = LocatedWeights(BACKBONES["vits16"], "pth", pth)
    pth.write_bytes(b"one")
    os.utime(pth, ns=(1, 1))
    first = weights_digest(weights, cache)
    pth.write_bytes(b"two")
    os.utime(pth, ns=(1, 1))  # same size, same time: the remembered one is given
    assert weights_digest(weights, cache) == first
    os.utime(pth, ns=(2, 2))
    assert weights_digest(weights, cache) != first
    assert weights_digest(weights, cache) == weights_digest(weights)


def test_a_damaged_memory_of_digests_is_made_anew(tmp_path):
    pth = tmp_path / "a.pth"
    pth.write_bytes(b"one")
    (tmp_path / "weights-digests.json").write_text("{")
    weights = LocatedWeights(BACKBONES["vits16"], "pth", pth)
    assert weights_digest(weights, tmp_path) == weights_digest(weights)
    assert json.loads((tmp_path / "weights-digests.json").read_text())


def test_the_inventory_lists_every_backbone_with_where_it_is_or_what_to_do(tiny_backbone, tmp_path):
    entries = {entry.name: entry for entry in inventory(table([tiny_backbone]), tmp_path)}
    assert list(entries) == [*BACKBONES, "tiny"]
    tiny, vith = entries["tiny"], entries["vith16+"]
    assert (tiny.kind, tiny.path, tiny.dim) == ("folder", tiny_backbone.path, 32)
    assert tiny.params_m == 0.042016
    assert (vith.kind, vith.path, vith.dim, vith.params_m) == (None, None, 1280, 840.593)
    assert "Accept the licence" in vith.remedy
    assert "military" in LICENCE_NOTE
