"""The table of backbones, and rows of the configuration beside it."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from coarseloc.core.config import CustomBackbone
from coarseloc.core.errors import BackboneError, ConfigError
from coarseloc.core.types import EmbeddingSpec
from coarseloc.embedding import specs
from coarseloc.embedding.weights import LocatedWeights


def test_the_table_holds_the_six_of_the_study_in_order_and_the_demonstration():
    assert list(specs.BACKBONES) == ["vits16", "vits16+", "vitb16", "vitl16", "vitl16sat", "vith16+", "demo"]


def test_only_the_satellite_backbone_has_the_satellite_mean_and_std():
    for spec in specs.BACKBONES.values():
        satellite = spec.pretraining == "SAT-493M"
        assert spec.mean == ((0.430, 0.411, 0.296) if satellite else (0.485, 0.456, 0.406))
        assert spec.std == ((0.213, 0.156, 0.143) if satellite else (0.229, 0.224, 0.225))
    assert specs.BACKBONES["vitl16sat"].pretraining == "SAT-493M"


def test_file_names_are_those_that_meta_publishes():
    assert [spec.pth_name for spec in specs.BACKBONES.values() if spec.is_dinov3] == [
        "dinov3_vits16_pretrain_lvd1689m-08c60483.pth",
        "dinov3_vits16plus_pretrain_lvd1689m-4057cbaa.pth",
        "dinov3_vitb16_pretrain_lvd1689m-73cec8be.pth",
        "dinov3_vitl16_pretrain_lvd1689m-8aa4cbdd.pth",
        "dinov3_vitl16_pretrain_sat493m-eadcf0ff.pth",
        "dinov3_vith16plus_pretrain_lvd1689m-7c1da9a5.pth",
    ]
    assert specs.BACKBONES["vits16+"].hub_id == "facebook/dinov3-vits16plus-pretrain-lvd1689m"


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(BackboneError, match=r"'vitx'.*vits16, vits16\+, vitb16.*\[\[backbones\]\]"):
        specs.row("vitx")


def test_a_row_is_found_by_name_or_slug():
    assert specs.row("vits16+") is specs.row("vits16plus") is specs.BACKBONES["vits16+"]


def test_a_row_of_the_configuration_joins_the_table():
    rows = specs.table([CustomBackbone(name="ours", path=Path("~/models/ours"), pooling="mean", mean=(0.1, 0.2, 0.3))])
    assert list(rows)[-1] == "ours"
    assert rows["ours"].folder == Path.home() / "models/ours"
    assert (rows["ours"].pooling, rows["ours"].mean) == ("mean", (0.1, 0.2, 0.3))


@pytest.mark.parametrize("name", ["vitb16", "VITB16", "vits16plus", "demo"])
def test_a_name_that_is_taken_is_refused(name):
    with pytest.raises(ConfigError, match="already taken"):
        specs.table([CustomBackbone(name=name, path=Path("x"))])


def test_the_table_cannot_be_changed():
    with pytest.raises(TypeError):
        specs.BACKBONES["vits16"] = specs.BACKBONES["vitb16"]  # type: ignore[index]


def test_reading_the_table_and_looking_for_weights_imports_no_torch():
    code = (
        "import sys; from pathlib import Path; import coarseloc.embedding.specs as s;"
        "from coarseloc.embedding import encoders, weights;"
        "encoders.inventory({'demo': s.BACKBONES['demo']}, Path('nowhere'));"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


def test_digests_differ_by_everything_that_changes_the_numbers(tiny_backbone, tmp_path):
    from coarseloc.embedding.backbone import embedding_spec
    from coarseloc.embedding.weights import require

    weights = require(specs.table([tiny_backbone])["tiny"], tmp_path)
    other_mean = LocatedWeights(replace(weights.spec, mean=(0.5, 0.5, 0.5)), weights.kind, weights.path)
    other_pooling = LocatedWeights(replace(weights.spec, pooling="mean"), weights.kind, weights.path)
    variants = [
        embedding_spec(weights, input_px=32),
        embedding_spec(weights, input_px=64),
        embedding_spec(weights, input_px=32, precision="bf16"),
        embedding_spec(weights, input_px=32, precision="int8"),
        embedding_spec(weights, input_px=32, fit="crop"),
        embedding_spec(weights, input_px=32, fit="pad"),
        embedding_spec(other_mean, input_px=32),
        embedding_spec(other_pooling, input_px=32),
    ]
    assert len({spec.digest for spec in variants}) == len(variants)


def test_specs_from_before_there_was_a_fit_keep_their_digest():
    spec = EmbeddingSpec("vits16", 384, "w", 224, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), "cls")
    assert spec.digest == "94ee90e8c7b4000055485ea5b815659f84e1a52e1bd538a1ff424dde4b77bed9"
    assert spec.how == "224 px fp32" and replace(spec, fit="pad").how == "224 px fp32 pad"


@pytest.mark.parametrize("side", [0, 8, 100, 225])
def test_a_side_that_the_patch_does_not_divide_is_refused(side, tiny_backbone, tmp_path):
    from coarseloc.embedding.backbone import embedding_spec
    from coarseloc.embedding.weights import require

    weights = require(specs.table([tiny_backbone])["tiny"], tmp_path)
    with pytest.raises(BackboneError, match=f"{side} px is not a multiple of the patch size 16: use"):
        embedding_spec(weights, input_px=side)


def test_an_unknown_precision_is_refused(tiny_backbone, tmp_path):
    from coarseloc.embedding.backbone import embedding_spec
    from coarseloc.embedding.weights import require

    weights = require(specs.table([tiny_backbone])["tiny"], tmp_path)
    with pytest.raises(BackboneError, match="'fp8' is not one of fp32, bf16, int8"):
        embedding_spec(weights, precision="fp8")
