"""Ingest by Ray: the same end as in one process, whatever dies on the way."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from whole import Whole, whole

from coarseloc.errors import InputError
from coarseloc.imagery.captures import open_captures
from coarseloc.imagery.orthophoto import open_orthophoto
from coarseloc.store import embeddings, references
from coarseloc.types import Tile
from ingest import worker
from ingest.spread import over_ray

ray = pytest.importorskip("ray", reason="Ray is an extra: pip install 'coarseloc[ray]'")


@pytest.fixture
def load(fake_backbone, tmp_path: Path):
    """A loader that can be sent to other processes; each says where it works."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[type(fake_backbone).__module__])
    pids = tmp_path / "pids"
    pids.mkdir()

    def loaded(_spec):
        class Slow(type(fake_backbone)):
            def embed(self, images):
                (pids / str(os.getpid())).touch()
                time.sleep(0.002 * len(images))
                return super().embed(images)

        return Slow()

    return loaded


def vectors(db, spec) -> Whole:
    with db.read() as session:
        stored = references.find_reference_set(session, None)
        return whole(session, stored.id, embeddings.save_spec(session, spec).id)


def test_an_actor_that_is_killed_is_replaced_and_nothing_is_missing_or_double(
    make_captures, db, fake_backbone, load, tmp_path
):
    source = open_captures(make_captures(columns=8, rows=6))[0]
    killed: list[int] = []

    def kill() -> None:
        while not (there := list((tmp_path / "pids").iterdir())):
            time.sleep(0.01)
        os.kill(int(there[0].name), signal.SIGKILL)
        killed.append(int(there[0].name))

    threading.Thread(target=kill, daemon=True).start()
    done = worker.run(db, source, [fake_backbone.spec], load, tmp_path / "thumbnails", engine=over_ray(cores=1))
    assert len(killed) == 1 and len(list((tmp_path / "pids").iterdir())) > 1  # another took its place
    assert done.read == 96 and done.embedded["fake"] == 96 and not done.failures
    found = vectors(db, fake_backbone.spec)
    assert len({(fact.tile_id, fact.angle_deg) for fact in found.facts}) == len(found.facts) == 96
    path = next(Path(source.reference_set.source).glob("*_045/*_00007.jpg"))
    (view,) = source.views(next(t for t in source.tiles if t.index == 7), [45])
    row = next(i for i, f in enumerate(found.facts) if f.tile_id.endswith("/00007") and f.angle_deg == 45)
    np.testing.assert_allclose(found.vectors[row], fake_backbone.embed(view.pixels[None])[0], atol=1e-6)
    assert path == view.path
    again = worker.run(db, source, [fake_backbone.spec], load, tmp_path / "thumbnails", engine=over_ray())
    assert again.up_to_date == 96 and again.read == 0


def test_the_command_line_sends_a_real_model_to_it(coarseloc, flight, tmp_path):
    found = coarseloc("ingest", "captures", tmp_path / "captures", "--backbone", "tiny", "--engine", "ray", "--json")
    assert found.json["reference_sets"][0]["embedded"] == {"tiny": 12} and found.json["vector_store"]["upserted"] == 12
    (run,) = coarseloc("search", flight, "--json").json
    assert run["median_error_m"] == pytest.approx(0, abs=0.1)


def test_a_cluster_that_is_not_there_is_named(make_captures, db, fake_backbone, load, tmp_path):
    source = open_captures(make_captures())[0]
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9"):
        worker.run(db, source, [fake_backbone.spec], load, tmp_path / "t", engine=over_ray("127.0.0.1:9"))


def test_an_orthophoto_can_be_sent_to_another_process(tmp_path):
    import pickle

    from coarseloc.imagery.geotiff import write_rgb
    from coarseloc.types import LonLat

    pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    area = write_rgb(tmp_path / "a.tif", pixels, center=LonLat(127.0, 37.5), gsd_m=1.0)
    source = open_orthophoto(area, footprint_m=60.0, overlap=0.0, angles=(0, 45))
    sent = pickle.loads(pickle.dumps(source))
    tile: Tile = source.tiles[0]
    for here, there in zip(source.views(tile, (0, 45)), sent.views(tile, (0, 45)), strict=True):
        assert here.content_digest == there.content_digest
