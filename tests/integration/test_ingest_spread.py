"""Ingest by Ray: the same end as in one process, whatever dies on the way."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from whole import Whole, whole

from coarseloc.core.errors import InputError
from coarseloc.core.types import BBox, LonLat, Tile
from coarseloc.imagery.captures import open_captures
from coarseloc.imagery.orthophoto import open_orthophoto
from coarseloc.store import embeddings, references
from ingest import ray_engine, worker
from ingest.plan import Work
from ingest.ray_engine import over_ray

ray = pytest.importorskip("ray", reason="Ray is an extra: pip install 'ray>=2.40,<3'")


@pytest.fixture
def make_load(fake_backbone, tmp_path: Path) -> Callable[..., Callable]:
    """`make_load(together=1)`: a loader that can be sent to other processes. Each says in a file where it works, and
    begins when so many do. first_waits: the first embeds nothing until it is killed."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[type(fake_backbone).__module__])
    pids = tmp_path / "pids"
    pids.mkdir()

    def make(together: int = 1, first_waits: bool = False) -> Callable:
        def load(_spec):
            class Slow(type(fake_backbone)):
                def embed(self, images):
                    is_first = not any(path.name != str(os.getpid()) for path in pids.iterdir())
                    (pids / str(os.getpid())).touch()
                    while is_first and first_waits:
                        time.sleep(0.01)
                    while len(list(pids.iterdir())) < together:
                        time.sleep(0.01)
                    time.sleep(0.002 * len(images))
                    return super().embed(images)

            return Slow()

        return load

    return make


def vectors(db, spec) -> Whole:
    with db.read() as session:
        stored = references.find_reference_set(session, None)
        return whole(session, stored.id, embeddings.save_spec(session, spec).id)


def test_an_actor_that_is_killed_is_replaced_and_nothing_is_missing_or_double(
    make_captures, db, fake_backbone, make_load, tmp_path
):
    load = make_load(first_waits=True)
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


def test_a_machine_that_dies_leaves_its_work_to_the_rest(make_captures, db, fake_backbone, make_load, tmp_path):
    """Two nodes with room for one worker each, so that none can take the place of what died."""
    from ray.cluster_utils import Cluster

    source = open_captures(make_captures(columns=10, rows=8))[0]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    other = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    lost: list[int] = []

    def lose(done: int, total: int, _what: str) -> None:
        if not lost:  # both are at work
            lost.append(total - done)
            cluster.remove_node(other, allow_graceful=False)

    try:
        engine = over_ray(cluster.address)
        done = worker.run(db, source, [fake_backbone.spec], make_load(2), tmp_path / "thumbnails", lose, engine)
    finally:
        cluster.shutdown()
    assert lost[0] > 32, "it died too late to matter"
    assert done.read == 160 and done.embedded["fake"] == 160
    found = vectors(db, fake_backbone.spec)
    assert len({(fact.tile_id, fact.angle_deg) for fact in found.facts}) == len(found.facts) == 160
    for row in (0, 79, 159):
        fact = found.facts[row]
        tile = next(one for one in source.tiles if fact.tile_id.endswith(f"/{one.index:05d}"))
        (view,) = source.views(tile, [fact.angle_deg])
        np.testing.assert_array_equal(found.vectors[row], fake_backbone.embed(view.pixels[None])[0])


def test_the_command_line_sends_a_real_model_to_it(coarseloc, flight, tmp_path):
    found = coarseloc("ingest", "captures", tmp_path / "captures", "--backbone", "tiny", "--engine", "ray", "--json")
    assert found.json["reference_sets"][0]["embedded"] == {"tiny": 12} and found.json["vector_store"]["upserted"] == 12
    (run,) = coarseloc("search", flight, "--no-verify", "--json").json
    assert run["median_error_m"] == pytest.approx(0, abs=0.1)


def test_a_cluster_that_is_not_there_is_named(make_captures, db, fake_backbone, make_load, tmp_path):
    source = open_captures(make_captures())[0]
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9"):
        worker.run(db, source, [fake_backbone.spec], make_load(), tmp_path / "t", engine=over_ray("127.0.0.1:9"))


@pytest.mark.parametrize(
    ("code", "ray_says", "we_say"),
    [
        (1, "W gcs_client.cc:210: InvalidAuthToken: missing\nConnectionError: Failed", "set RAY_AUTH_MODE=token"),
        (
            1,
            "C raylet_ipc_client.cc:85: Failed to connect to socket\n*** StackTrace Information ***\n_start",
            "not joined",
        ),
        (-6, "", "ray start --address=127.0.0.1:6379"),
        (1, "Traceback\nRuntimeError: Version mismatch: 2.60 and 2.40", "Version mismatch: 2.60 and 2.40"),
    ],
)
def test_why_a_cluster_cannot_be_joined_is_said_in_a_line(monkeypatch, code, ray_says, we_say):
    monkeypatch.setattr(
        ray_engine.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=code, stderr=ray_says)
    )
    with pytest.raises(InputError, match=we_say) as refused:
        ray_engine._check_joined("127.0.0.1:6379")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("machines", "needs", "count"),
    [
        ([{"CPU": 16.0}], {"num_cpus": 4}, 4),
        ([{"CPU": 6.0}, {"CPU": 6.0}], {"num_cpus": 4}, 2),  # twelve cores, but none spans both
        ([{"CPU": 2.0}, {"CPU": 2.0}], {"num_cpus": 2}, 2),
        ([{"CPU": 8.0}, {"memory": 1e9}, {"CPU": 0.0}], {"num_cpus": 4}, 2),
        ([{"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0}], {"num_gpus": 1}, 2),
    ],
)
def test_an_actor_asks_for_what_every_machine_could_give(machines, needs, count):
    assert ray_engine._actor_capacity(machines, cores=4) == (needs, count)


@dataclass(eq=False)
class Asked:
    chunk: list[Work]


class Script:
    """Ray, with actors that answer a chunk by itself, unless one of its tiles has deaths left to give."""

    exceptions = ray.exceptions

    def __init__(self, room: bool = True, **deadly: int) -> None:
        self.room, self.hired = room, 0
        self.deadly = {int(tile.removeprefix("tile_")): deaths for tile, deaths in deadly.items()}

    def hire(self) -> SimpleNamespace:
        self.hired += 1
        ask = SimpleNamespace(remote=lambda chunk=None: Asked(chunk or []))
        return SimpleNamespace(begin=ask, work=ask)

    def wait(self, asked, num_returns, timeout):
        assert (timeout is None) == any(one.chunk for one in asked)
        return (asked[:num_returns] if self.room else []), []

    def get(self, asked: Asked):
        for work in asked.chunk:
            if self.deadly.get(work.tile.index, 0) > 0:
                self.deadly[work.tile.index] -= 1
                raise ray.exceptions.ActorUnavailableError("it fell", None)
        return asked.chunk

    def kill(self, actor) -> None:
        pass


def tiles_answered(script: Script, count: int = 3) -> list[int]:
    place = LonLat(127.0, 37.5)
    work = [Work(Tile(i, place, BBox(*place, *place)), (0,)) for i in range(1, 101)]
    return [one.tile.index for chunk in ray_engine._chunk_results(script, script.hire, count, work) for one in chunk]


def test_what_the_dead_had_before_them_is_done_once_by_others():
    script = Script(tile_12=2, tile_20=1, tile_100=2)
    assert sorted(tiles_answered(script)) == list(range(1, 101))
    assert script.hired == 3 + 5


def test_tiles_over_which_every_actor_dies_are_named():
    with pytest.raises(InputError, match=r"3 workers have died over tiles 9 … 16.*it fell"):
        tiles_answered(Script(tile_12=9))


def test_a_cluster_that_has_no_room_is_not_waited_for_for_ever():
    with pytest.raises(InputError, match="no room for a worker in 5 minutes"):
        tiles_answered(Script(room=False))


def test_an_orthophoto_can_be_sent_to_another_process(tmp_path):
    import pickle

    from coarseloc.imagery.geotiff import write_rgb

    pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    area = write_rgb(tmp_path / "a.tif", pixels, center=LonLat(127.0, 37.5), gsd_m=1.0)
    source = open_orthophoto(area, footprint_m=60.0, overlap=0.0, angles=(0, 45))
    sent = pickle.loads(pickle.dumps(source))
    tile: Tile = source.tiles[0]
    for here, there in zip(source.views(tile, (0, 45)), sent.views(tile, (0, 45)), strict=True):
        assert here.content_digest == there.content_digest
