"""Orientation fields, their spectra and their correlation, against direct sums."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from registration_scenes import photograph, pictured, scene_map

from coarseloc.core.camera import Distortion
from coarseloc.localize.registration import correlation, threads
from coarseloc.localize.registration.correlation import Peak, WindowField, at_full_resolution, climbed, correlate, peaks
from coarseloc.localize.registration.field import luma_of, orientation_field
from coarseloc.localize.registration.frame import FrameRaster
from coarseloc.localize.registration.geometry import FrameGeometry, WindowPose
from coarseloc.localize.registration.spectra import Hypotheses, frame_fields, smooth_length, turned_fields

pytestmark = pytest.mark.usefixtures("single_thread")


def map_luma(side: int) -> torch.Tensor:
    return luma_of(torch.from_numpy(scene_map()[:side, :side].copy()))


def test_light_and_dark_exchanged_give_the_same_field():
    luma = map_luma(64)
    assert torch.allclose(orientation_field(255.0 - luma), orientation_field(luma), atol=1e-3)


def test_a_field_is_at_most_one_and_zero_where_nothing_changes():
    field = orientation_field(map_luma(64))
    assert 0.5 < float(field.abs().max()) <= 1.0
    assert float(orientation_field(torch.full((32, 32), 90.0)).abs().max()) < 1e-6


def test_a_vertical_edge_is_plus_one_and_a_horizontal_one_minus_one():
    step = torch.zeros(32, 32)
    step[:, 16:] = 200.0
    assert float(orientation_field(step)[16, 16].real) > 0.5
    assert float(orientation_field(step.T.contiguous())[16, 16].real) < -0.5


def test_the_field_turns_with_the_picture():
    luma = map_luma(64)
    turned = orientation_field(torch.rot90(luma, -1).contiguous())
    assert torch.allclose(turned, -torch.rot90(orientation_field(luma), -1), atol=1e-4)


def test_ground_that_is_not_valid_has_no_field_and_makes_no_edge():
    luma = map_luma(96)
    valid = torch.ones(96, 96, dtype=torch.bool)
    valid[:, 60:] = False
    black = torch.where(valid, luma, torch.zeros_like(luma))
    field = orientation_field(black, valid)
    assert float(field[:, 57:].abs().max()) == 0.0
    assert torch.allclose(field[:, :40], orientation_field(luma)[:, :40], atol=0.1)


def test_an_image_smaller_than_its_neighbourhood_has_a_field():
    assert torch.isfinite(orientation_field(map_luma(8)).abs()).all()


@pytest.mark.parametrize("size", [(24, 24), (32, 18)])
def test_scores_are_the_direct_sums(size: tuple[int, int]):
    """Every hypothesis at every shift, by the definition, on a small case."""
    width, height = size
    shape = FrameGeometry(width, height, 48.0)
    frame = FrameRaster(photograph(WindowPose(150.0, 140.0, 77.0), shape), shape)
    hypotheses = Hypotheses((0.9, 1.0), 24)
    pixel_m = 48.0 / width * 2
    fields = frame_fields(frame, pixel_m, hypotheses)
    window = orientation_field(map_luma(48))
    (scores,) = correlate(fields, [WindowField(window, None)], (48, 48), (18.0, 20.0, 26.0, 27.0))

    field, side = window.numpy(), fields.side_px
    rows, columns = scores.score.shape
    expected = np.full((len(hypotheses), rows, columns), -1.0)
    floor = 0.02 * float((np.abs(field) ** 2).mean())
    for number, row, column in itertools.product(range(len(hypotheses)), range(rows), range(columns)):
        top, left = round(scores.y0 + row - side / 2), round(scores.x0 + column - side / 2)
        piece = field[top : top + side, left : left + side]
        turned, mask = fields.fields[number].numpy(), fields.masks[number // fields.hypotheses.group].numpy()
        energy = max(float((mask * np.abs(piece) ** 2).sum()), floor * float(mask.sum()))
        product = float((turned.conj() * piece).real.sum())
        expected[number, row, column] = product / math.sqrt(float((np.abs(turned) ** 2).sum()) * energy)
    assert np.allclose(scores.score.numpy(), expected.max(0), atol=2e-4)
    by_group = expected.reshape(fields.groups, fields.hypotheses.group, rows, columns).max(1)
    chosen = np.take_along_axis(by_group, scores.group.numpy()[None], 0)[0]
    assert np.allclose(chosen, expected.max(0), atol=2e-4)
    row, column = rows // 2, columns // 3
    group = int(scores.group[row, column])
    peak = Peak(float(scores.score[row, column]), scores.x0 + column, scores.y0 + row, group)
    best, number = at_full_resolution(fields, WindowField(window, None), peak)
    around = expected[fields.members(group), row - 1 : row + 2, column - 1 : column + 2]
    assert best.score == pytest.approx(around.max(), abs=2e-4)
    i, j = round(best.y_px - scores.y0), round(best.x_px - scores.x0)
    assert expected[number, i, j] == pytest.approx(around.max(), abs=2e-4)


def test_a_halved_field_is_the_mean_of_its_pixels():
    field = orientation_field(map_luma(9)[:, :7].contiguous())
    valid = torch.ones(9, 7, dtype=torch.bool)
    valid[4, 3] = False
    half = WindowField(field, valid).halved
    means = [[field[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean() for j in range(3)] for i in range(4)]
    assert torch.allclose(half.field, torch.tensor(means), atol=1e-6)
    assert half.valid is not None and half.valid.nonzero().shape[0] == 12


@pytest.mark.parametrize("turns", [2, 4])
def test_hypotheses_number_every_heading_and_scale_once(turns: int):
    hypotheses = Hypotheses(turns=turns)
    pairs = {(hypotheses.heading_deg(n), hypotheses.scale(n)) for n in range(len(hypotheses))}
    assert pairs == {(7.5 * h, s) for h in range(48) for s in (0.9, 1.0, 1.12)}
    with pytest.raises(ValueError, match="multiple of 24"):
        Hypotheses((1.0,), 36)
    with pytest.raises(ValueError, match="3 turns"):
        Hypotheses(turns=3)


def test_turned_fields_are_the_fields_of_turned_pictures():
    shape = FrameGeometry(64, 64, 128.0)
    pose = WindowPose(500.0, 500.0, 0.0)
    hypotheses = Hypotheses((1.0,), 24)
    turned = frame_fields(FrameRaster(photograph(pose, shape), shape), 4.0, hypotheses)
    assert turned.hypotheses.turns == 4
    two, _ = turned_fields(FrameRaster(photograph(pose, shape), shape), 4.0, hypotheses)
    for fields, numbering in ((turned.fields, turned.hypotheses), (two, hypotheses)):
        by_heading = {numbering.heading_deg(number): fields[number] for number in range(24)}
        assert torch.equal(by_heading[180.0], by_heading[0.0].flip((-2, -1)))
        assert torch.allclose(by_heading[90.0], -torch.rot90(by_heading[0.0], -1, (-2, -1)), atol=1e-3)
        assert torch.allclose(by_heading[285.0], -torch.rot90(by_heading[195.0], -1, (-2, -1)), atol=1e-3)


def test_shifts_with_too_little_ground_score_minus_one():
    shape = FrameGeometry(32, 32, 64.0)
    frame = FrameRaster(photograph(WindowPose(100.0, 100.0, 10.0), shape), shape)
    fields = frame_fields(frame, 2.0, Hypotheses((1.0,), 24))
    valid = torch.ones(112, 112, dtype=torch.bool)
    valid[:, 56:] = False
    field = orientation_field(map_luma(112), valid)
    (scores,) = correlate(fields, [WindowField(field, valid)], (112, 112), (30.0, 30.0, 80.0, 80.0))
    across = scores.x0 + np.arange(scores.score.shape[1])
    assert bool((scores.score[:, across > 62] == -1.0).all())
    assert bool((scores.score[:, across < 45] > -1.0).all())


def test_peaks_are_apart_and_best_first():
    shape = FrameGeometry(32, 32, 64.0)
    frame = FrameRaster(photograph(WindowPose(100.0, 110.0, 40.0), shape), shape)
    fields = frame_fields(frame, 2.0, Hypotheses((1.0,), 48))
    window = WindowField(orientation_field(map_luma(112)), None)
    maxima = peaks(correlate(fields, [window], (112, 112), (26.0, 26.0, 86.0, 86.0))[0], 4, 8.0)
    assert (round(maxima[0].x_px), round(maxima[0].y_px)) == (50, 55)
    assert [peak.score for peak in maxima] == sorted((peak.score for peak in maxima), reverse=True)
    for first, second in itertools.combinations(maxima, 2):
        assert math.hypot(first.x_px - second.x_px, first.y_px - second.y_px) > 8.0


def test_a_climb_from_a_neighbouring_hypothesis_ends_at_the_best_one():
    shape = FrameGeometry(32, 32, 64.0)
    frame = FrameRaster(photograph(WindowPose(100.0, 110.0, 40.0), shape), shape)
    fields = frame_fields(frame, 2.0, Hypotheses((0.9, 1.0, 1.1), 24))
    window = WindowField(orientation_field(map_luma(112)), None)
    (best,) = peaks(correlate(fields, [window], (112, 112), (26.0, 26.0, 86.0, 86.0))[0], 1, 8.0)
    neighbours = fields.hypotheses.neighbours(best.group)
    assert all(best.group in fields.hypotheses.neighbours(group) for group in neighbours)
    for group in neighbours:
        start = at_full_resolution(fields, window, replace(best, x_px=best.x_px + 1, group=group))
        assert start[0].score < best.score - 0.02
        top, number = climbed(fields, window, *start)
        assert (top.x_px, top.y_px, top.group) == (best.x_px, best.y_px, best.group)
        assert top.score == pytest.approx(best.score, abs=2e-4)
        assert abs(fields.hypotheses.heading_deg(number) - 40.0) <= 7.5


def test_one_thread_of_torch_is_given_back():
    torch.set_num_threads(2)
    with threads.one_torch_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


def test_threads_that_share_the_groups_find_the_same(monkeypatch: pytest.MonkeyPatch):
    shape = FrameGeometry(32, 24, 64.0)
    frame = FrameRaster(photograph(WindowPose(100.0, 110.0, 40.0), shape), shape)
    fields = frame_fields(frame, 2.0, Hypotheses((1.0, 1.1), 24))
    valid = torch.ones(112, 112, dtype=torch.bool)
    valid[:, 80:] = False
    window = WindowField(orientation_field(map_luma(112), valid), valid)
    reach = (26.0, 26.0, 86.0, 86.0)
    (alone,) = correlate(fields, [window], (112, 112), reach)
    monkeypatch.setattr(threads, "torch_threads", lambda: 3)
    (shared,) = correlate(fields, [window], (112, 112), reach)
    assert torch.equal(shared.score, alone.score) and torch.equal(shared.group, alone.group)
    assert len(alone.group.unique()) > 3


def test_of_equal_scores_the_lowest_groups_is_the_best():
    tied = torch.tensor([0.5, 0.5, 0.2])
    shares = [(tied, torch.tensor([3.0, 1.0, 0.0])), (tied, torch.tensor([2.0, 4.0, 0.0]))]
    scores, groups = correlation._best_of_shares(shares)
    assert torch.equal(scores, tied) and groups.tolist() == [2.0, 1.0, 0.0]


def test_a_windows_transforms_are_kept_for_the_next_frame_of_its_kind():
    window = WindowField(orientation_field(map_luma(64)), None)
    first = window.spectra((64, 64), 3, 5)
    assert window.spectra((64, 64), 3, 5) is first
    moved = window.spectra((64, 64), 4, 5)
    assert not torch.equal(moved.cosine, first.cosine)


@pytest.mark.parametrize(("length", "smooth"), [(112, 112), (113, 120), (200, 200), (338, 360), (500, 504)])
def test_transform_lengths_are_multiples_of_8_with_small_factors(length: int, smooth: int):
    assert smooth_length(length) == smooth


# --- lenses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("k1", [-0.25, 0.15])
@pytest.mark.parametrize(("width", "height"), [(200, 200), (240, 135)])
def test_a_distorted_picture_is_warped_to_the_straight_one(k1: float, width: int, height: int):
    lens = Distortion(k1, 0.05, 0.004, -0.003, 0.01)
    straight = FrameGeometry(width, height, 400.0, 0.6)
    picture = photograph(WindowPose(500.0, 500.0, 20.0), straight)
    distorted = FrameRaster(pictured(picture, lens, 0.6), FrameGeometry(width, height, 400.0, 0.6, lens))
    pixel_m = 400.0 / width
    pose = WindowPose(pixel_m * (width / 2 + 10), pixel_m * (height / 2 + 10), 0.0)  # its pixels, 10 around them
    expected, covered = FrameRaster(picture, straight).warp(pose, pixel_m, height + 20, width + 20)
    luma, mask = distorted.warp(pose, pixel_m, height + 20, width + 20)
    inside = mask > 0.99
    difference = (luma - expected).abs()
    assert float(difference[inside].mean()) < 2.5 and float(luma[inside].std()) > 15.0
    untold = FrameRaster(pictured(picture, lens, 0.6), straight).warp(pose, pixel_m, height + 20, width + 20)[0]
    assert float((untold - expected).abs()[inside].mean()) > 3 * float(difference[inside].mean())
    assert bool((mask <= covered).all())
    if k1 < 0:  # what the straight picture shows lies within the lens's
        assert float((covered - mask).abs().mean()) < 0.01
    else:  # its corners lie beyond
        assert 0.01 < float((covered - mask).mean()) < 0.3 and float(mask[12, 12]) == 0.0


def test_a_lens_without_a_field_of_view_is_refused():
    with pytest.raises(ValueError, match="distortion without"):
        FrameGeometry(20, 20, 400.0, None, Distortion(0.1, 0.0, 0.0, 0.0))
