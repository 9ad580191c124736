"""Long work from the page Jobs: paused and resumed, and brought to its end after everything was killed."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from asking import wait_until
from databases import settings_of

from coarseloc.core.config import CustomBackbone
from coarseloc.core.types import LonLat
from coarseloc.imagery.geotiff import write_rgb
from coarseloc.jobs import BEAT_S
from coarseloc.store import Database, embeddings, jobs, open_database, references, tallies
from coarseloc.store.jobs import StoredJob

VIEWS = 10 * 10 * 8  # of each map: 600 m, tiles of 100 m every 50 m


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: CustomBackbone) -> Path:
    """A data folder whose pages may start jobs on two maps."""
    folder = tmp_path_factory.mktemp("jobs")
    maps = folder / "maps"
    maps.mkdir()
    for name in ("north", "south"):
        noise = np.random.default_rng(3).integers(0, 255, (600, 600, 3), np.uint8)
        write_rgb(maps / f"{name}.tif", noise, center=LonLat(127.0, 37.5), gsd_m=1.0)
    backbone = f"[[backbones]]\nname = 'tiny'\npath = {str(tiny_backbone.path)!r}\n"
    text = f"input_px = 128\ndevice = 'cpu'\nsource_roots = [{str(maps)!r}]\n{backbone}"
    (folder / "coarseloc.toml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def server(start_server, data_dir: Path):
    return start_server(data_dir)


@pytest.fixture
def database(data_dir: Path) -> Iterator[Database]:
    database = open_database(settings_of(data_dir).database)
    yield database
    database.close()


@pytest.fixture
def tab(browser) -> Iterator[object]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en")
    yield context.new_page()
    context.close()


def start_ingest(tab, server, name: str) -> None:
    """Choose a map in the form, and start."""
    tab.goto(server("/jobs"))
    form = tab.locator("form.card", has_text="Ingest an orthophoto")
    form.locator("[name=source]").select_option(f"maps/{name}.tif")
    form.locator("[name=footprint_m]").fill("100")
    form.locator("[name=backbone]").select_option("tiny")
    # Preflight, which comes first, is what other tests are about.
    form.evaluate("(form) => form.insertAdjacentHTML('beforeend', '<input type=hidden name=check value=no>')")
    form.locator("button").click()


def newest_job(database: Database) -> StoredJob:
    with database.read() as session:
        return jobs.jobs(session, 1)[0]


def seconds_silent(database: Database) -> float:
    return (datetime.now(UTC) - newest_job(database).heartbeat_at).total_seconds()


def count_embedded(database: Database, name: str) -> int:
    with database.read() as session:
        for stored in references.reference_sets(session):
            if stored.name.startswith(name):
                specs = embeddings.specs(session, stored.id)
                return sum(tallies.tally(session, stored.id, spec.id).live for spec in specs)
    return 0


def freeze_while_it_embeds(database: Database, name: str) -> StoredJob:
    """Stop the job's process for as long as the test takes: embedding is over sooner than a reader presses a button."""
    wait_until(lambda: count_embedded(database, name) > 0, 180)  # so that the newest job is this one
    job = newest_job(database)

    def has_frozen() -> bool:
        """It has written some, and holds no lock of the database."""
        os.kill(job.pid, signal.SIGSTOP)
        if count_embedded(database, name) and _can_write(database):
            return True
        os.kill(job.pid, signal.SIGCONT)
        return False

    wait_until(has_frozen, 180)
    assert 0 < count_embedded(database, name) < VIEWS
    return job


def _can_write(database: Database) -> bool:
    if database.engine.dialect.name != "sqlite":
        return True  # writers of other rows do not wait there
    with closing(sqlite3.connect(database.engine.url.database, timeout=0.0)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        connection.rollback()
    return True


def newest(tab, state: str):
    """The newest job's row, once the page says this state of it."""
    return tab.locator("table.jobs tbody tr").first.filter(
        has=tab.locator(".fix-badge", has_text=re.compile(f"^{state}$"))
    )


def test_an_ingest_is_started_paused_and_resumed_from_the_page(tab, server, database):
    start_ingest(tab, server, "north")
    job = freeze_while_it_embeds(database, "north")
    newest(tab, "runs").get_by_role("button", name="Pause").click()
    wait_until(lambda: newest_job(database).wish == "pause" and seconds_silent(database) > BEAT_S, 120)
    os.kill(job.pid, signal.SIGCONT)  # its heartbeat, which reads the wish, is due: it comes before the end of the work
    newest(tab, "paused").wait_for(timeout=120_000)  # the page follows by itself
    kept = count_embedded(database, "north")
    assert 0 < kept < VIEWS and newest_job(database).exit_code == 130
    newest(tab, "paused").get_by_role("button", name="Resume").click()
    newest(tab, "done").wait_for(timeout=180_000)
    assert count_embedded(database, "north") == VIEWS
    assert newest_job(database).id == job.id
    assert re.search(rf"{VIEWS - kept} / {VIEWS - kept}", newest(tab, "done").inner_text())


def test_what_was_killed_with_its_server_is_resumed_from_a_fresh_servers_page(tab, server, start_server, database):
    start_ingest(tab, server, "south")
    job = freeze_while_it_embeds(database, "south")
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait(60)
    fresh = start_server(server.data_dir)
    tab.goto(fresh("/jobs"))
    newest(tab, "runs").wait_for(timeout=120_000)  # a job outlives its server
    os.kill(job.pid, signal.SIGKILL)
    newest(tab, "interrupted").wait_for(timeout=120_000)
    kept = count_embedded(database, "south")
    newest(tab, "interrupted").get_by_role("button", name="Resume").click()
    newest(tab, "done").wait_for(timeout=180_000)
    assert count_embedded(database, "south") == VIEWS
    assert re.search(rf"{VIEWS - kept} / {VIEWS - kept}", newest(tab, "done").inner_text())
    tab.goto(fresh("/references"))
    assert tab.get_by_text("south-w100m-50").first.is_visible()
