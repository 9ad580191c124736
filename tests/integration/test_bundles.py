"""A flight's runs handed on as one file: selected, checked without the data, and run again."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from data_folders import copy_data
from databases import SERVER
from PIL import Image

import coarseloc as cl
from coarseloc.core import geo
from coarseloc.core.camera import Camera
from coarseloc.core.types import LonLat
from search.bundle import contents

FLIGHT, STAMP = "251124155712", "251210182149"


embedded = pytest.mark.skipif(bool(SERVER), reason="of the embedded database: it is copied with its folder")
_pristine: dict[str, Path] = {}  # a world in which the flight was searched and fixed, at the path it was made for


@pytest.fixture
def searched(state, tmp_path_factory, monkeypatch, tiny_dinov3, capsys):
    """The flight's folder, beside `captures` and `state`: made once, laid out anew and chosen for each test."""
    if not _pristine:
        _pristine["root"] = make_world(tmp_path_factory.mktemp("world"), tiny_dinov3)
        _pristine["copy"] = tmp_path_factory.mktemp("copy") / "world"
        copy_data(_pristine["root"], _pristine["copy"])
        capsys.readouterr()
    root = _pristine["root"]
    shutil.rmtree(root)
    copy_data(_pristine["copy"], root)
    monkeypatch.setenv("COARSELOC_DATA_DIR", str(root / "state"))
    return root / "flights" / FLIGHT


def make_world(root: Path, weights: Path) -> Path:
    """Six places at two headings and four frames of the very same pictures, searched, fixed and bundled."""
    for folder, indices, angle in [
        (f"captures/{STAMP}_300_50_0_000", range(1, 7), 0),
        (f"captures/{STAMP}_300_50_0_045", range(1, 7), 45),
        (f"flights/{FLIGHT}", range(1, 5), 0),
    ]:
        write_pictures(root / folder, indices, angle)
    state = root / "state"
    state.mkdir()
    (state / "coarseloc.toml").write_text(f'input_px = 32\n[[backbones]]\nname = "tiny"\npath = "{weights}"\n')
    with cl.open(state, device="cpu") as workspace:
        workspace.ingest(cl.captures(root / "captures"), ["tiny"])
        workspace.search(root / "flights" / FLIGHT, camera=Camera(300.0))
        workspace.bundle(FLIGHT, root / "flight.zip", with_report=False)
    return root


def write_pictures(folder: Path, indices: range, angle: int) -> None:
    folder.mkdir(parents=True)
    labels = []
    for index in indices:
        row, column = divmod(index - 1, 3)
        centre = geo.offset(LonLat(127.03, 37.50), column * 150.0, -row * 150.0)
        pixels = np.random.default_rng([index, angle]).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels.repeat(8, 0).repeat(8, 1)).save(folder / f"{folder.name}_{index:05d}.jpg", quality=95)
        position = {"longitude": centre.lon, "latitude": centre.lat, "altitude": 300.0}
        labels.append({"imageref": f"{folder.name}_{index:05d}.jpg", "position": position, "attitude": {"yaw": angle}})
    (folder / "labels.json").write_text(json.dumps({"images": labels}))


@pytest.fixture
def bundle(searched):
    return searched.parents[1] / "flight.zip"


@pytest.fixture
def captures(searched):
    return searched.parents[1] / "captures"


def members(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def lines(content: bytes) -> list[dict]:
    return [json.loads(line) for line in content.splitlines()]


def test_a_bundle_holds_what_decides_a_run_and_no_path_of_this_machine(coarseloc, ingested, flight, tmp_path):
    width = ("--footprint-m", 300)
    assert coarseloc("search", flight, *width).code == 0
    assert coarseloc("search", flight, "--angle", "45", "--no-verify").code == 0
    assert coarseloc("track", FLIGHT, *width).code == 0
    file = tmp_path / "flight.zip"
    summary = coarseloc("bundle", "create", FLIGHT, "--out", file, "--json").json
    assert (summary["runs"], summary["frames"], summary["answers"], summary["notices"]) == (2, 4, 2, [])
    found = members(file)
    assert set(found) == {
        "flight.json", "runs/1.json", "runs/1.jsonl", "runs/2.json", "runs/2.jsonl", "references/1.csv",
        "answers/1.json", "answers/1.jsonl", "answers/2.json", "answers/2.jsonl", "report.html",
        "manifest.json", "manifest.sha256",
    }  # fmt: skip
    assert not [name for name, content in found.items() if str(tmp_path).encode() in content]
    frames = json.loads(found["flight.json"])["frames"]
    assert all(len(frame["sha256"]) == 64 and frame["truth"]["location"] for frame in frames)
    run, angled = json.loads(found["runs/1.json"]), json.loads(found["runs/2.json"])
    assert run["parameters"]["k"] == 10 and run["fix_parameters"]["places"] == 10
    assert angled["fix_parameters"] is None and angled["parameters"]["where"] == {"angles": [45]}
    assert len(run["spec"]["weights_digest"]) == 64 and run["environment"]["threads"]["torch"] >= 1
    first = lines(found["runs/1.jsonl"])[0]
    assert first["fix"]["match"] is True and first["hits"][0]["score"] == pytest.approx(1.0, abs=1e-4)
    assert len(found["references/1.csv"].splitlines()) == 13
    assert {json.loads(found[f"answers/{n}.json"])["method"] for n in (1, 2)} == {"track", "track-smoothed"}
    assert b"<svg" in found["report.html"]
    assert coarseloc("bundle", "create", FLIGHT, "--out", tmp_path / "again.zip").code == 0
    assert file.read_bytes() == (tmp_path / "again.zip").read_bytes()


@embedded
def test_the_same_data_give_the_same_answers_to_the_bit_and_record_nothing(coarseloc, bundle):
    before = coarseloc("flights", "--json").out
    result = coarseloc("bundle", "reproduce", bundle, "--json").json
    assert result["verdict"] == "equal" and result["inputs"] == result["environment"] == []
    (run,) = result["runs"]
    assert (run["verdict"], run["frames"], run["equal_frames"], run["difference"]) == ("equal", 4, 4, None)
    assert coarseloc("flights", "--json").out == before
    shown = coarseloc("bundle", "reproduce", bundle)
    assert shown.code == 0 and "verdict: equal" in shown.out and "within 0.0001 and positions within 1 m" in shown.out


@embedded
def test_another_folder_with_the_same_pictures_reproduces_it_too(coarseloc, bundle, captures, searched, tmp_path):
    """Where everything has another id: ingested anew, the flight never searched and its folder elsewhere."""
    other, moved = tmp_path / "other", tmp_path / "elsewhere"
    other.mkdir()
    shutil.copy(captures.parent / "state" / "coarseloc.toml", other)
    shutil.move(searched, moved)
    assert coarseloc("--data-dir", other, "ingest", "captures", captures, "--backbone", "tiny").code == 0
    unknown = coarseloc("bundle", "reproduce", bundle, "--data", other)
    assert unknown.code == 2 and f"knows no flight {FLIGHT}: say with --flight" in unknown.err
    result = coarseloc("bundle", "reproduce", bundle, "--data", other, "--flight", moved, "--json").json
    assert (result["verdict"], result["inputs"]) == ("equal", [])
    empty = coarseloc("bundle", "reproduce", bundle, "--data", tmp_path / "nothing")
    assert empty.code == 2 and "holds no data of coarseloc" in empty.err and not (tmp_path / "nothing").exists()


@embedded
def test_a_changed_reference_is_named_with_its_digest_frame_and_rank(coarseloc, bundle, captures):
    capture = next(captures.glob("*_000"))
    shutil.copy(capture / f"{capture.name}_00006.jpg", capture / f"{capture.name}_00001.jpg")
    assert coarseloc("ingest", "captures", captures, "--backbone", "tiny").code == 0
    result = coarseloc("bundle", "reproduce", bundle, "--json")
    assert result.code == 2 and "tile 1 at 000 of captures-300m-50" in result.err
    facts = json.loads(result.out)
    assert facts["verdict"] == "different" and facts["runs"][0]["verdict"] == "different"
    (changed,) = facts["inputs"]
    assert (changed["kind"], changed["count"]) == ("reference", 1) and changed["first"].startswith("tile 1 at 000")
    difference = facts["runs"][0]["difference"]
    assert (difference["frame_index"], difference["rank"], difference["part"]) == (1, 1, "tile")
    assert difference["bundle"] == "tile 1 at 000 of set 1"


@embedded
def test_a_changed_and_a_missing_frame_are_named(coarseloc, bundle, searched):
    shutil.copy(searched / f"{FLIGHT}_00004.jpg", searched / f"{FLIGHT}_00002.jpg")
    (searched / f"{FLIGHT}_00003.jpg").unlink()
    result = coarseloc("bundle", "reproduce", bundle, "--json")
    facts = json.loads(result.out)
    (changed,) = facts["inputs"]
    assert result.code == 2 and facts["verdict"] == "different"
    assert (changed["kind"], changed["first"], changed["count"]) == ("frame", f"frame 2 ({FLIGHT}_00002.jpg)", 2)
    assert facts["runs"][0]["equal_frames"] == 2


@embedded
def test_other_weights_are_not_run(coarseloc, bundle, make_dinov3, tmp_path):
    toml = bundle.parent / "state" / "coarseloc.toml"
    weights = make_dinov3(tmp_path / "other-weights", seed=9)
    toml.write_text(f'input_px = 32\n[[backbones]]\nname = "tiny"\npath = "{weights}"\n')
    result = coarseloc("bundle", "reproduce", bundle, "--json")
    (run,) = json.loads(result.out)["runs"]
    assert result.code == 2 and run["verdict"] == "not-run" and "other weights_digest than today's" in run["reason"]


@embedded
def test_a_bundle_of_another_flight_or_set_says_what_is_not_here(coarseloc, bundle):
    assert coarseloc("flights", "delete", FLIGHT, "--yes").code == 0
    gone = coarseloc("bundle", "reproduce", bundle)
    assert gone.code == 2 and f"knows no flight {FLIGHT}" in gone.err
    missing = coarseloc("bundle", "create", "nowhere", "--out", bundle)
    assert missing.code == 2 and "flight 'nowhere' is not known" in missing.err
    assert coarseloc("bundle", "check", bundle).code == 0  # it is as it was


@embedded
def test_references_and_frames_that_changed_since_are_said_and_get_no_digest(coarseloc, searched, captures, tmp_path):
    capture = next(captures.glob("*_000"))
    shutil.copy(capture / f"{capture.name}_00006.jpg", capture / f"{capture.name}_00001.jpg")
    assert coarseloc("ingest", "captures", captures, "--backbone", "tiny").code == 0
    shutil.copy(searched / f"{FLIGHT}_00004.jpg", searched / f"{FLIGHT}_00002.jpg")
    file = tmp_path / "late.zip"
    result = coarseloc("bundle", "create", FLIGHT, "--out", file, "--no-report", "--json")
    text = " ".join(result.err.split())
    assert result.code == 0 and "1 frames are changed-since" in text and "are changed-since" in text
    found = members(file)
    states = [(frame["state"], frame["sha256"] is None) for frame in json.loads(found["flight.json"])["frames"]]
    assert states == [(contents.AS_SEARCHED, False), (contents.CHANGED, True), *[(contents.AS_SEARCHED, False)] * 2]
    assert json.loads(found["runs/1.json"])["references_state"] == contents.CHANGED
    # What was searched then is still in its hits: the digest of the tile as it was.
    again = coarseloc("bundle", "reproduce", file, "--json")
    facts = json.loads(again.out)
    assert again.code == 2 and facts["inputs"] == [] and facts["runs"][0]["difference"]["frame_index"] == 1


@embedded
def test_a_batch_and_headings_of_their_own_are_searched_as_they_were(coarseloc, searched, tmp_path):
    assert coarseloc("search", searched, "--per-angle", "--batch", "3", "--no-verify").code == 0
    file = tmp_path / "flight.zip"
    assert coarseloc("bundle", "create", FLIGHT, "--out", file, "--no-report").code == 0
    result = coarseloc("bundle", "reproduce", file, "--json").json
    assert result["verdict"] == "equal" and [run["angle_deg"] for run in result["runs"]] == [None, 0, 45]
    none = coarseloc("bundle", "reproduce", file, "--backbone", "demo")
    assert none.code == 2 and "no run of demo: it has tiny" in none.err


CHECKS_WITHOUT_TORCH = """
import sys
for name in ("torch", "transformers", "faiss", "rasterio", "matplotlib"):
    sys.modules[name] = None
sys.argv = ["coarseloc", "bundle", "check", sys.argv[1]]
from coarseloc.cli import main
main()
"""


@embedded
def test_a_check_needs_no_torch_no_data_and_makes_no_folder(bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("COARSELOC_DATA_DIR", str(tmp_path / "no-data"))
    command = [sys.executable, "-c", CHECKS_WITHOUT_TORCH, str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "every member is as it was written" in done.stdout and "not signed" in done.stdout
    assert not (tmp_path / "no-data").exists()


@embedded
def test_a_damaged_bundle_is_named_by_check_and_not_run(coarseloc, bundle):
    content = members(bundle) | {"runs/1.json": b"{}"}
    with zipfile.ZipFile(bundle, "w") as archive:
        for name, member in content.items():
            archive.writestr(name, member)
    checked = coarseloc("bundle", "check", bundle, "--json")
    assert checked.code == 2 and "runs/1.json: it has 2 bytes" in checked.err
    assert json.loads(checked.out)["damage"][0]["name"] == "runs/1.json"
    run = coarseloc("bundle", "reproduce", bundle)
    assert run.code == 2 and "is damaged (runs/1.json)" in run.err


@embedded
def test_a_bundle_that_lies_within_its_digests_is_refused_with_a_line(coarseloc, bundle, tmp_path):
    from search.bundle.archive import write_archive

    found = members(bundle)
    manifest = json.loads(found["manifest.json"])
    facts = {name: manifest[name] for name in ("flight_id", "flight_uid", "runs", "written_by")}
    for name, old, new in [
        ("flight.json", f'"{FLIGHT}_00001.jpg"'.encode(), b'"../../../etc/passwd"'),
        ("runs/1.json", b'"k": 10', b'"k": "all"'),
        ("runs/1.json", b'"where": {}', b'"where": {"moon": 1}'),
        ("runs/1.jsonl", b'"frame_index":1', b'"frame_index":null'),
        ("references/1.csv", b"1,0,N", b"one,0,N"),
        ("references/1.csv", b"1,0,N", b"1,0,\xff"),
        ("runs/1.jsonl", b'"error"', b'"err'),
        ("runs/1.jsonl", b'{"best_place"', b'[7]\n{"best_place"'),
        ("answers/1.json", b"", b"[]"),
        ("runs/2.json", b"", found["runs/1.json"]),
    ]:
        assert old in found.get(name, b""), name
        changed = found | {name: found.get(name, b"").replace(old, new, 1)}
        pieces = [(key, [changed[key]]) for key in {**manifest["members"], name: None}]
        write_archive(tmp_path / "lie.zip", facts, pieces)
        assert coarseloc("bundle", "check", tmp_path / "lie.zip").code == 0
        refused = coarseloc("bundle", "reproduce", tmp_path / "lie.zip")
        if name != "answers/1.json":  # which is only listed
            assert refused.code == 2 and re.search("cannot be used|moon|is no|has no", refused.err), (name, refused.err)


@embedded
def test_a_signed_bundle_is_checked_by_its_key_from_the_command_line(coarseloc, searched, tmp_path):
    keys = {}
    for name in ("mine", "theirs"):
        subprocess.run([sys.executable, "-c", MAKES_A_KEY, str(tmp_path / name)], check=True)
        keys[name] = tmp_path / name
    file = tmp_path / "signed.zip"
    arguments = ("--out", file, "--no-report", "--sign", keys["mine"])
    assert coarseloc("bundle", "create", FLIGHT, *arguments, "--json").json["signed"] is True
    good = coarseloc("bundle", "check", file, "--key", keys["mine"].with_suffix(".pub"))
    assert good.code == 0 and "signed by that key, SHA256:" in good.out
    bad = coarseloc("bundle", "check", file, "--key", keys["theirs"].with_suffix(".pub"))
    assert bad.code == 2 and "it is signed by another key than --key" in bad.err
    assert "whose key that is, --key says" in coarseloc("bundle", "check", file).out
    korean = coarseloc("--lang", "ko", "bundle", "check", file, "--key", keys["theirs"].with_suffix(".pub"))
    assert korean.code == 2 and "서명" in korean.err


MAKES_A_KEY = """
import sys
from pathlib import Path
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
key, path = Ed25519PrivateKey.generate(), Path(sys.argv[1])
path.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))
path.with_suffix(".pub").write_bytes(key.public_key().public_bytes(s.Encoding.OpenSSH, s.PublicFormat.OpenSSH))
"""
