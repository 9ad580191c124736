"""A notebook's way in: `import coarseloc as cl`, and everything that the command line does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from databases import environment_of

import coarseloc as cl
from coarseloc.core.errors import InputError
from coarseloc.simulate.flight import simulate_flight
from coarseloc.simulate.terrain import write_area

FLIGHT = "251124155712"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[cl.Workspace, Path]]:
    root = tmp_path_factory.mktemp("notebook")
    area = write_area(root / "area.tif", 7, width_m=900, height_m=800, style="suburb")
    simulate_flight(area, root / "flights", flight_id=FLIGHT, frames=6, footprint_m=300, seed=5, side_px=128)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment_of(root / "data").items():
            patch.setenv(name, value)
        with cl.open(root / "data", device="cpu", input_px=96) as workspace:
            workspace.ingest(cl.orthophoto(area, name="area", footprint_m=300, altitude_m=300), ["demo"])
            yield workspace, root / "flights" / FLIGHT


def test_a_picture_is_localized_by_the_exact_mirrors_and_looked_up_alike(world: tuple[cl.Workspace, Path]):
    workspace, flight = world
    image = flight / f"{FLIGHT}_00003.jpg"
    answer = workspace.localize(image, where=cl.Where(angles=(0, 90)))
    assert answer.backbone == "demo" and len(answer.hits) == 10 and answer.estimate is not None
    assert {hit.tile.angle_deg for hit in answer.hits} <= {0, 90}
    assert answer.estimate.location == answer.hits[0].tile.center
    looked_up = workspace.lookup(image, where=cl.Where(angles=(0, 90)))["demo"]
    assert [(hit.tile, hit.score) for hit in looked_up.hits] == [(hit.tile, hit.score) for hit in answer.hits]
    assert looked_up.rows()[0].keys() == answer.rows()[0].keys() >= {"rank", "score", "tile_id", "location", "bbox"}


def test_pixels_are_localized_as_their_file_is(world: tuple[cl.Workspace, Path]):
    from coarseloc.imagery.decode import read_image

    workspace, flight = world
    image = flight / f"{FLIGHT}_00003.jpg"
    assert workspace.localize(read_image(image)).hits == workspace.localize(image).hits


def test_a_flight_is_searched_evaluated_and_exported(world: tuple[cl.Workspace, Path], tmp_path: Path):
    workspace, flight = world
    runs = workspace.search(flight, k=5)
    (run,) = runs
    assert (run.flight_id, run.backbone, run.summary.frames) == (FLIGHT, "demo", 6)
    rows = run.rows()
    assert [row["frame_index"] for row in rows] == [1, 2, 3, 4, 5, 6]
    (evaluation,) = workspace.evaluate(run.id)
    assert evaluation.scores["error_median"].value == run.summary.median_error_m
    done = workspace.export(FLIGHT, tmp_path / "out", formats=["csv"])
    assert done.records == 6 and (tmp_path / "out" / f"{FLIGHT}.csv").exists()
    frame = runs.to_dataframe()
    assert list(frame["error_m"]) == [row["error_m"] for row in rows]


def test_an_encoder_gives_vectors_and_patch_tokens(world: tuple[cl.Workspace, Path]):
    workspace, _ = world
    encoder = workspace.encoder("demo", input_px=96)
    images = np.random.default_rng(0).integers(0, 256, (2, 80, 80, 3), np.uint8)
    vectors, tokens = encoder.embed(images), encoder.patch_tokens(images)
    assert vectors.shape == (2, encoder.spec.dim) and np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert tokens.shape == (2, 6, 6, encoder.spec.dim)


def test_a_workspace_looks_after_its_stores(world: tuple[cl.Workspace, Path], tmp_path: Path):
    workspace, _ = world
    (summary,) = workspace.reference_summaries()
    total = sum(summary.views.values())
    assert summary.facts()["name"] == "area" and list(summary.embeddings.values()) == [total] and total > 0
    assert workspace.failures() == [] and workspace.drain().upserted == 0
    reconciliation = workspace.reconcile(sample=5)
    assert len(reconciliation.collections) == 1 and reconciliation.differing == []
    assert (reconciliation.miscounts, reconciliation.pending) == ([], {})
    assert workspace.rebuild().upserted == total
    diagnosis = workspace.diagnose()
    assert diagnosis.problems == [] and str(total) in diagnosis.checks["vector store"]
    assert diagnosis.checks["pending"] == "nothing" and workspace.migrate() in diagnosis.checks["database"]
    assert "demo" in {backbone.name for backbone in workspace.backbones()}


def test_a_study_is_answered_and_reported(world: tuple[cl.Workspace, Path], tmp_path: Path, undrawn: None):
    workspace, _ = world
    study = workspace.study_rotation("area", step=45, patches=0, frames=2, positions=1)
    assert study.study.kind == "rotation" and study.study.finished_at is not None
    assert workspace.report_study(study, tmp_path / "study.html") == [] and (tmp_path / "study.html").stat().st_size
    with pytest.raises(InputError, match="123 m is not among"):
        workspace.study_altitude("area", reference_m=123, frames=2)


def test_what_cannot_be_answered_says_what_to_do(world: tuple[cl.Workspace, Path]):
    workspace, flight = world
    with pytest.raises(InputError, match="not embedded with vits16 as asked; it holds demo"):
        workspace.localize(flight / f"{FLIGHT}_00001.jpg", backbone="vits16")


def test_nothing_is_loaded_before_it_is_needed():
    code = "import sys, coarseloc; print(sorted(m for m in ('torch', 'numpy', 'sqlalchemy') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
