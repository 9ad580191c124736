"""The command line: the main job, and every way it can be misused. In-process, on a small true DINOv3."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from databases import SERVER, database_url
from filelock import FileLock
from PIL import Image

from coarseloc.cli import COMMANDS, cli
from coarseloc.embedding import precision_trial
from coarseloc.store import open_database
from coarseloc.vectors import open_store


def test_the_main_job_from_captures_to_json(coarseloc, ingested, flight, tmp_path):
    (run,) = coarseloc("search", flight, "--json").json
    assert run["frames"] == 4 and run["median_error_m"] == pytest.approx(0, abs=0.1)
    assert coarseloc("export", "251124155712", "--out", tmp_path / "out").code == 0
    documents = sorted((tmp_path / "out").rglob("251124155712_*.json"))
    assert len(documents) == 4
    first = json.loads(documents[0].read_text())
    assert first["encoder"] == "tiny" and first["topk"] == 10 and first["metric"] == "ip"
    assert first["results"][0]["score"] == pytest.approx(1.0, abs=1e-4)
    assert first["results"][0]["angle_deg"] == 0


def test_a_run_keeps_what_it_found_when_its_references_are_gone(coarseloc, ingested, flight, tmp_path):
    coarseloc("search", flight, "--no-verify", "--json")
    coarseloc("export", "251124155712", "--out", tmp_path / "before")
    next(ingested.glob("*_000/*_00001.jpg")).unlink()
    ingest = coarseloc("ingest", "captures", ingested, "--backbone", "tiny", "--json")
    assert ingest.json["reference_sets"][0]["removed"] == 1 and ingest.json["vector_store"]["deleted"] == 1
    coarseloc("export", "251124155712", "--out", tmp_path / "after")
    before, after = (
        {path.name: path.read_bytes() for path in (tmp_path / part).iterdir()} for part in ("before", "after")
    )
    assert before == after
    for capture in [*ingested.glob("*_300_*")]:
        capture.rename(capture.with_name(capture.name.replace("_300_", "_600_")))
    for picture in [*ingested.glob("*_600_*/*.jpg"), *ingested.glob("*_300_*.json")]:
        picture.rename(picture.with_name(picture.name.replace("_300_", "_600_")))
    for labels in ingested.glob("*.json"):
        labels.write_text(labels.read_text(encoding="utf-8-sig").replace("_300_", "_600_"))
    ingest = coarseloc("ingest", "captures", ingested, "--backbone", "tiny")
    assert "holds no captures at 300 m with 50% overlap any more: it stays" in " ".join(ingest.err.split())


def test_lookup_at_45_returns_only_045_captures(coarseloc, ingested, flight):
    frame = flight / "251124155712_00002.jpg"
    hits = coarseloc("lookup", frame, "--angle", "45", "--json").json["tiny"]
    assert len(hits) == 6 and {hit["angle_deg"] for hit in hits} == {45}
    assert all("_045_" in hit["filename"] for hit in hits)


def test_lookup_filters(coarseloc, ingested, flight):
    counts = {
        "--altitude 250:350": 12,
        "--altitude 500:700": 0,
        "--overlap 50": 12,
        "--overlap 0.5": 12,
        "--angle 45 --angle 0": 12,
        "--angle 45 --angle 45,90": 6,
        "--tile captures-300m-50/00002": 2,
        "--overlap 80": 0,
        "--near 127.03,37.50,100": 2,
        "--bbox 127.0,37.4,127.0284,37.6": 4,
        "--angle 0,45 --near 127.03,37.50,100": 2,
    }
    lookup = ("lookup", flight / "251124155712_00001.jpg", "--k", 50, "--json")
    assert {filters: len(coarseloc(*lookup, *filters.split()).json["tiny"]) for filters in counts} == counts


def test_lookup_takes_several_reference_sets_as_one_search_space(coarseloc, ingested, flight, make_captures):
    for name in ("more", "other"):
        root = make_captures(columns=2, rows=1, angles=(0,), name=name)
        assert coarseloc("ingest", "captures", root, "--backbone", "tiny").code == 0
    lookup = ("lookup", flight / "251124155712_00001.jpg", "--k", 50, "--json")
    both = ["--reference-set", "captures-300m-50", "--reference-set", "more-300m-50"]
    hits = coarseloc(*lookup, *both).json["tiny"]
    assert len(hits) == 14 and {hit["reference_set"] for hit in hits} == {"captures-300m-50", "more-300m-50"}
    assert [hit["rank"] for hit in hits] == list(range(1, 15))
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    assert len(coarseloc(*lookup, *both, "--angle", "45").json["tiny"]) == 6
    missing = coarseloc(*lookup, "--reference-set", "captures-300m-50", "--reference-set", "none")
    assert (
        missing.code == 2
        and "'none' is not known: expected one of captures-300m-50, more-300m-50, other-300m-50" in missing.err
    )


def test_search_takes_the_same_filters(coarseloc, ingested, flight):
    (run,) = coarseloc("search", flight, "--angle", "45", "--no-verify", "--json").json
    assert run["references"] == 6


def test_per_angle_searches_each_heading_as_a_set_of_its_own(coarseloc, ingested, flight):
    runs = coarseloc("search", flight, "--per-angle", "--no-verify", "--json").json
    assert [(run["angle_deg"], run["references"]) for run in runs] == [(0, 6), (45, 6)]


def test_what_was_left_unused_or_contradicts_is_said_to_people_and_to_programs(coarseloc, ingested, flight):
    labels = json.loads((flight / "labels.json").read_text())["images"]
    elsewhere = {**labels[2], "position": labels[0]["position"]}
    (flight / "labels.json").write_text(json.dumps({"images": [*labels[1:], elsewhere]}))
    found = coarseloc("search", flight, "--no-verify", "--json")
    (run,) = found.json
    assert any("00003.jpg has two labels that contradict each other" in text for text in run["notices"])
    assert any("1 of 4 frames have no label" in text for text in run["notices"])
    assert "two labels that contradict" in found.err.replace("\n", " ")


def test_the_summary_is_for_people_unless_json_is_asked_for(coarseloc, ingested, flight):
    found = coarseloc("search", flight, "--no-verify")
    assert "total = embed + search" in found.out and "tiny" in found.out


def test_each_summary_ends_with_the_next_command_for_the_same_data_folder(coarseloc, ingested, flight, state, tmp_path):
    found = coarseloc("--data-dir", state, "search", flight, "--no-verify")
    assert f"next: coarseloc --data-dir {state} track 251124155712" in found.out
    assert (
        "next: coarseloc search FLIGHT_FOLDER --reference-set captures-300m-50"
        in coarseloc("ingest", "captures", ingested, "--backbone", "tiny").out
    )


def test_a_precision_is_chosen_by_trial_said_and_kept_to(coarseloc, flight, tmp_path, monkeypatch):
    arguments = ("ingest", "captures", tmp_path / "captures", "--backbone", "tiny", "--precision", "auto")
    monkeypatch.setattr(precision_trial, "PICTURES", 12)
    said = " ".join(coarseloc(*arguments).err.split())
    chosen = re.search(r"tiny: (fp32|bf16|int8) is chosen, .*fp32 [\d.]+ ms a picture", said)
    assert chosen, said
    again = coarseloc(*arguments, "--json")
    assert f"tiny: {chosen[1]}, as captures-300m-50 holds already" in " ".join(again.err.split())
    assert again.json["reference_sets"][0]["up_to_date"] == 12
    (stored,) = coarseloc("references", "list", "--json").json
    assert list(stored["embeddings"]) == [f"tiny 32 px {chosen[1]}"]


def test_an_empty_data_folder_is_named_and_so_is_the_demonstration(coarseloc, state, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = coarseloc("--data-dir", tmp_path / "new", "references", "list")
    assert f"no reference set in {tmp_path / 'new'} yet" in found.out and "demo-data" not in found.out
    open_database(f"sqlite:///{tmp_path}/demo-data/coarseloc.db").close()
    assert "coarseloc --data-dir demo-data" in coarseloc("--data-dir", tmp_path / "new", "flights").out


def test_a_fresh_demonstration_never_removes_what_is_not_the_demonstrations(coarseloc, ingested, state):
    found = coarseloc("demo", "--fresh")  # the data folder that COARSELOC_DATA_DIR names
    assert found.code == 2 and "captures-300m-50" in found.err and (state / "coarseloc.db").exists()


# --- misuse ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["ingest", "captures", "nowhere", "--backbone", "tiny"], "does not exist"),
        (["ingest", "orthophoto", "nowhere.tif", "--footprint-m", "100", "--backbone", "tiny"], "nowhere.tif"),
        (["ingest", "captures", "EMPTY", "--backbone", "tiny"], "EMPTY"),
        (["ingest", "captures", "CAPTURES", "--backbone", "nope"], "unknown backbone 'nope': known are vits16"),
        (["ingest", "captures", "CAPTURES", "--backbone", "vits16"], "Accept the licence"),
        (["ingest", "captures", "CAPTURES", "--backbone", "tiny", "--input-px", "100"], "16"),
        (["ingest", "captures", "CAPTURES", "--backbone", "tiny", "--device", "cuda:7"], "cuda:7"),
        (["ingest", "captures", "CAPTURES", "--backbone", "tiny", "--labels", "nowhere.json"], "nowhere.json"),
        (["search", "nowhere"], "does not exist"),
        (["search", "EMPTY"], "no images"),
        (["search", "FLIGHT", "--reference-set", "other"], "no reference set yet"),
        (["export", "999", "--out", "x"], "flight '999' is not known"),
        (["lookup", "nowhere.jpg"], "nowhere.jpg"),
        (["lookup", "TEXT"], "is not a JPEG"),
        (["lookup", "FRAME", "--angle", "400"], "0 to 359"),
        (["lookup", "FRAME", "--bbox", "1,2,3"], "3 parts"),
        (["lookup", "FRAME", "--bbox", "1,9,3,4"], "south above north"),
        (["lookup", "FRAME", "--altitude", "350:250"], "wrong way round"),
        (["lookup", "FRAME", "--near", "127,nan,5"], "not a finite number"),
        (["lookup", "FRAME", "--near", "180.001,0,5"], "longitude 180.001 is off the globe, outside -180 to 180"),
        (["lookup", "FRAME", "--overlap", "50", "--overlap", "80"], "overlap '50', '80': it is given 2 times"),
        (["references", "delete", "other", "--yes"], "no reference set yet"),
        (["--config", "nowhere.toml", "flights"], "nowhere.toml is not there"),
        (["rotation", "EMPTY", "--figures", "x"], "--figures goes with --out"),  # before anything is embedded
        (["nonsense"], "No such command"),
    ],
)
def test_misuse_ends_in_one_line_and_exit_code_2(coarseloc, flight, tmp_path, args, says):
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "text.jpg").write_text("not a picture")
    places = {
        "EMPTY": tmp_path / "EMPTY",
        "CAPTURES": tmp_path / "captures",
        "FLIGHT": flight,
        "FRAME": flight / "251124155712_00001.jpg",
        "TEXT": tmp_path / "text.jpg",
    }
    found = coarseloc(*(places.get(arg, arg) for arg in args))
    assert found.code == 2 and says in found.err, found.err
    assert found.out == ""


def test_a_stale_mirror_is_refused_when_asked_and_built_anew_when_not(coarseloc, ingested, flight):
    assert coarseloc("search", flight, "--no-verify").code == 0
    Image.new("RGB", (64, 64), "red").save(next(ingested.glob("*_000/*_00003.jpg")))
    assert coarseloc("ingest", "captures", ingested, "--backbone", "tiny").code == 0
    refused = coarseloc("search", flight, "--no-rebuild", "--no-verify")
    assert refused.code == 2 and "mirror" in refused.err
    assert coarseloc("search", flight, "--no-verify").code == 0


def test_a_backbone_the_references_lack_is_named_with_what_they_hold(coarseloc, ingested, flight):
    found = coarseloc("search", flight, "--backbone", "demo")
    assert found.code == 2 and "tiny at 32 px fp32" in found.err


def test_two_ingests_at_once_are_refused(coarseloc, flight, state, tmp_path):
    with FileLock(state / "ingest.lock"):
        found = coarseloc("ingest", "captures", tmp_path / "captures", "--backbone", "tiny")
    assert found.code == 2 and "another ingest is at work" in found.err


def test_beside_the_owner_of_the_vector_store_ingest_says_what_is_pending_and_lookup_asks_faiss(
    coarseloc, flight, state, tmp_path
):
    db = open_database(database_url(state))
    held = "import sys, time; from coarseloc.vectors import open_store; from pathlib import Path\n"
    held += "store = open_store(Path(sys.argv[1]), sys.argv[2]); print('held', flush=True); sys.stdin.read()\n"
    held += "store.close()"
    owner = subprocess.Popen(
        [sys.executable, "-c", held, str(state), db.identity], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    db.close()
    assert owner.stdout and owner.stdout.readline() == "held\n"
    try:
        found = coarseloc("ingest", "captures", tmp_path / "captures", "--backbone", "tiny")
        assert found.code == 0 and "12 embeddings are pending" in found.err
        image = flight / "251124155712_00001.jpg"
        meanwhile = coarseloc("lookup", image, "--angle", "45", "--json")
        assert str(owner.pid) in meanwhile.err and "FAISS answers meanwhile" in " ".join(meanwhile.err.split())
    finally:
        owner.communicate("")
    assert coarseloc("drain", "--json").json["upserted"] == 12
    by_faiss, by_qdrant = meanwhile.json["tiny"], coarseloc("lookup", image, "--angle", "45", "--json").json["tiny"]
    assert {hit["backend"] for hit in by_faiss} == {"faiss-cpu"}
    assert {hit["backend"] for hit in by_qdrant} == {"qdrant-edge"}
    assert [hit["tile_id"] for hit in by_faiss] == [hit["tile_id"] for hit in by_qdrant]


def test_reconcile_finds_nothing_then_something_and_rebuild_mends_it(coarseloc, ingested, state):
    assert coarseloc("reconcile").code == 0
    db = open_database(database_url(state))
    store = open_store(state, db.identity)
    (collection,) = store.collections()
    store.delete(collection, list(store.ids(collection))[:3])
    store.flush(collection)
    store.close()
    db.close()
    found = coarseloc("reconcile", "--json")
    assert found.code == 2 and "rebuild" in found.err and len(json.loads(found.out)["differences"][0]["missing"]) == 3
    assert coarseloc("rebuild").code == 0 and coarseloc("reconcile").code == 0


def test_other_weights_under_the_same_name_are_refused(coarseloc, ingested, flight, state, make_dinov3, tmp_path):
    other = make_dinov3(tmp_path / "other", seed=7)
    (state / "coarseloc.toml").write_text(f'input_px = 32\n[[backbones]]\nname = "tiny"\npath = "{other}"\n')
    found = coarseloc("search", flight)
    assert found.code == 2 and "weights_digest" in found.err


def test_every_kind_of_bad_image_is_named_and_the_rest_go_on(coarseloc, flight, tmp_path):
    root = tmp_path / "captures"
    capture = next(root.glob("*_000"))
    names = [capture / f"{capture.name}_{i:05d}.jpg" for i in range(1, 7)]
    names[0].write_bytes(b"")
    names[1].write_text("no picture")
    names[2].write_bytes(names[2].read_bytes()[:200])
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(grey).save(names[3])
    Image.fromarray(grey).convert("CMYK").save(names[4])
    Image.fromarray(grey.astype(np.uint16) * 257).save(names[5].with_suffix(".png"))  # 16 bit
    names[5].unlink()
    report = coarseloc("ingest", "captures", root, "--backbone", "tiny", "--json").json["reference_sets"][0]
    assert report["embedded"]["tiny"] == 9 and sum(report["failures"].values()) == 3
    failures = coarseloc("ingest", "failures", "--json").json
    assert {Path(failure["item"]).name for failure in failures} == {name.name for name in names[:3]}


def test_nothing_usable_is_an_error(coarseloc, flight, tmp_path):
    root = tmp_path / "captures"
    for image in root.rglob("*.jpg"):
        image.write_bytes(b"")
    found = coarseloc("ingest", "captures", root, "--backbone", "tiny")
    assert found.code == 2 and "none of the 12 images" in found.err


@pytest.mark.skipif(SERVER is not None, reason="of the embedded database")
def test_doctor_names_a_database_that_is_none(coarseloc, state):
    assert coarseloc("doctor").code == 0
    (state / "coarseloc.db").unlink()
    (state / "coarseloc.db").write_bytes(b"garbage" * 1000)
    found = coarseloc("doctor")
    assert found.code == 2 and "database" in found.err


@pytest.mark.parametrize(
    ("command", "without"),
    [
        (["-h"], ("torch", "numpy", "sqlalchemy", "pydantic", "rich", "coarseloc.workspace")),
        (["flights"], ("torch", "transformers", "faiss", "rasterio", "alembic", "flask", "PIL")),
        (["references", "list"], ("torch", "transformers", "faiss", "rasterio", "flask")),
    ],
)
def test_a_command_imports_only_what_it_needs(state, command, without):
    open_database(f"sqlite:///{state}/coarseloc.db").close()
    code = (
        f"import sys; from coarseloc.cli import cli; cli({['--data-dir', str(state), *command]}, standalone_mode=False)"
    )
    code += f"; assert not (imported := sorted(sys.modules.keys() & {set(without)})), imported"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_a_look_up_of_one_picture_imports_no_torch(coarseloc, state, ingested, flight):
    command = ["--data-dir", str(state), "lookup", str(flight / "251124155712_00002.jpg"), "--angle", "45", "--json"]
    code = f"import sys; from coarseloc.cli import cli; cli({command}, standalone_mode=False)"
    code += "; assert not (imported := sorted(sys.modules.keys() & {'torch', 'transformers'})), imported"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    by_numpy, by_torch = json.loads(ran.stdout)["tiny"], coarseloc(*command[2:]).json["tiny"]
    assert [hit["filename"] for hit in by_numpy] == [hit["filename"] for hit in by_torch]
    assert [hit["score"] for hit in by_numpy] == pytest.approx([hit["score"] for hit in by_torch], abs=1e-6)


def test_the_list_of_commands_says_what_their_own_help_says():
    for name, (_, sentence) in COMMANDS.items():
        command = cli.get_command(click.Context(cli), name)
        assert command is not None and command.name == name
        assert command.get_short_help_str(limit=500) == sentence
