"""What every backbone keeps: the six true architectures from their rows, and the interface that all share."""

import numpy as np
import pytest
import torch
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from coarseloc.core.types import Backbone
from coarseloc.embedding import checkpoint, dinov3
from coarseloc.embedding.backbone import load_backbone
from coarseloc.embedding.dinov3 import VitConfig, tensor_shapes
from coarseloc.embedding.specs import BACKBONES, BackboneSpec, table
from coarseloc.embedding.weights import require


def empty(spec: BackboneSpec) -> DINOv3ViTModel:
    """A row's architecture on the meta device: names and shapes without numbers."""
    with torch.device("meta"):
        return DINOv3ViTModel(DINOv3ViTConfig(**dinov3.config_values(spec)))


SIX = [spec for spec in BACKBONES.values() if spec.is_dinov3]


@pytest.mark.parametrize("spec", SIX, ids=lambda spec: spec.name)
def test_a_row_builds_the_architecture_it_states(spec):
    model = empty(spec)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters / 1e6 == pytest.approx(spec.params_m, abs=0.0006)
    assert model.config.hidden_size == spec.dim
    assert spec.dim // spec.heads == 64


@pytest.mark.parametrize("spec", SIX, ids=lambda spec: spec.name)
def test_an_original_checkpoint_fills_every_tensor_of_the_true_architecture(spec):
    # Expanded zeros take no memory, whatever their shape.
    original = {key: torch.zeros(()).expand(shape) for key, shape in checkpoint.original_shapes(spec).items()}
    mapped = checkpoint.to_transformers(original, spec, "here")
    expected = {key.removeprefix("model."): tensor.shape for key, tensor in empty(spec).state_dict().items()}
    assert {key: tensor.shape for key, tensor in mapped.items()} == expected
    assert tensor_shapes(VitConfig(**dinov3.config_values(spec))) == expected


@pytest.fixture(params=["fake", "loaded"])
def backbone(request, fake_backbone, tiny_backbone, tmp_path) -> Backbone:
    if request.param == "fake":
        return fake_backbone
    return load_backbone(require(table([tiny_backbone])["tiny"], tmp_path), input_px=32, device="cpu")


def test_a_backbone_gives_unit_rows_of_its_dim_for_images_of_any_size(backbone):
    for shape in ((1, 32, 32, 3), (3, 70, 50, 3), (8, 16, 200, 3)):
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        vectors = backbone.embed(images)
        assert vectors.shape == (shape[0], backbone.spec.dim)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_backbone_answers_the_same_every_time_and_differs_by_image(backbone):
    images = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    vectors = backbone.embed(images)
    np.testing.assert_array_equal(vectors, backbone.embed(images))
    assert np.linalg.matrix_rank(vectors) == 4


def test_a_turned_image_is_another_vector(backbone):
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[:, :8] = 255
    vectors = backbone.embed(np.concatenate([image, np.rot90(image, axes=(1, 2))]))
    assert vectors[0] @ vectors[1] < 0.9999


def test_black_and_grey_images_have_vectors_too(backbone):
    for value in (0, 127, 128, 255):
        assert np.isfinite(backbone.embed(np.full((1, 32, 32, 3), value, np.uint8))).all()


def test_the_fake_counts_what_passes_through_it(make_fake_backbone):
    fake = make_fake_backbone("other", dim=8)
    fake.embed(np.zeros((3, 10, 10, 3), np.uint8))
    fake.embed(np.zeros((1, 10, 10, 3), np.uint8))
    assert (fake.batches, fake.images, fake.spec.dim) == (2, 4, 8)
