"""Preprocessing against reference values: rescale, antialiased bilinear in float, normalise."""

import numpy as np
import pytest
import torch
from PIL import Image

from coarseloc.core.errors import BackboneError, InputError
from coarseloc.embedding.pixels import normalise, resize
from coarseloc.embedding.preprocess import as_squares, check_images, check_side
from coarseloc.embedding.specs import BACKBONES

SIZES = [(70, 50), (224, 224), (32, 32), (500, 640), (10, 300)]


def _images(height: int, width: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def _triangle(into: int, out: int) -> np.ndarray:
    """The antialiased bilinear filter as a matrix [out, in]: a triangle as wide as an output pixel, or as an
    input pixel where the image grows; rows sum to one."""
    scale = max(into / out, 1.0)
    centres = (np.arange(out) + 0.5) * into / out
    distance = np.abs(np.arange(into) + 0.5 - centres[:, None]) / scale
    weights = np.clip(1 - distance, 0, None)
    return weights / weights.sum(axis=1, keepdims=True)


def _reference(image: np.ndarray, side: int, mean: tuple, std: tuple) -> np.ndarray:
    """float64 [3, side, side]: in transformers' order, rescale → resize → normalise."""
    x = image.astype(np.float64) / 255
    x = _triangle(image.shape[0], side) @ x.transpose(2, 0, 1) @ _triangle(image.shape[1], side).T
    return (x - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["vits16", "vitl16sat"])
def test_it_equals_the_filter_written_out(size, name):
    spec, images = BACKBONES[name], _images(*size)
    ours = normalise(resize(images, 224), spec.mean, spec.std).numpy()
    expected = np.stack([_reference(image, 224, spec.mean, spec.std) for image in images])
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, atol=1e-4)  # torch's filter weights are float32


@pytest.mark.parametrize("size", SIZES)
def test_scaling_after_the_resize_equals_scaling_before_it(size):
    """transformers rescales, resizes, normalises; here the scale is part of the normalisation."""
    spec, images = BACKBONES["vits16"], _images(*size)
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    x = torch.nn.functional.interpolate(x, (224, 224), mode="bilinear", antialias=True, align_corners=False)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (spec.mean, spec.std))
    torch.testing.assert_close(normalise(resize(images, 224), spec.mean, spec.std), (x - mean) / std, atol=3e-6, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_it_equals_pillow_in_float(size):
    (image,) = _images(*size, count=1)
    bands = [Image.fromarray(image[..., c].astype(np.float32)) for c in range(3)]
    expected = np.stack([np.asarray(band.resize((224, 224), Image.Resampling.BILINEAR)) for band in bands])
    np.testing.assert_allclose(resize(image[None], 224)[0].numpy(), expected, atol=5e-3)  # of 255


def test_two_backbones_of_other_mean_and_std_see_other_numbers():
    images = _images(32, 32)
    lvd, sat = (normalise(resize(images, 32), BACKBONES[n].mean, BACKBONES[n].std) for n in ("vitl16", "vitl16sat"))
    assert (lvd - sat).abs().max() > 0.5


def test_an_image_of_the_right_size_is_not_resampled():
    images = _images(48, 48)
    assert torch.equal(resize(images, 48).permute(0, 2, 3, 1), torch.from_numpy(images).float())


def test_views_that_are_not_contiguous_are_taken():
    turned = np.rot90(_images(40, 40), axes=(1, 2))
    assert torch.equal(resize(turned, 32), resize(turned.copy(), 32))


@pytest.mark.parametrize("side", [224, 512, 1024])
def test_sides_of_whole_patches_are_good(side):
    check_side(side, 16)


def test_a_side_of_a_part_patch_is_refused_with_its_neighbours():
    with pytest.raises(BackboneError, match="1000 px is not a multiple of the patch size 16: use 992 or 1008"):
        check_side(1000, 16)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((2, 8, 8, 4), np.uint8),
        np.zeros((2, 3, 8, 8), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
        np.zeros((1, 0, 8, 3), np.uint8),
    ],
)
def test_what_is_no_batch_of_rgb_images_is_refused(images):
    with pytest.raises(InputError, match=r"expected uint8 \[B, H, W, 3\]"):
        check_images(images)


@pytest.mark.parametrize(("height", "width"), [(9, 16), (16, 9), (12, 12), (7, 8)])
def test_a_picture_becomes_square_by_its_middle_or_by_mean_colour_around_it(height, width):
    images = _images(height, width)
    short, tall = min(height, width), max(height, width)
    assert as_squares(images, "squash", (0.5, 0.5, 0.5)) is images
    top, left = (height - short) // 2, (width - short) // 2
    np.testing.assert_array_equal(
        as_squares(images, "crop", (0.5, 0.5, 0.5)), images[:, top : top + short, left : left + short]
    )
    padded = as_squares(images, "pad", (0.2, 0.4, 0.6))
    assert padded.shape == (2, tall, tall, 3)
    top, left = (tall - height) // 2, (tall - width) // 2
    np.testing.assert_array_equal(padded[:, top : top + height, left : left + width], images)
    if height != width:
        assert padded[0, 0, 0].tolist() == [51, 102, 153] or top == left == 0
