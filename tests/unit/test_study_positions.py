"""Positions by three witnesses: pictures turned and windows laid together, on encoders whose tokens are known."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from registration_scenes import CENTER, SceneSource, scene_window

from coarseloc.core import geo
from coarseloc.core.types import Float32, LonLat, UInt8
from coarseloc.i18n import translator
from coarseloc.store.studies import CurvePoint, StoredStudy
from search.evaluation.report.positions import make_position_sections, write_position_finding
from search.evaluation.studies import positions
from search.evaluation.studies.positions import (
    PATCH_HEADINGS,
    WITNESSES,
    best_places,
    patch_window,
    position_curves,
    position_figures,
    turned_tokens,
)
from search.evaluation.studies.study import StudyResult


class MeanColours:
    """S x S tokens: the mean colour of each patch of a picture whose side S divides."""

    device = "cpu"

    def __init__(self, side: int) -> None:
        self.side = side
        self.images = 0

    def patch_tokens(self, images: UInt8) -> Float32:
        self.images += len(images)
        size = images.shape[1] // self.side
        patches = images.reshape(len(images), self.side, size, self.side, size, 3)
        return patches.mean(axis=(2, 4)).astype(np.float32)


def frame_view(center: LonLat, footprint_m: float, side_px: int) -> UInt8:
    return scene_window(center, footprint_m, footprint_m / side_px).pixels


@pytest.mark.parametrize("side", [1, 2, 5, 8, 14])
def test_a_window_of_patches_is_one_grid_as_if_it_were_one_picture(side: int) -> None:
    encoder, source = MeanColours(side), SceneSource()
    footprint_m, side_px = 20.0 * side, 10 * side  # the scene's own 2 m a pixel
    window = patch_window(encoder, source.window, side_px, side, CENTER, footprint_m)
    width = len(window.tokens)
    assert (width - side) % 2 == 0 and (width >= 1.75 * side or side == 1)
    whole = source.window(CENTER, 20.0 * width, 2.0).pixels
    expected = MeanColours(width).patch_tokens(whole[None])[0]
    np.testing.assert_allclose(window.tokens, expected, atol=2.0)
    assert window.ground.shape == (width, width) and (window.ground == 1).all()


def test_where_the_map_ends_patches_are_not_ground() -> None:
    corner = geo.offset(CENTER, -500.0, 500.0)  # the upper left corner of the scene
    window = patch_window(MeanColours(8), SceneSource().window, 80, 8, corner, 160.0)
    half = len(window.ground) // 2
    assert window.ground[half + 1 :, half + 1 :].min() == 1 and window.ground[: half - 1].max() == 0
    assert window.ground[:, : half - 1].max() == 0


def test_a_frame_is_turned_as_headings_are_and_its_empty_corners_are_masked() -> None:
    pixels = frame_view(CENTER, 400.0, 200)
    tokens, masks = turned_tokens(MeanColours(10), pixels)
    assert tokens.shape == (32, 10, 10, 3) and masks.shape == (32, 10, 10)
    quarter, eighth = PATCH_HEADINGS.index(90.0), PATCH_HEADINGS.index(45.0)
    np.testing.assert_allclose(tokens[quarter], np.rot90(tokens[0], 1), atol=1e-4)  # at 90 east is on top
    assert (masks[[0, quarter]] == 1).all()
    octagon = 2 * (math.sqrt(2) - 1)
    assert masks[eighth].mean() == pytest.approx(octagon, abs=0.005) and masks[eighth, 0, 0] == 0
    padded_side = tokens[eighth][masks[eighth] < 0.5].mean()
    assert padded_side == pytest.approx(tokens[0].mean(), rel=0.2), "reflected, not black"


def views_of(place: LonLat, hits: tuple[LonLat, ...], nearest: LonLat) -> list[positions.SearchedView]:
    north = frame_view(place, 400.0, 200)
    return [
        positions.SearchedView(np.ascontiguousarray(np.rot90(north, k)), 400.0, 90 * k, hits, nearest) for k in range(4)
    ]


@pytest.fixture
def scene_ground(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The scene in place of an orthophoto."""
    from search.evaluation.studies.ground import OrthophotoGround

    monkeypatch.setattr(positions, "OrthophotoWindows", lambda path: SceneSource())
    return OrthophotoGround(tmp_path / "scene.tif", 400.0, 200.0, 200, ())


def test_each_witness_places_a_frame_and_quarter_turns_change_no_answer(scene_ground: Any) -> None:
    place = geo.offset(CENTER, 33.0, -21.0)
    elsewhere = geo.offset(CENTER, -180.0, 160.0)
    views = views_of(place, (elsewhere, CENTER), CENTER)
    encoder = MeanColours(20)
    offsets_m = np.asarray(positions.place_frame(scene_ground, encoder, place, views)["offsets_m"])
    assert offsets_m.shape == (4, len(WITNESSES), 2)
    metres = dict(zip(WITNESSES, np.hypot(*np.moveaxis(offsets_m, -1, 0)).T, strict=True))
    assert metres["global"] == pytest.approx(math.hypot(213, 181), abs=0.1)
    assert metres["global-oracle"] == pytest.approx(math.hypot(33, 21), abs=0.1)
    for name in ("patches", "patches-oracle"):
        assert metres[name].max() < 8 and np.ptp(metres[name]) < 1e-3, "within half a patch of 20 m"
    assert metres["orientation"].max() < 0.3 and np.ptp(metres["orientation"]) < 0.01
    np.testing.assert_array_equal(metres["orientation"], metres["orientation-oracle"])
    shared = encoder.images
    alone = positions.place_frame(scene_ground, encoder, place, views[1:2])["offsets_m"]
    np.testing.assert_allclose(alone[0], offsets_m[1], atol=0.02)
    assert encoder.images - shared == shared, "of four views one was embedded"


def test_where_the_hits_lead_astray_the_right_place_still_tells_what_a_witness_can_do(scene_ground: Any) -> None:
    place = geo.offset(CENTER, 33.0, -21.0)
    views = views_of(place, (geo.offset(CENTER, -260.0, 260.0),), CENTER)[:1]
    offsets_m = np.asarray(positions.place_frame(scene_ground, MeanColours(20), place, views)["offsets_m"])
    metres = dict(zip(WITNESSES, np.hypot(*np.moveaxis(offsets_m, -1, 0)).T[:, 0], strict=True))
    assert metres["patches"] > 100 and metres["orientation"] > 100
    assert metres["patches-oracle"] < 8 and metres["orientation-oracle"] < 0.3


def test_the_best_places_are_best_first_and_none_that_was_not_searched() -> None:
    centres = [LonLat(float(i), 0.0) for i in range(8)]
    scores = np.array([0.1, 0.9, -np.inf, 0.5, 0.9, 0.2, 0.3, 0.4])
    assert [centre.lon for centre in best_places(scores, centres)] == [1, 4, 3, 7, 6]
    assert best_places(np.array([-np.inf, 0.3]), centres) == (centres[1],)


# --- curves and what is written from them --------------------------------------------------------


def test_curves_hold_each_view_and_all_of_a_frame() -> None:
    """40 frames at two turns: right at the first, 30 m and 300 m off at the second, half of them each."""
    offsets_m = np.zeros((40, 2, len(WITNESSES), 2))
    offsets_m[:20, 1, :, 0], offsets_m[20:, 1, :, 1] = 30.0, -300.0
    points = {(p.curve, p.x): p for p in position_curves("plain", (0, 45), offsets_m, 400.0)}
    position, place, metres = (points[f"{name}@patches", 45.0] for name in ("position", "place", "metres"))
    assert (position.y, place.y, metres.y, metres.n) == (0.0, 0.5, 165.0, 40)
    assert points["position@patches", 0.0].y == 1.0
    assert position.high is not None and 0 < position.high < 0.2
    everything = points["all_position@patches", 0.0], points["all_metres@patches", 0.0]
    assert (everything[0].y, everything[0].n, everything[1].y) == (0.5, 40, 82.5)
    assert points["all_nearer@patches", 0.0].y == 0, "none is nearer than another that is as far"


def result_of(metres: dict[str, float], kind: str = "rotation", **parameters: Any) -> StudyResult:
    """A study of one backbone and two views, every frame this far off."""
    asked = {"backbones": {"plain": "d"}, "ground": {"footprint_m": 400.0}, "positions": 3} | parameters
    now = datetime.now(UTC)
    study = StoredStudy(1, kind, None, asked, {}, {"positions": 3}, now, now)
    offsets_m = np.zeros((3, 2, len(WITNESSES), 2))
    offsets_m[..., 0] = [metres[name] for name in WITNESSES]
    points = position_curves("plain", (0, 45), offsets_m, 400.0)  # of 3 frames none has an interval
    return StudyResult(study, [point._replace(low=None, high=None) for point in points])


METRES = dict(zip(WITNESSES, (80.0, 75.0, 4.0, 4.0, 0.5, 0.5), strict=True))


def test_a_finding_says_what_its_figures_say() -> None:
    text = write_position_finding(result_of(METRES), "plain", str)
    assert "Of 3 frames, 0% lie within 20 m of the centre of the global token's best tile (80 m in the median)" in text
    assert "for 100% (4 m), orientation correlation for 100% (0.5 m)" in text and "finds least" not in text
    patches, tile = "“patch tokens, among its best places”", "“global token: its best tile”"
    assert f"{patches} is nearer than {tile} in 100.0% of the views: 4 m instead of 80 m in the median." in text
    worse = write_position_finding(result_of(METRES | {"patches": 90.0}), "plain", str)
    assert f"{patches} is nearer than {tile} in 0.0% of the views: 90 m instead of 80 m in the median." in worse


def test_a_finding_names_where_a_witness_finds_least() -> None:
    result = result_of(METRES)
    lower = [p._replace(y=0.4) if (p.curve, p.x) == ("position@patches", 45.0) else p for p in result.points]
    text = write_position_finding(replace(result, points=lower), "plain", str)
    assert "“patch tokens, among its best places” finds least at 45°: 40%." in text
    korean = write_position_finding(replace(result, points=lower), "plain", translator("ko"))
    assert "45°: 40%" in korean and "median" not in korean


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({}, "older study"),
        ({"positions": 0, "ground": {"source": "a.tif"}}, "--positions 0"),
        ({"positions": 4, "ground": {"pictures": ["a.jpg"]}}, "Pictures without a map"),
    ],
)
def test_a_study_without_positions_says_why(parameters: dict[str, Any], reason: str) -> None:
    result = replace(result_of(METRES), points=[CurvePoint("plain", "cosine", 0.0, 1.0, None, None, 3)])
    stored = {name: value for name, value in result.study.parameters.items() if name != "positions"} | parameters
    result = replace(result, study=replace(result.study, parameters=stored))
    (section,) = make_position_sections(result, str, str, "turn, degrees", lambda ax: None)
    assert reason in section.note and section.draw is None and section.table is None
    assert write_position_finding(result, "plain", str) == "" and position_figures(result, "plain") == {}
