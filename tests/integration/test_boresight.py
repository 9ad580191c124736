"""`coarseloc boresight`: a camera that looks forward is found out from fixes and truth, and told to later ones."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from coarseloc.core.camera import BoresightLeg, Camera, CameraAttitude
from coarseloc.core.errors import InputError
from coarseloc.imagery.flight_toml import read_flight_toml, write_boresights
from coarseloc.simulate.flight import simulate_flight
from coarseloc.simulate.terrain import write_area

FLIGHT, FOOTPRINT_M, FORWARD_DEG = "251124155712", 300.0, 3.0


@pytest.fixture
def pitched(coarseloc, tmp_path: Path) -> Path:
    """A flight over an ingested area whose labels leave out that its camera looks 3° forward."""
    area = write_area(tmp_path / "area.tif", 7, width_m=1200, height_m=900, style="suburb")
    flight = simulate_flight(
        area, tmp_path / "flights", flight_id=FLIGHT, frames=8, footprint_m=FOOTPRINT_M, seed=5, side_px=128
    )
    labels = next(flight.path.glob("*.json"))
    document = json.loads(labels.read_text(encoding="utf-8-sig"))
    for image in document["images"]:
        image["attitude"]["pitch"] -= FORWARD_DEG
    labels.write_text(json.dumps(document), encoding="utf-8")
    arguments = ("--footprint-m", FOOTPRINT_M, "--backbone", "demo", "--input-px", 96)
    assert coarseloc("ingest", "orthophoto", area, *arguments).code == 0
    return flight.path


def test_the_boresight_is_estimated_written_when_told_and_used(coarseloc, pitched):
    (before,) = coarseloc("search", pitched, "--input-px", 96, "--json").json
    estimate = coarseloc("boresight", pitched, "--json").json
    assert estimate["written"] is None and not read_flight_toml(pitched / "flight.toml").camera.boresights
    assert estimate["legs"] and estimate["attitude_labels"]
    for leg in estimate["legs"]:
        assert leg["pitch_deg"] == pytest.approx(FORWARD_DEG, abs=0.4) and abs(leg["roll_deg"]) < 0.4
        assert not leg["jump"]
    applied = coarseloc("boresight", pitched, "--apply")
    assert applied.code == 0 and "flight.toml" in applied.out
    (after,) = coarseloc("search", pitched, "--input-px", 96, "--json").json
    assert before["fix"]["median_aircraft_error_m"] > 5.0 > 2.0 > after["fix"]["median_aircraft_error_m"]
    again = coarseloc("boresight", pitched, "--json").json
    assert again["run"] != estimate["run"]
    for leg in again["legs"]:
        assert leg["pitch_deg"] == pytest.approx(FORWARD_DEG, abs=0.4), "the whole angle, not what is left of it"


def test_without_a_field_of_view_or_fixes_it_says_what_is_missing(coarseloc, pitched):
    assert coarseloc("search", pitched, "--no-verify", "--input-px", 96).code == 0
    unverified = coarseloc("boresight", FLIGHT)
    assert unverified.code == 2 and "has a frame that matches" in unverified.err
    (pitched / "flight.toml").unlink()
    blind = coarseloc("boresight", FLIGHT)
    assert blind.code == 2 and "--fov-deg" in blind.err


def test_legs_are_written_beside_what_the_file_holds_and_replace_earlier_ones(tmp_path: Path):
    (tmp_path / "flight.toml").write_text("# ours\n[camera]\nfov_deg = 60.0  # measured\n\n[truth]\nsd_m = 1.0\n")
    first, second = BoresightLeg("a.jpg", "b.jpg", 1.5, -0.25, 0.5), BoresightLeg('c "1".jpg', "d.jpg", 2.0, 0.0, 0.5)
    write_boresights(tmp_path, [second])
    file = write_boresights(tmp_path, [first, second])
    text = file.read_text()
    assert text.startswith("# ours\n[camera]\nfov_deg = 60.0  # measured\n") and text.count("[[boresight]]") == 2
    conditions = read_flight_toml(file)
    assert conditions.camera == Camera(fov_deg=60.0, boresights=(first, second)) and conditions.truth_sd_m == 1.0


def test_frames_between_a_legs_ends_have_its_angle():
    leg = BoresightLeg("2.jpg", "3.jpg", 4.0, -1.0, 0.7)
    camera = Camera(fov_deg=60.0, boresights=(leg,))
    on_leg = {"2.jpg": leg, "2b.jpg": leg, "3.jpg": leg}
    assert camera.boresights_by_path(["1.jpg", "2.jpg", "2b.jpg", "3.jpg", "4.jpg"]) == on_leg
    attitude = camera.attitude(None, None, leg)
    assert attitude == CameraAttitude(pytest.approx(4.0, abs=1e-3), pytest.approx(-1.0), 0.7, "boresight")
    with pytest.raises(InputError, match=r"names frame '3\.jpg'"):
        camera.boresights_by_path(["1.jpg", "2.jpg"])


def test_a_boresight_adds_to_the_labels_as_it_was_estimated():
    attitude = Camera(fov_deg=60.0).attitude(5.0, -4.0, BoresightLeg("a", "a", 3.0, 2.0, 0.5))
    roll, (four, two, five, three) = math.radians(attitude.roll_deg), map(math.radians, (4.0, 2.0, 5.0, 3.0))
    assert -math.tan(roll) == pytest.approx(math.tan(four) - math.tan(two))
    forward = math.tan(math.radians(attitude.pitch_deg)) / math.cos(roll)
    assert forward == pytest.approx(math.tan(five) / math.cos(four) + math.tan(three))
