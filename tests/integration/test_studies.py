"""The rotation and altitude studies on encoders whose answers are known: stored, resumed, reported."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from coarseloc.cli import cli
from coarseloc.core import geo
from coarseloc.core.config import CustomBackbone
from coarseloc.core.errors import InputError
from coarseloc.core.types import EmbeddingSpec, Float32, LonLat, UInt8
from coarseloc.i18n import dictionary
from coarseloc.imagery.geotiff import write_rgb
from coarseloc.store import Database, studies
from search.evaluation.report.study import write_study
from search.evaluation.studies import limits, rotation
from search.evaluation.studies.altitude import CROPPED, CURVES, NEAREST, PYRAMID, SINGLE, run_altitude
from search.evaluation.studies.ground import OrthophotoGround, PictureGround, open_ground
from search.evaluation.studies.ground_truth import GroundTruth
from search.evaluation.studies.positions import position_figures
from search.evaluation.studies.rotation import (
    EIGHT_HEADINGS,
    EIGHT_QUERIES,
    FOUR_HEADINGS,
    KNOWN_YAW,
    ONE_HEADING,
    run_rotation,
)
from search.evaluation.studies.strategies import evaluate_strategy, with_gains
from search.evaluation.studies.study import StudyResult

CENTRE = LonLat(127.03, 37.50)
ENVIRONMENT = {"device": "cpu", "cpu": "test", "backend": "faiss-cpu", "warm_up": 3, "versions": {"python": "3"}}


class Encoder:
    """Small pictures through a fixed projection; `turned` averages over quarter turns, so a heading changes little."""

    def __init__(self, name: str = "plain", turned: bool = False) -> None:
        self.spec = EmbeddingSpec(name, 24, f"weights-of-{name}", 32, (0.5,) * 3, (0.5,) * 3, "cls")
        self.device = "cpu"
        self.images = 0
        self._turned = turned
        self._projection = np.random.default_rng(3).standard_normal((192, 24))

    def _vectors(self, images: UInt8) -> np.ndarray:
        small = np.stack([np.asarray(Image.fromarray(i).resize((8, 8), Image.Resampling.BOX), float) for i in images])
        if self._turned:
            small = np.mean([np.rot90(small, k, axes=(1, 2)) for k in range(4)], axis=0)
        flat = small.reshape(len(images), 192)
        return (flat - flat.mean(axis=1, keepdims=True)) @ self._projection

    def embed(self, images: UInt8) -> Float32:
        self.images += len(images)
        vectors = self._vectors(images)
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def embed_many(self, images: list[UInt8]) -> Float32:
        return np.concatenate([self.embed(image[None]) for image in images])

    def patch_tokens(self, images: UInt8) -> Float32:
        small = np.stack([np.asarray(Image.fromarray(i).resize((8, 8), Image.Resampling.BOX)) for i in images])
        return np.concatenate([small.astype(np.float32) - 120, np.full((*small.shape[:3], 1), 5, np.float32)], axis=3)


def blobs() -> UInt8:
    """400 x 400 px: neighbours overlap, places differ, nothing repeats."""
    rng = np.random.default_rng(5)
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)).resize((400, 400), Image.Resampling.BICUBIC)
        )
        for n in (6, 14, 34)
    ]
    return np.mean(layers, axis=0).astype(np.uint8)


@pytest.fixture(scope="module")
def area(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1.6 x 1.6 km."""
    return write_rgb(tmp_path_factory.mktemp("area") / "area.tif", blobs(), center=CENTRE, gsd_m=4.0)


@pytest.fixture
def ground(db: Database, area: Path) -> OrthophotoGround:
    result = open_ground(db, str(area), footprint_m=300.0, overlap=0.5, tile_px=48, max_places=20)
    assert isinstance(result, OrthophotoGround)
    return result


def strategies_of(result: StudyResult, backbone: str) -> dict[str, dict[str, Any]]:
    return {record["name"]: record for record in result.study.findings["ways"][backbone]}


def run_small_rotation(
    db: Database, ground: OrthophotoGround | PictureGround, encoder: Encoder, **options: Any
) -> StudyResult:
    options = {"step": 45, "frames": 8, "patches": 1, "positions": 0} | options
    return run_rotation(db, ground, [encoder.spec], lambda _: encoder, ENVIRONMENT, **options)


def run_small_altitude(db: Database, ground: OrthophotoGround, encoder: Encoder, **options: Any) -> StudyResult:
    return run_altitude(db, ground, [encoder.spec], lambda _: encoder, ENVIRONMENT, **options)


def test_an_encoder_that_feels_a_turn_needs_turned_references_or_the_yaw(
    db: Database, ground: OrthophotoGround
) -> None:
    result = run_small_rotation(db, ground, Encoder())
    strategies = strategies_of(result, "plain")
    assert strategies[KNOWN_YAW]["recall"] > strategies[ONE_HEADING]["recall"] + 0.3
    assert (
        strategies[ONE_HEADING]["recall"]
        < strategies[FOUR_HEADINGS]["recall"]
        <= strategies[EIGHT_HEADINGS]["recall"] + 0.05
    )
    assert strategies[EIGHT_QUERIES]["recall"] > strategies[ONE_HEADING]["recall"]
    assert strategies[EIGHT_HEADINGS]["heading_error_deg"] == 0 and strategies[ONE_HEADING]["heading_error_deg"] is None
    assert strategies[EIGHT_HEADINGS]["index_bytes"] == 8 * strategies[KNOWN_YAW]["index_bytes"]
    cosine = {p.x: p.y for p in result.curve("plain", "cosine")}
    assert cosine[0] == pytest.approx(1) and cosine[90] == pytest.approx(cosine[270]) and cosine[180] < 0.7
    north = {p.x: p.y for p in result.curve("plain", "recall@1")}
    assert north[0] == strategies[KNOWN_YAW]["recall"]


def test_an_encoder_that_feels_no_quarter_turn_says_so(db: Database, ground: OrthophotoGround) -> None:
    result = run_small_rotation(db, ground, Encoder("even", turned=True))
    cosine = {p.x: p.y for p in result.curve("even", "cosine")}
    assert all(cosine[turn] == pytest.approx(1, abs=1e-4) for turn in (0, 90, 180, 270)) and cosine[45] < 0.999
    recall = {p.x: p.y for p in result.curve("even", "recall@1")}
    assert recall[0] == recall[90] == recall[180] == recall[270]


def test_patches_laid_back_by_quarter_turns_are_the_same_patches(db: Database, ground: OrthophotoGround) -> None:
    result = run_small_rotation(db, ground, Encoder())
    aligned = {p.x: p.y for p in result.curve("plain", "patch_aligned")}
    assert all(aligned[turn] == pytest.approx(1, abs=1e-3) for turn in (0, 90, 180, 270))
    other_place = {p.x: p.y for p in result.curve("plain", "patch_other")}
    assert max(other_place.values()) < min(aligned.values())


def test_frames_are_placed_in_metres_by_three_witnesses_at_every_turn(db: Database, ground: OrthophotoGround) -> None:
    """The encoder's patches are 37.5 m wide, and its global token feels a turn by 45 degrees."""
    result = run_small_rotation(db, ground, Encoder(), patches=0, positions=2)
    assert result.study.findings["positions"] == 2
    for curve in ("position", "place", "metres"):
        points = result.curve("plain", f"{curve}@patches")
        assert [p.x for p in points] == list(range(0, 360, 45)) and {p.n for p in points} == {2}
    figures = position_figures(result, "plain")
    metres = {name: row.metres.y for name, row in figures.items()}
    assert all(y is not None for y in metres.values())
    floor_m = result.study.findings["limits"]["floor_m"]
    assert metres["global"] >= metres["global-oracle"] > 0 and floor_m > 15
    assert metres["patches-oracle"] < 15 and metres["orientation-oracle"] < 2, "0.05 of 300 m; 4 m a pixel"
    assert figures["orientation-oracle"].position.y == 1.0
    (best,) = {p.y for p in result.curve("plain", "metres@global-oracle")}
    assert best == metres["global-oracle"], "a tile's centre does not turn"


def test_frames_are_placed_in_metres_at_every_altitude(db: Database, ground: OrthophotoGround) -> None:
    encoder = Encoder()
    result = run_small_altitude(
        db,
        ground,
        encoder,
        altitudes_m=(300, 450),
        pyramid_m=(300,),
        max_references=40,
        frames=4,
        positions=2,
    )
    assert result.study.findings["positions"] == 2
    metres = {p.x: p.y for p in result.curve("plain", "metres@orientation-oracle")}
    assert set(metres) == {300, 450} and max(y for y in metres.values() if y is not None) < 4
    patches = position_figures(result, "plain")["patches-oracle"]
    assert patches.metres.y is not None and patches.metres.y < 20


def test_a_study_stopped_while_it_places_frames_goes_on_with_the_next(db: Database, ground: OrthophotoGround) -> None:
    encoder = Encoder()
    placed = len(ground.centres) + 8 + 1

    def stop_at(count: int, total: int, unit: str) -> None:
        if count == placed:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"patches": 0, "positions": 2}
    with pytest.raises(KeyboardInterrupt):
        run_small_rotation(db, ground, encoder, **options, progress=stop_at)
    counts: list[int] = []
    resumed = run_small_rotation(db, ground, encoder, **options, progress=lambda count, *_: counts.append(count))
    assert counts == [placed + 1, placed + 2], "the second frame, and the times"
    assert resumed.study.findings["positions"] == 2


def test_a_stopped_study_goes_on_where_it_was(db: Database, ground: OrthophotoGround) -> None:
    encoder = Encoder()

    def stop_at(count: int, total: int, unit: str) -> None:
        if count == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_small_rotation(db, ground, encoder, patches=0, progress=stop_at)
    before = encoder.images
    run_small_rotation(db, ground, encoder, patches=0)
    references, frames = len(ground.centres), 8
    timed = encoder.images - 8 * (references + frames)
    assert before == 15 * 8 and 0 < timed < 200


def test_the_same_question_is_answered_from_the_database(db: Database, ground: OrthophotoGround) -> None:
    encoder = Encoder()
    first = run_small_rotation(db, ground, encoder, patches=0)
    count = encoder.images

    def refuse(_: EmbeddingSpec) -> Encoder:
        raise AssertionError("nothing needs loading")

    repeated = run_rotation(db, ground, [encoder.spec], refuse, ENVIRONMENT, step=45, frames=8, patches=0, positions=0)
    assert (repeated.study.id, repeated.points) == (first.study.id, first.points) and encoder.images == count
    with db.read() as session:
        assert studies.parts(session, first.study.id) == set()
        assert [study.id for study in studies.studies(session, "rotation")] == [first.study.id]


def test_frames_from_another_orthophoto_of_the_place_are_harder(
    db: Database, ground: OrthophotoGround, tmp_path: Path
) -> None:
    pixels = np.zeros((400, 400, 3), np.uint8) + np.random.default_rng(9).integers(60, 190, (400, 400, 1), np.uint8)
    other_orthophoto = write_rgb(tmp_path / "other.tif", pixels.astype(np.uint8), center=CENTRE, gsd_m=4.0)
    own_result = run_small_rotation(db, ground, Encoder(), patches=0)
    result = run_small_rotation(db, ground, Encoder(), patches=0, frames_from=replace(ground, path=other_orthophoto))
    assert strategies_of(result, "plain")[KNOWN_YAW]["recall"] < strategies_of(own_result, "plain")[KNOWN_YAW]["recall"]
    assert result.study.id != own_result.study.id


def test_pictures_without_a_map_are_told_apart_by_themselves(db: Database, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for i in range(4):
        soft = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8)).resize((120, 100), Image.Resampling.BICUBIC)
        soft.save(tmp_path / f"DJI_{i}.jpg", quality=95)
    ground = open_ground(db, str(tmp_path), footprint_m=None, overlap=0.5, tile_px=None, max_places=10)
    assert isinstance(ground, PictureGround) and ground.view(0, 45).shape == (70, 70, 3)
    assert (ground.view(0, 45) > 0).all(axis=2).mean() > 0.99, "corners hold picture"
    result = run_small_rotation(db, ground, Encoder())
    strategies = strategies_of(result, "plain")
    assert strategies[KNOWN_YAW]["recall"] == strategies[EIGHT_HEADINGS]["recall"] == 1.0
    assert strategies[KNOWN_YAW]["error_m"] is None
    text = " ".join(limits.sentences(result))
    assert "4 of 4 frames match themselves" in text and "no median error" not in text, "positions are not known"
    assert write_study(result, tmp_path / "report.html") == []


def test_impossible_questions_are_refused_with_what_to_do(
    db: Database, ground: OrthophotoGround, area: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="which divide 45"):
        run_small_rotation(db, ground, Encoder(), step=20)
    with pytest.raises(InputError, match="smaller footprint"):
        open_ground(db, str(area), footprint_m=1500.0, overlap=0.5, tile_px=48, max_places=10)
    with pytest.raises(InputError, match="--footprint-m"):
        open_ground(db, str(area), footprint_m=None, overlap=0.5, tile_px=48, max_places=10)
    with pytest.raises(InputError, match="not among"):
        run_altitude(db, ground, [], lambda spec: Encoder(), ENVIRONMENT, reference_m=310)


def test_hand_made_vectors_give_the_worked_out_strategies() -> None:
    """Two places, D = 8: a reference at heading 45 k is the k-th axis, signed by its place; a frame is its own
    reference. So the eight-heading index is always right; the one-heading index only sees heading 0; turned frames
    always pass through heading 0."""
    axes = np.eye(8, dtype=np.float32)
    references = np.stack([axes, -axes])
    vectors = rotation.RotationVectors(
        queries=references, references=references,
        truth=GroundTruth(np.eye(2, dtype=bool), np.array([[0.0, 100.0], [100.0, 0.0]])), step=45,
    )  # fmt: skip
    strategies = {way.name: way for way in rotation.compare(vectors, {"embed_1": 2.0, "embed_8": 9.0})}
    assert strategies[EIGHT_HEADINGS].recall == strategies[EIGHT_QUERIES].recall == strategies[KNOWN_YAW].recall == 1.0
    assert strategies[EIGHT_HEADINGS].heading_error_deg == strategies[EIGHT_QUERIES].heading_error_deg == 0.0
    # At the other seven headings both scores are 0, and the first place is answered: right for it alone.
    assert strategies[ONE_HEADING].recall == pytest.approx((8 + 1) / 16)
    assert strategies[ONE_HEADING].gain == pytest.approx((8 + 1) / 16 - 1) and strategies[KNOWN_YAW].gain == 0
    assert np.isnan(strategies[EIGHT_HEADINGS].gain)  # what the others are compared with
    assert (strategies[EIGHT_QUERIES].embed_ms, strategies[ONE_HEADING].embed_ms) == (9.0, 2.0)
    assert strategies[EIGHT_HEADINGS].index_bytes == 2 * 8 * 8 * 4
    np.testing.assert_allclose(rotation.own_cosine(references)[0], [1, 0, 0, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(rotation.other_cosine(references)[0], [-1, 0, 0, 0, 0, 0, 0, 0])


def test_scale_alone_is_seen_by_the_altitude_study(db: Database, ground: OrthophotoGround) -> None:
    encoder = Encoder()
    result = run_small_altitude(
        db,
        ground,
        encoder,
        altitudes_m=(200, 300, 450, 600),
        max_references=40,
        frames=8,
        positions=0,
    )
    strategies = strategies_of(result, "plain")
    cosine = {p.x: p.y for p in result.curve("plain", "cosine")}
    assert cosine[300] == pytest.approx(1) and cosine[600] < cosine[450] < 1 and cosine[200] < 1
    recall = {name: {p.x: p.y for p in result.curve("plain", f"recall@{name}")} for name in CURVES.values()}
    # Up to 424 m the 300 m level is the nearest; up to 300 m there is nothing to crop.
    assert [recall["nearest"][a] for a in (200, 300)] == [recall["single"][a] for a in (200, 300)]
    assert [recall["cropped"][a] for a in (200, 300)] == [recall["single"][a] for a in (200, 300)]
    assert all(strategy["recall"] > 0.4 for strategy in strategies.values())
    assert strategies[PYRAMID]["index_bytes"] > strategies[SINGLE]["index_bytes"]
    assert result.study.findings["levels"][0] == len(ground.centres)


def test_an_area_across_the_antimeridian_is_as_good_as_any(db: Database, tmp_path: Path) -> None:
    middle = LonLat(180.0, -17.0)
    area = write_rgb(tmp_path / "fiji.tif", blobs(), center=middle, gsd_m=4.0)
    ground = open_ground(db, str(area), footprint_m=300.0, overlap=0.5, tile_px=48, max_places=9)
    assert isinstance(ground, OrthophotoGround) and {centre.lon > 0 for centre in ground.centres} == {True, False}
    assert all(geo.distance_m(*middle, *centre) < 300 for centre in ground.centres), "nine of many, nearest the middle"
    encoder = Encoder()
    turned = strategies_of(run_small_rotation(db, ground, encoder, patches=0), "plain")
    assert turned[KNOWN_YAW]["recall"] > 0.8 and turned[KNOWN_YAW]["error_m"] < 150
    climbed = run_small_altitude(
        db,
        ground,
        encoder,
        altitudes_m=(300, 450),
        pyramid_m=(300,),
        frames=8,
        positions=0,
    )
    assert strategies_of(climbed, "plain")[CROPPED]["recall"] > 0.8


@pytest.mark.parametrize("kind", ["rotation", "altitude"])
def test_study_reports_speak_both_languages_and_follow_the_readers_colours(
    db: Database, ground: OrthophotoGround, tmp_path: Path, kind: str
) -> None:
    encoder = Encoder()
    if kind == "rotation":
        result = run_small_rotation(db, ground, encoder, positions=1)
    else:
        result = run_small_altitude(
            db,
            ground,
            encoder,
            altitudes_m=(300, 600),
            max_references=20,
            frames=4,
            positions=1,
        )
    out = tmp_path / "report.html"
    assert write_study(result, out, figures=tmp_path / "figures", note="a stand-in") == []
    text = out.read_text(encoding="utf-8")
    assert "plain: none of the six DINOv3 backbones" in text and "a stand-in" in text
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        assert not re.search(r"#[0-9a-f]{6}\b", svg)
    assert len(list((tmp_path / "figures").glob("*.png"))) == text.count("<svg")
    write_study(result, out, language="ko")
    text = re.sub(r"<style.*?</style>", "", out.read_text(encoding="utf-8"), flags=re.DOTALL)
    words = [re.sub(r"\s+", " ", word).strip() for word in re.findall(r">([^<>]+)<", text)]
    assert [word for word in words if word in dictionary("ko") and dictionary("ko")[word] != word] == []
    assert [word for word in words if re.search(r"[a-z]{3,} [a-z]{3,} [a-z]{3,}", word)] == []


def test_the_command_answers_in_json_and_writes_a_report(
    tmp_path: Path, area: Path, tiny_backbone: CustomBackbone
) -> None:
    (tmp_path / "coarseloc.toml").write_text(
        f'[[backbones]]\nname = "tiny"\npath = "{tiny_backbone.path}"\n', encoding="utf-8"
    )
    report = tmp_path / "rotation.html"
    common = ["--footprint-m", "300", "--tile-px", "32", "--input-px", "32", "--backbone", "tiny", "--json"]
    options = [
        *common,
        "--step",
        "45",
        "--frames",
        "3",
        "--references",
        "6",
        "--patches",
        "1",
        "--positions",
        "1",
        "--out",
        str(report),
    ]
    answer = CliRunner().invoke(cli, ["--data-dir", str(tmp_path), "rotation", str(area), *options])
    assert answer.exit_code == 0, answer.output
    facts = json.loads(answer.stdout)
    assert {way["name"] for way in facts["findings"]["ways"]["tiny"]} >= {ONE_HEADING, EIGHT_HEADINGS, KNOWN_YAW}
    assert report.is_file()
    options = [*common, "--frames", "3", "--references", "6", "--altitudes", "300,600", "--positions", "0"]
    answer = CliRunner().invoke(cli, ["--data-dir", str(tmp_path), "altitude", str(area), *options])
    assert answer.exit_code == 0, answer.output
    facts = json.loads(answer.stdout)
    assert facts["kind"] == "altitude" and "3 of 3 frames are cut from the references' own pixels" in facts["limits"][0]
    assert set(facts["environment"]["threads"]) == {"torch", "faiss", "omp"}
    options = [option for option in options if option != "--json"]
    printed = CliRunner().invoke(
        cli, ["--data-dir", str(tmp_path), "altitude", str(area), *options], env={"COLUMNS": "200"}
    )
    text = " ".join(printed.stdout.split())
    assert "levels" in text and "ceiling" in text and facts["limits"][0] in text


def test_views_turn_as_reference_tiles_do(ground: OrthophotoGround) -> None:
    """The study's heading is the project's: east on top at 90."""
    centre = ground.centres[0]
    north, east = ground.view(centre, 0), ground.view(centre, 90)
    difference = np.abs(np.rot90(north, 1).astype(int) - east.astype(int)).mean()
    assert difference < 3


# --- what a study can reach, and what its figures cannot show ------------------------------------


def test_a_level_keeps_the_tiles_that_are_ground_facing_north(db: Database, area: Path) -> None:
    """1,600 m of ground: a 600 m tile has its centre up to 500 m from the middle facing north, 376 m when it turns."""
    options: dict[str, Any] = {"footprint_m": 600.0, "overlap": 0.5, "tile_px": 48, "max_places": 40}
    north = open_ground(db, str(area), **options, turned=False)
    turning = open_ground(db, str(area), **options)
    assert len(north.centres) == 16 and len(turning.centres) == 4
    encoder, base = Encoder(), open_ground(db, str(area), **options | {"footprint_m": 300.0}, turned=False)
    assert isinstance(base, OrthophotoGround)
    result = run_small_altitude(
        db,
        base,
        encoder,
        altitudes_m=(300, 600),
        max_references=40,
        frames=8,
        positions=0,
    )
    assert result.study.findings["levels"][1] == 16
    assert result.study.findings["limits"]["ceilings"] == [1.0, 1.0], "what 600 m sees lies among the 600 m tiles"


def test_no_strategy_is_right_more_often_than_its_ceiling(db: Database, area: Path) -> None:
    ground = open_ground(db, str(area), footprint_m=300.0, overlap=0.0, tile_px=48, max_places=40, turned=False)
    encoder = Encoder()
    assert isinstance(ground, OrthophotoGround)
    result = run_small_altitude(
        db,
        ground,
        encoder,
        altitudes_m=(300, 450),
        max_references=40,
        overlap=0.0,
        frames=30,
        positions=0,
    )
    strategies, level_ceilings = strategies_of(result, "plain"), result.study.findings["limits"]["ceilings"]
    assert level_ceilings[0] == 1.0 and level_ceilings[1] < 0.6, "centres 600 m apart, right within 150 m"
    assert strategies[SINGLE]["ceiling"] == strategies[PYRAMID]["ceiling"] == 1.0
    # One of the two altitudes is nearest to each level.
    assert strategies[NEAREST]["ceiling"] == pytest.approx(np.mean(level_ceilings))
    assert all(strategy["recall"] <= strategy["ceiling"] for strategy in strategies.values())
    assert strategies[NEAREST]["gain_n"] == round(30 * level_ceilings[1]) and strategies[PYRAMID]["gain_n"] == 30
    ceiling = {p.x: p.y for p in result.curve("plain", "ceiling@nearest")}
    assert ceiling == {300: 1.0, 450: pytest.approx(level_ceilings[1])}


def test_a_gain_is_taken_on_the_frames_that_both_strategies_can_reach() -> None:
    """Four frames, one reference for each; the second strategy searches the first three, right wherever possible."""
    truth, searched = GroundTruth(np.eye(4, dtype=bool), np.zeros((4, 4))), np.array([[True, True, True, False]])
    cost: dict[str, Any] = {"embed_ms": 1.0, "search_ms": 1.0, "index_bytes": 1}
    usual = evaluate_strategy("usual", truth, np.array([[0], [1], [0], [3]]), **cost)
    restricted = evaluate_strategy("other", truth, np.array([[0], [1], [2], [0]]), **cost, searched=searched)
    _, gained = with_gains([usual, restricted], "usual")
    assert (gained.recall, gained.ceiling) == (0.75, 0.75)
    assert (gained.gain, gained.gain_n) == (pytest.approx(1 / 3), 3), "the fourth frame is no loss"


def test_frames_of_the_references_own_image_are_told_by_their_pixels(
    db: Database, ground: OrthophotoGround, area: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "another-name.tif"
    copy.write_bytes(area.read_bytes())
    otherwise = write_rgb(tmp_path / "other.tif", np.rot90(blobs()).copy(), center=CENTRE, gsd_m=4.0)
    own = run_small_rotation(db, ground, Encoder(), patches=0)
    copied = run_small_rotation(db, ground, Encoder(), patches=0, frames_from=replace(ground, path=copy))
    foreign = run_small_rotation(db, ground, Encoder(), patches=0, frames_from=replace(ground, path=otherwise))
    sentence = "8 of 8 frames are cut from the references' own pixels"
    assert [any(sentence in line for line in limits.sentences(study)) for study in (own, copied, foreign)] == [
        True,
        True,
        False,
    ]
    assert not any("match themselves" in line for study in (own, copied, foreign) for line in limits.sentences(study))
    assert "steps of 45°: none lies further than 0°" in " ".join(limits.sentences(own))
    assert "At 0° the similarity curves compare a view with itself" in " ".join(limits.sentences(own))
    write_study(own, tmp_path / "report.html")
    assert sentence in (tmp_path / "report.html").read_text(encoding="utf-8").replace("&#39;", "'")


def test_a_study_of_before_says_that_it_does_not_record_its_limits(
    db: Database, ground: OrthophotoGround, tmp_path: Path
) -> None:
    otherwise = write_rgb(tmp_path / "other.tif", np.rot90(blobs()).copy(), center=CENTRE, gsd_m=4.0)
    result = run_small_rotation(db, ground, Encoder(), patches=0, frames_from=replace(ground, path=otherwise))
    findings = {key: value for key, value in result.study.findings.items() if key != "limits"}
    findings["ways"] = {
        name: [{key: value for key, value in way.items() if key not in ("ceiling", "gain_n")} for way in rows]
        for name, rows in findings["ways"].items()
    }
    old = replace(result, study=replace(result.study, findings=findings))
    assert "not recorded by this older study" in limits.sentences(old)[0]
    write_study(old, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "not recorded" in page and "threads not recorded" in page
