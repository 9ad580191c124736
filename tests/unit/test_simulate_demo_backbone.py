"""The shipped demo backbone, and the pictures that it was trained on."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from coarseloc.core import geo, rotation
from coarseloc.embedding.backbone import load_backbone
from coarseloc.embedding.specs import BACKBONES
from coarseloc.embedding.weights import find
from coarseloc.imagery.orthophoto import open_orthophoto
from coarseloc.simulate.flight import simulate_flight
from coarseloc.simulate.terrain import write_area

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="module")
def demo():
    return load_backbone(find(BACKBONES["demo"], Path("unused")), input_px=224, device="cpu")


@pytest.fixture
def views(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    monkeypatch.delitem(sys.modules, "training_views", raising=False)
    import training_views

    return training_views


def test_the_shipped_weights_are_small_and_have_a_card():
    folder = BACKBONES["demo"].folder
    assert (folder / "model.safetensors").stat().st_size <= 8_000_000
    assert "NAIP" in (folder / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_the_demo_backbone_finds_places_on_land_it_never_saw(demo, tmp_path):
    area = write_area(tmp_path / "area.tif", 31, width_m=1600, height_m=1200)
    source = open_orthophoto(area, footprint_m=400, overlap=0.5, tile_px=128)
    flight = simulate_flight(
        area, tmp_path, flight_id="f", frames=40, footprint_m=400, seed=5, side_px=128, path="random"
    )
    rows = [(tile, view) for tile in source.tiles for view in source.views(tile, source.reference_set.angles)]
    references = demo.embed(np.stack([view.pixels for _, view in rows]))
    frames = demo.embed(np.stack([np.asarray(Image.open(frame.path)) for frame in flight.frames]))
    best = [rows[i] for i in (frames @ references.T).argmax(1)]
    truths = [frame.truth for frame in flight.frames]
    errors = [geo.distance_m(*tile.center, *t.location) for (tile, _), t in zip(best, truths, strict=True)]
    turns = [geo.heading_difference(view.angle_deg, t.yaw_deg) for (_, view), t in zip(best, truths, strict=True)]
    assert np.mean(np.array(errors) < 283) >= 0.8  # half a tile's diagonal
    assert np.mean(np.array(turns) <= 30) >= 0.7


def test_training_pictures_are_turned_as_references_are(views):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8))
    land = np.asarray(coarse.resize((960, 960), Image.Resampling.BICUBIC))
    pyramid = (torch.from_numpy(land.copy()).permute(2, 0, 1)[None].float() / 255,)
    poses = views.Poses(np.full(3, 1200.0), np.full(3, 1000.0), np.radians([0.0, 90.0, 45.0]), 500.0)
    cut = views.cut(pyramid, poses, 100, rng, loose=0.0).permute(0, 2, 3, 1).numpy() * 255
    to_source = rotation.Affine(2.0, 0.0, 480 - 100, 0.0, 2.0, 400 - 100)
    for picture, heading in zip(cut, (0, 90, 45), strict=True):
        expected = rotation.affine_view(land, to_source, 100, heading).pixels
        assert np.abs(picture - expected).mean() < 4


def test_a_querys_own_reference_is_the_nearest_but_for_chance(views):
    reference, query = views.draw_poses(np.random.default_rng(1), 50, 400.0)
    nearest = views.pose_distance(query, reference).argmin(1)
    assert np.mean(nearest == np.arange(200)) > 0.9


def test_alterations_keep_the_range_and_at_no_strength_the_picture(views):
    pictures = torch.rand(8, 3, 32, 32)
    altered = views.alter(pictures, np.random.default_rng(2), np.ones(8))
    assert altered.shape == pictures.shape
    assert altered.min() >= 0 and altered.max() <= 1
    assert torch.equal(views.alter(pictures, np.random.default_rng(2), np.zeros(8)), pictures)


def test_heads_start_by_looking_at_their_offsets(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    import initial_weights
    import train_demo_backbone
    from transformers.models.dinov3_vit.modeling_dinov3_vit import apply_rotary_pos_emb

    torch.manual_seed(0)
    model = train_demo_backbone.build_model().eval()
    initial_weights.initialise(model, torch.randn(8, 3, 96, 96))
    layer = model.model.layer[2]  # at radius 0.55, due north first, no extra turn
    tokens = layer.norm1(torch.randn(1, 1 + 4 + 64, 160))
    attention = layer.attention
    q, k = (p(tokens).reshape(1, 69, 8, 20).transpose(1, 2) for p in (attention.q_proj, attention.k_proj))
    q, k = apply_rotary_pos_emb(q, k, *model.rope_embeddings(torch.zeros(1, 3, 128, 128)))
    attended = (q @ k.transpose(2, 3) * attention.scaling).softmax(-1)[0, :, 0, 5:].reshape(8, 8, 8)
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    north, east = attended[0] / attended[0].sum(), attended[2] / attended[2].sum()
    assert (north * rows).sum() < 2.8
    assert (east * columns).sum() > 4.2
