"""The fast forwards against transformers' own, on true architectures at small depth."""

import contextlib
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from coarseloc.core.config import CustomBackbone
from coarseloc.core.errors import BackboneError, InputError
from coarseloc.embedding import dinov3, fused_vit, kernels, numpy_vit
from coarseloc.embedding import torch_engines as engines
from coarseloc.embedding.backbone import LoadedBackbone, embedding_spec, load_backbone, normalise_rows
from coarseloc.embedding.device import resolve_device
from coarseloc.embedding.folding import Folding
from coarseloc.embedding.loading import load_model
from coarseloc.embedding.preprocess import as_squares
from coarseloc.embedding.specs import table
from coarseloc.embedding.torch_engines import CpuEngine, CudaEngine, TransformersEngine
from coarseloc.embedding.weights import LocatedWeights, require

CPU = torch.device("cpu")
ARCHITECTURES = {  # the widths and heads of the table, two layers of twelve
    "vits16": {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 6},
    "vits16+": {
        "hidden_size": 384,
        "intermediate_size": 1536,
        "num_attention_heads": 6,
        "use_gated_mlp": True,
        "hidden_act": "silu",
    },
    "vitb16": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
}


def _locate_weights(folder, tmp_path, **row) -> LocatedWeights:
    return require(table([CustomBackbone(name="small", path=folder, **row)])["small"], tmp_path)


def _images(count: int, side: int = 48, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def _unit(x: torch.Tensor) -> torch.Tensor:
    return x / x.norm(dim=-1, keepdim=True)


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def architecture(request, make_dinov3, tmp_path_factory) -> LocatedWeights:
    root = tmp_path_factory.mktemp("architectures")
    return _locate_weights(make_dinov3(root / request.param, **ARCHITECTURES[request.param]), root)


@pytest.mark.parametrize("kernel", [kernels.ONEDNN, kernels.TORCH], ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("side", [32, 224])
def test_the_fused_forward_equals_that_of_transformers(architecture, kernel, side):
    if kernel is kernels.ONEDNN and kernels.choose(CPU, "fp32") is not kernel:
        pytest.skip("this torch has no oneDNN operators")
    spec = embedding_spec(architecture, input_px=side)
    model = load_model(architecture)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    pixels = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1)) * 255
    with torch.inference_mode():
        plain = model((pixels / 255 - mean) / std)
        vit = dinov3.load(architecture)
        folded = fused_vit.pack(Folding(vit.state, vit.config, spec, kernel.folds_norms), kernel)
        tokens, cls = folded.tokens(pixels), folded.class_token(pixels)
    assert (_unit(tokens) - _unit(plain.last_hidden_state)).abs().max() < 1e-5
    assert (_unit(cls) - _unit(plain.pooler_output)).abs().max() < 1e-5


def test_vits16_at_its_full_depth_equals_the_plain_forward(make_dinov3, tmp_path):
    weights = _locate_weights(
        make_dinov3(tmp_path / "vits16", num_hidden_layers=12, **ARCHITECTURES["vits16"]), tmp_path
    )
    backbone = load_backbone(weights, input_px=224, device="cpu")
    plain = TransformersEngine(load_model(weights), backbone.spec, "cpu", 16)
    images = _images(2, 300)
    np.testing.assert_allclose(backbone.embed(images), normalise_rows(plain.pooled(images), "plain"), atol=1e-5)


@pytest.mark.parametrize("side", [32, 224])
def test_numpy_alone_gives_the_numbers_of_the_plain_forward(architecture, side):
    spec = embedding_spec(architecture, input_px=side)
    plain, ours = TransformersEngine(load_model(architecture), spec, "cpu", 16), numpy_vit.load(architecture, spec)
    for images in (_images(2, side, seed=3), _images(1, 301, seed=4)):
        np.testing.assert_allclose(
            normalise_rows(ours.pooled(images), "ours"), normalise_rows(plain.pooled(images), "plain"), atol=2e-6
        )
        np.testing.assert_allclose(ours.patch_tokens(images), plain.patch_tokens(images), atol=5e-4)


def test_numpys_gelu_is_right_to_a_millionth():
    x = np.concatenate([np.linspace(-12, 12, 100_001, dtype=np.float32), np.float32([-1e30, 1e30])])
    exact = np.array([v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x.tolist()])
    np.testing.assert_allclose(numpy_vit._gelu(x.copy()), exact, rtol=1e-6, atol=1e-6)


def test_numpy_embeds_a_few_pictures_of_a_process_without_torch_and_no_others(architecture, monkeypatch):
    def engine_of(**options: object) -> str:
        wish = {"input_px": 64, "device": "auto", "pictures": 1} | options
        return type(load_backbone(architecture, **wish).engine).__name__

    assert engine_of() == "CpuEngine"  # torch is there already
    monkeypatch.delitem(sys.modules, "torch")
    assert engine_of() == engine_of(device="cpu") == "NumpyEngine"
    assert engine_of(pictures=None) == engine_of(pictures=10_000) == engine_of(precision="bf16") == "CpuEngine"


def test_inputs_of_a_thousand_tokens_equal_the_plain_forward(tiny_dinov3, tmp_path):
    weights = _locate_weights(tiny_dinov3, tmp_path)
    backbone = load_backbone(weights, input_px=512, device="cpu")
    plain = TransformersEngine(load_model(weights), backbone.spec, "cpu", 16)
    images = _images(2, 500)
    np.testing.assert_allclose(backbone.embed(images), normalise_rows(plain.pooled(images), "plain"), atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "pooler", "mean"])
def test_each_pooling_equals_the_plain_one(pooling, tiny_dinov3, tmp_path):
    weights = _locate_weights(tiny_dinov3, tmp_path, pooling=pooling)
    backbone = load_backbone(weights, input_px=64, device="cpu")
    plain = TransformersEngine(load_model(weights), backbone.spec, "cpu", 16)
    assert isinstance(backbone.engine, CpuEngine)
    images = _images(5)
    np.testing.assert_allclose(backbone.embed(images), normalise_rows(plain.pooled(images), "plain"), atol=1e-5)


@pytest.mark.parametrize(("precision", "min_cosine"), [("bf16", 0.999), ("int8", 0.997)])
def test_fewer_bits_point_the_same_way(precision, min_cosine, architecture):
    exact, rough = (load_backbone(architecture, input_px=64, device="cpu", precision=p) for p in ("fp32", precision))
    images = _images(3)
    cosine = (exact.embed(images) * rough.embed(images)).sum(axis=1)
    assert cosine.min() > min_cosine
    assert exact.spec.digest != rough.spec.digest


def test_int8_keeps_small_tokens_beside_a_huge_one():
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    x[0] *= 1e4
    weight, bias = torch.randn(8, 64, generator=torch.Generator().manual_seed(1)), torch.ones(8)
    packed = kernels.Linear(kernels.INT8.pack(weight), bias)
    expected = kernels.TORCH.linear(x, kernels.Linear(weight, bias))
    cosine = torch.cosine_similarity(kernels.INT8.linear(x, packed), expected)
    assert cosine.min() > 0.998


def test_int8_is_refused_where_it_cannot_be():
    with pytest.raises(BackboneError, match="int8 needs a CPU"):
        kernels.choose(torch.device("cuda:0"), "int8")


# --- the backbone -----------------------------------------------------------------------------------


@pytest.fixture
def tiny(tiny_dinov3, tmp_path) -> LoadedBackbone:
    return load_backbone(_locate_weights(tiny_dinov3, tmp_path), input_px=48, device="cpu", threads=2)


@pytest.mark.parametrize("count", [1, 2, 3, 64, 65, 200])
def test_a_vector_does_not_depend_on_the_batch_it_came_in(count, tiny):
    images = _images(count)
    together = tiny.embed(images)
    alone = np.concatenate([tiny.embed(images[i : i + 1]) for i in (0, count // 2, count - 1)])
    assert together.shape == (count, 32) and together.dtype == np.float32
    np.testing.assert_allclose(together[[0, count // 2, count - 1]], alone, atol=1e-5)


def test_rows_have_unit_norm_and_the_same_image_the_same_vector(tiny):
    images = np.concatenate([_images(3), _images(3)])
    vectors = tiny.embed(images)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(vectors, tiny.embed(images))


def test_the_number_of_threads_changes_nothing(tiny_dinov3, tmp_path):
    weights, images = _locate_weights(tiny_dinov3, tmp_path), _images(30)
    single, threaded = (load_backbone(weights, input_px=224, device="cpu", threads=n).embed(images) for n in (1, 3))
    np.testing.assert_allclose(single, threaded, atol=1e-6)


def test_images_of_differing_sizes_keep_their_order(tiny):
    images = [_images(1, side, seed)[0] for seed, side in enumerate([48, 64, 48, 80, 64])]
    expected = np.concatenate([tiny.embed(image[None]) for image in images])
    np.testing.assert_allclose(tiny.embed_many(images), expected, atol=1e-5)


def test_patch_tokens_lie_as_the_image_does(tiny_dinov3, tmp_path):
    weights = _locate_weights(tiny_dinov3, tmp_path)
    backbone = load_backbone(weights, input_px=48, device="cpu")
    plain = TransformersEngine(load_model(weights), backbone.spec, "cpu", 16)
    images = _images(2)
    tokens = backbone.patch_tokens(images)
    assert tokens.shape == (2, 3, 3, 32) and tokens.dtype == np.float32
    np.testing.assert_allclose(tokens.reshape(2, 9, 32), plain.patch_tokens(images), atol=1e-4)


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_a_wide_picture_is_embedded_as_the_square_that_its_fit_makes_of_it(fit, tiny_dinov3, tmp_path):
    backbone = load_backbone(_locate_weights(tiny_dinov3, tmp_path), input_px=48, fit=fit, device="cpu", threads=1)
    wide = np.random.default_rng(3).integers(0, 256, (1, 36, 64, 3), np.uint8)
    square = as_squares(wide, fit, backbone.spec.mean)
    np.testing.assert_allclose(backbone.embed(wide), backbone.embed(square), atol=1e-6)
    np.testing.assert_allclose(backbone.patch_tokens(wide), backbone.patch_tokens(square), atol=1e-5)


def test_the_spec_is_the_same_before_and_after_loading(tiny, tiny_dinov3, tmp_path):
    assert tiny.spec == embedding_spec(_locate_weights(tiny_dinov3, tmp_path), input_px=48)
    assert tiny.device == "cpu"


def test_a_row_that_is_zero_or_not_finite_is_an_error_naming_it():
    vectors = np.ones((3, 4), np.float32)
    vectors[1] = 0
    with pytest.raises(BackboneError, match="backbone x gave an embedding zero for image 1 of 3"):
        normalise_rows(vectors, "x")
    vectors[1, 2] = np.nan
    with pytest.raises(BackboneError, match="of norm nan for image 1"):
        normalise_rows(vectors, "x")


def test_what_is_no_batch_of_images_is_refused(tiny):
    with pytest.raises(InputError, match="expected uint8"):
        tiny.embed(np.zeros((2, 48, 48), np.uint8))
    with pytest.raises(InputError, match="expected uint8"):
        tiny.patch_tokens(np.zeros((2, 48, 48, 3), np.float32))


@pytest.mark.parametrize("device", ["gpu", "mps", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(BackboneError, match=f"device '{device}'"):
        resolve_device(device)


# --- other models -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain_vit(tmp_path_factory):
    """A model that is no DINOv3: transformers' ViT, without its pooler."""
    from transformers import ViTConfig, ViTModel

    folder = tmp_path_factory.mktemp("vit")
    config = ViTConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=32)
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_any_vision_transformer_runs_by_its_own_forward(pooling, plain_vit, tmp_path):
    backbone = load_backbone(_locate_weights(plain_vit, tmp_path, pooling=pooling), input_px=32, device="cpu")
    assert isinstance(backbone.engine, TransformersEngine)
    vectors = backbone.embed(_images(9))
    assert vectors.shape == (9, 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert backbone.patch_tokens(_images(1)).shape == (1, 2, 2, 32)


def test_int8_of_another_model_is_refused(plain_vit, tmp_path):
    with pytest.raises(BackboneError, match="int8 is there for DINOv3 only"):
        load_backbone(_locate_weights(plain_vit, tmp_path), input_px=32, device="cpu", precision="int8")


def test_a_pooler_that_is_not_in_the_folder_is_refused(plain_vit, tmp_path):
    from coarseloc.core.errors import WeightsError

    with pytest.raises(WeightsError, match=r"missing pooler\.dense"):
        load_backbone(_locate_weights(plain_vit, tmp_path, pooling="pooler"), input_px=32, device="cpu")


def test_a_pooling_that_does_not_fit_is_an_error(tiny_dinov3, tmp_path):
    weights = _locate_weights(tiny_dinov3, tmp_path)
    model = load_model(weights)
    spec = replace(embedding_spec(weights, input_px=48), dim=7)
    with pytest.raises(BackboneError, match=r"vectors of shape \[32\], expected \[7\]"):
        TransformersEngine(model, spec, CPU, 16).pooled(_images(1))


# --- what can be checked of the GPU without one -----------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("count", [1, 7, 75])
def test_images_pass_recorded_batches_in_their_order(count, precision, tiny_dinov3, tmp_path, monkeypatch):
    class Recorded:  # a recording without CUDA: always the whole batch, whatever is left of the last one in it
        def __init__(self, forward, example):
            self.forward, self.input = forward, example

        def __call__(self, pixels):
            self.input[: len(pixels)] = pixels
            return self.forward(self.input)[: len(pixels)]

    monkeypatch.setattr(engines, "_Graph", Recorded)
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    backbone = load_backbone(_locate_weights(tiny_dinov3, tmp_path), input_px=48, device="cpu", precision=precision)
    engine = CudaEngine(backbone.engine._model, backbone.spec, CPU)
    images = _images(count, 60)
    tolerance = 1e-5 if precision == "fp32" else 0.05
    np.testing.assert_allclose(normalise_rows(engine.pooled(images), "cuda"), backbone.embed(images), atol=tolerance)
    np.testing.assert_allclose(engine.patch_tokens(images), backbone.engine.patch_tokens(images), atol=20 * tolerance)


@pytest.mark.parametrize("limit", engines.CUDA_BATCHES)
def test_recorded_batches_hold_every_image_and_are_at_least_half_full(limit):
    for n in (*range(1, 140), 1000):
        sizes = engines.cuda_batch_sizes(n, limit)
        assert sum(sizes[:-1]) < n <= sum(sizes), n
        assert max(sizes) <= limit
        assert 2 * (n - sum(sizes[:-1])) > sizes[-1], n
