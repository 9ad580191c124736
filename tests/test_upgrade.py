"""What an older version stored is read the same by this one: a database of schema 4 is upgraded, its exports held
against those that its own version wrote; and no spec's digest has changed, so that nobody embeds again.

`fixtures/schema4/README.md` says what the database holds and how it was made. New keys may be added to what is
exported; an old key keeps its value, but for those that `EXPORTED_ANEW` and `SCORED_ANEW` name with the reason.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest
from alembic import command
from alembic.config import Config
from click.testing import CliRunner
from databases import SERVER, database_url
from sqlalchemy import MetaData, create_engine, text

from coarseloc import cli
from coarseloc.core import config
from coarseloc.embedding import backbone as embedding_backbone
from coarseloc.embedding.backbone import embedding_spec
from coarseloc.embedding.specs import BACKBONES
from coarseloc.embedding.weights import LocatedWeights, find
from coarseloc.store.session import head_revision, open_database, open_engine
from web import create_app

SCHEMA4 = Path(__file__).parent / "fixtures" / "schema4"
EXPECTED = SCHEMA4 / "expected"
FLIGHT, BLIND_FLIGHT = "251124155712", "251125101500"  # the second one's truth is not known
FLIGHTS = (FLIGHT, BLIND_FLIGHT)
UNFINISHED = 6  # the run that was interrupted after five frames
REPLACED = 1  # the run that `export` leaves out: run 5 asked the same later, in batches

# Great-circle metres at 37.5° N differ by up to 0.3 % between a sphere and the ellipsoid; no other value may differ.
METRES = ("error_m", "best_error_m")
METRES_REL = 4e-3

# Keys whose values at schema 4 were wrong, by pattern.
EXPORTED_ANEW = (
    # One stride on a sphere, which a northern neighbour on the ellipsoid is just beyond: now 1.05 strides on it.
    "*.estimate.agreement.within_m",
    "*.schema_version",  # 1.1: records say whether the frame matches the map
)
# Of run 1 alone: its batch variant, run 5, had a vote beside it (2 of 3 in place of 1 of 2).
REPLACED_ANEW = ("*.estimate.agreement.*", "*.schema_version", "*.path")  # the web says no folder of its server
SCORED_ANEW = (
    "*.interval.*",  # 95 % intervals covered 55 %
    "*.low",
    "*.high",
    "*.scores.agreement_*",  # a run's batch and filtered variants had votes
    "*.agreement_within_m",  # see `EXPORTED_ANEW`
    # Ten hits are seven places on average: what was called the first 5 or 10 were the places among ten hits.
    "*.scores.best10_error_*",
    "*.scores.*@3.*",
    "*.scores.*@5.*",
    "*.scores.*@10.*",
    "*.hit_curves.5.*",
    "*.hit_curves.10.*",
)


# --- the upgraded database ------------------------------------------------------------------------


class Upgraded(NamedTuple):
    folder: Path
    original: Path  # the database as it was committed
    url: str


@pytest.fixture(scope="module")
def upgraded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgraded]:
    """A data folder with nothing but the database: no image, thumbnail, mirror or vector store. The schema 4 rows
    are in PostgreSQL where COARSELOC_TEST_DATABASE_URL names one."""
    folder = tmp_path_factory.mktemp("upgraded")
    original = folder / "original.sqlite"
    with gzip.open(SCHEMA4 / "coarseloc.sqlite.gz") as packed, original.open("wb") as file:
        shutil.copyfileobj(packed, file)
    url = database_url(folder)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("COARSELOC_")]:
            patch.delenv(name)
        patch.setenv("COARSELOC_DATA_DIR", str(folder))
        if SERVER:
            patch.setenv("COARSELOC_DATABASE_URL", url)
            _copy_to_server(original, url)
        else:
            shutil.copy(original, folder / "coarseloc.db")
        open_database(url).close()  # as every command does, or `coarseloc migrate` on a server
        yield Upgraded(folder, original, url)


def _copy_to_server(source: Path, url: str) -> None:
    """Every row of a SQLite file of schema 4 into an empty PostgreSQL schema."""
    alembic = Config()
    alembic.set_main_option("script_location", str(resources.files("migrations")))
    old, new = MetaData(), MetaData()
    engine, file = open_engine(url), create_engine(f"sqlite:///{source}")
    with engine.begin() as connection, file.connect() as reader:
        alembic.attributes["connection"] = connection
        command.upgrade(alembic, "0004")
        old.reflect(reader)
        new.reflect(connection)
        connection.execute(text("TRUNCATE counters, alembic_version CASCADE"))
        for table in new.sorted_tables:
            rows = [dict(row) for row in reader.execute(old.tables[table.name].select()).mappings()]
            for column in table.columns:
                if getattr(column.type, "timezone", False):
                    for row in rows:
                        row[column.name] = row[column.name] and row[column.name].replace(tzinfo=UTC)
            if rows:
                connection.execute(table.insert(), rows)
            if "id" in table.columns:
                sequence = f"pg_get_serial_sequence('{table.name}', 'id')"
                connection.execute(text(f"SELECT setval({sequence}, (SELECT coalesce(max(id), 1) FROM {table.name}))"))
    engine.dispose()
    file.dispose()


def _run(*args: object) -> str:
    """A command's standard output."""
    done = CliRunner().invoke(cli.cli, [*map(str, args)], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def exports(upgraded: Upgraded) -> Path:
    """Both flights in every format, a record for each frame; and `<flight>.json` with all of them."""
    folder = upgraded.folder / "exports"
    for flight in FLIGHTS:
        _run("export", flight, "--out", folder / flight)
        _run("export", flight, "--out", folder, "--format", "json", "--single")
    return folder


# --- comparing ------------------------------------------------------------------------------------


def differences(old: Any, new: Any, anew: Sequence[str] = (), where: str = "") -> list[str]:
    """Where `new` lacks a key of `old` or has another value, but for the patterns in `anew`."""
    if any(fnmatch(where, pattern) for pattern in anew):
        return []
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        missing = [f"{where}.{key} is missing" for key in old if key not in new]
        shared = [key for key in old if key in new]
        return missing + [line for key in shared for line in differences(old[key], new[key], anew, f"{where}.{key}")]
    if isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return [f"{where} has {len(new)} items, had {len(old)}"]
        return [
            line
            for i, (a, b) in enumerate(zip(old, new, strict=True))
            for line in differences(a, b, anew, f"{where}.{i}")
        ]
    metres = where.rpartition(".")[2] in METRES or fnmatch(where, "*.scores.error_*.value")
    same = _close(old, new) if metres else old == new and isinstance(old, bool) == isinstance(new, bool)
    return [] if same else [f"{where} is {new!r}, was {old!r}"]


def _close(old: Any, new: Any) -> bool:
    if old in (None, "") or new in (None, ""):
        return bool(old == new)
    return float(new) == pytest.approx(float(old), rel=METRES_REL)


def committed(name: str, folder: Path) -> str:
    """An expected file; paths in the data folder are spelt `DATA_DIR` in it."""
    return (EXPECTED / name).read_text(encoding="utf-8").replace("DATA_DIR", str(folder))


def by_frame(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    keyed = {f"run {one['query']['run']} frame {one['frame_index']}": one for one in records}
    assert len(keyed) == len(records)
    return keyed


def without_zone(document: Any) -> Any:
    """PostgreSQL gives times with their zone, UTC; SQLite without."""
    return json.loads(json.dumps(document).replace('+00:00"', '"'))


# --- what it exports ------------------------------------------------------------------------------


@pytest.mark.parametrize("flight", FLIGHTS)
def test_every_record_of_every_run_keeps_its_keys_and_values(upgraded: Upgraded, exports: Path, flight: str):
    old = json.loads(committed(f"{flight}.json", upgraded.folder))
    new = json.loads((exports / f"{flight}.json").read_text(encoding="utf-8"))
    records = [by_frame(document.pop("localizations")) for document in (old, new)]
    assert len(records[0]) == {FLIGHT: 66, BLIND_FLIGHT: 24}[flight]
    assert records[0].keys() == records[1].keys()
    assert differences(*records, EXPORTED_ANEW) == []
    assert (
        differences(old, new, EXPORTED_ANEW) == []
    )  # the flight's own facts, and the frames that could not be searched


@pytest.mark.parametrize("flight", FLIGHTS)
def test_every_record_is_a_file_of_its_own_under_its_old_name(exports: Path, flight: str):
    folder = exports / flight
    single = json.loads((exports / f"{flight}.json").read_text(encoding="utf-8"))["localizations"]
    files = {file: json.loads(file.read_text(encoding="utf-8")) for file in folder.rglob("*.json")}
    assert by_frame(list(files.values())) == by_frame(single)
    names = {str(file.relative_to(folder)) for file in files}
    wanted = (EXPECTED / f"{flight}.files.txt").read_text(encoding="utf-8").split()
    # The folder of "강남 600 m" was spelt `600-m`: only what can be kept without reducing names to ASCII is held to.
    assert {name for name in wanted if name.startswith("area-300m/")} <= names
    assert {name.rpartition("/")[2] for name in wanted} == {name.rpartition("/")[2] for name in names}


@pytest.mark.parametrize("flight", FLIGHTS)
def test_the_table_keeps_its_columns_and_rows(exports: Path, flight: str):
    old, new = (
        list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
        for file in (EXPECTED / f"{flight}.csv", exports / flight / f"{flight}.csv")
    )
    assert differences(old, new) == []


@pytest.mark.parametrize("flight", FLIGHTS)
def test_the_map_keeps_its_features(exports: Path, flight: str):
    old, new = (
        json.loads(file.read_text(encoding="utf-8"))
        for file in (EXPECTED / f"{flight}.geojson", exports / flight / f"{flight}.geojson")
    )
    assert differences(old, new) == []


@pytest.mark.parametrize("flight", FLIGHTS)
def test_the_earth_browsers_file_keeps_its_placemarks(exports: Path, flight: str):
    old, new = (_placemarks(file / f"{flight}.kml") for file in (EXPECTED, exports / flight))
    assert sum(map(len, old.values())) > 20
    assert differences(old, new) == []


def _placemarks(file: Path) -> dict[str, list[dict[str, str]]]:
    """{folder: its placemarks in order}, each with its name, coordinates and data."""
    kml = "{http://www.opengis.net/kml/2.2}"
    return {
        folder.findtext(f"{kml}name", ""): [
            {data.get("name", ""): data.findtext(f"{kml}value", "") for data in mark.iter(f"{kml}Data")}
            | {"name": mark.findtext(f"{kml}name", ""), "at": mark.findtext(f"{kml}Point/{kml}coordinates", "")}
            for mark in folder.iter(f"{kml}Placemark")
        ]
        for folder in ElementTree.parse(file).iter(f"{kml}Folder")
    }


def test_a_run_that_a_later_one_replaced_keeps_its_records_in_the_web(upgraded: Upgraded):
    old = json.loads(committed("run-1.json", upgraded.folder))
    app = create_app(config.load())
    client = app.test_client()
    new = [client.get(f"/flights/{FLIGHT}/{one['frame_index']}/info/{REPLACED}.json").json for one in old]
    app.extensions["coarseloc"].close()
    assert differences(by_frame(old), by_frame(new), REPLACED_ANEW) == []
    paths = zip(*([hit["path"] for one in records for hit in one["results"]] for records in (old, new)), strict=True)
    assert all(stored.endswith(f"/{shown}") for stored, shown in paths if shown)


# --- what else it answers -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "name"),
    [
        (["flights", "--json"], "flights.json"),
        (["references", "list", "--json"], "references.json"),
        (["ingest", "failures", "--json"], "failures.json"),
    ],
)
def test_what_is_here_is_told_as_before(upgraded: Upgraded, args: list[str], name: str):
    old, new = json.loads(committed(name, upgraded.folder)), json.loads(_run(*args))
    assert differences(old, without_zone(new)) == []


def test_scores_of_finished_runs_stay_but_for_those_that_were_wrong(upgraded: Upgraded):
    old, new = (
        {f"run {one['run']}": one for one in json.loads(document)}
        for document in (committed("evaluate.json", upgraded.folder), _run("evaluate", FLIGHT, "--json"))
    )
    assert len(old) == 7
    assert differences(old, new, SCORED_ANEW) == []


# --- what it stores -------------------------------------------------------------------------------


def _rows(connection: Any, query: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in connection.execute(text(query))]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id, digest, backbone, dim FROM embedding_specs ORDER BY id",
        "SELECT rotated_tile_id, spec_id, content_digest, generation, deleted, vector "
        "FROM embeddings ORDER BY rotated_tile_id, spec_id",
        "SELECT id, point_id, stamp, content_digest, ground_fraction, path FROM rotated_tiles ORDER BY id",
        "SELECT reference_set_id, spec_id, live, newest FROM embedding_tallies ORDER BY reference_set_id, spec_id",
        "SELECT name, value FROM counters ORDER BY name",
        "SELECT study_id, backbone, curve, x, y, low, high, n FROM study_points "
        "JOIN studies ON studies.id = study_id WHERE kind <> 'evaluation' ORDER BY study_id, backbone, curve, x",
        "SELECT id, kind, digest, CAST(parameters AS TEXT), CAST(findings AS TEXT) FROM studies "
        "WHERE kind <> 'evaluation' ORDER BY id",
    ],
    ids=["specs", "vectors", "rotated tiles", "tallies", "counters", "curves", "studies"],
)
def test_nothing_has_to_be_made_again(upgraded: Upgraded, query: str):
    old_engine, new_engine = create_engine(f"sqlite:///{upgraded.original}"), open_engine(upgraded.url)
    with old_engine.connect() as before, new_engine.connect() as after:
        old, new = _rows(before, query), _rows(after, query)
    old_engine.dispose()
    new_engine.dispose()
    assert old
    # Collations differ between databases: order is not what is compared.
    assert sorted(map(repr, _plain(old))) == sorted(map(repr, _plain(new)))


def _plain(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Without the difference between 0 and False, which SQLite does not know."""
    return [tuple(int(value) if isinstance(value, bool) else value for value in row) for row in rows]


def test_an_interrupted_run_is_neither_finished_nor_exported(upgraded: Upgraded, exports: Path):
    engine = open_engine(upgraded.url)
    with engine.connect() as connection:
        unfinished = _rows(connection, "SELECT id FROM search_runs WHERE finished_at IS NULL")
        frames = _rows(connection, f"SELECT count(*) FROM frame_results WHERE run_id = {UNFINISHED}")
    engine.dispose()
    assert unfinished == [(UNFINISHED,)] and frames == [(5,)]
    records = json.loads((exports / f"{FLIGHT}.json").read_text(encoding="utf-8"))["localizations"]
    assert UNFINISHED not in {one["query"]["run"] for one in records}


def test_the_upgraded_schema_is_the_newest_and_opening_it_again_changes_nothing(upgraded: Upgraded):
    with closing(sqlite3.connect(upgraded.original)) as original:
        assert original.execute("SELECT version_num FROM alembic_version").fetchone() == ("0004",)
    database = open_database(upgraded.url, migrate=False)
    assert database.revision() == head_revision() and database.damage() is None
    database.close()


# --- specs ----------------------------------------------------------------------------------------

WEIGHTS = "0123456789abcdef" * 4  # in place of the digest of real weights
DIGESTS = {
    ("vits16", 224, "fp32"): "82b1c613601a6e3518fb3b303e5fda4c44af65fd907463ec3c2e340a54eba002",
    ("vits16", 1024, "fp32"): "93ccac4bb7a147816d453bb42153b00108bc922fec6eb470c520b24564aa97b0",
    ("vits16+", 224, "fp32"): "6e0876f9d8ed7ba0cf5ef429bff965704346a2f14d83a7e6a65ff4530b24a5af",
    ("vits16+", 1024, "fp32"): "1dc21d0b2d5e54b912fe1e95d52445a8406babd0c0e0e7d96d176c04bc93c9c3",
    ("vitb16", 224, "fp32"): "af5f7557f672da1839a159bed75000bc0f3edf33f0bb54153054f210cbef0da9",
    ("vitb16", 1024, "fp32"): "2823994c9b9acff2028662a7950dde0eed00bc7105b39a277f9bbef661bfcd12",
    ("vitb16", 224, "bf16"): "31d27af3b947d4a39b4a71f71ff7f7611ab0ef40c5674f1110a0ef0291d824f3",
    ("vitb16", 224, "int8"): "074af846d01ac8e3bb084d5b344c3cd64ce977073ddb01f65115e75aab14c23d",
    ("vitl16", 224, "fp32"): "bc9af0c0272e42c74e915f04cf3ea3373a96e1f4deff84314d2f663b9541483c",
    ("vitl16", 1024, "fp32"): "5f0cfe0798238171cf31c124c4ed9365a9063c2be5b247cf89a97595084dfc02",
    ("vitl16sat", 224, "fp32"): "da6cfb6beacdfdee191866695b6f84bd2e27484623853a33a63b91fe34be2c87",
    ("vitl16sat", 1024, "fp32"): "21fc314838be35d95c6eee0beb41b966bb513a86ab436a73d448b63c08a7a00e",
    ("vith16+", 224, "fp32"): "f56581cb92554e2cadc1a32790f591d9c02227b74ec52d1dbee29e0e8cc061e1",
    ("vith16+", 1024, "fp32"): "2787690412dd8035a8394c085583b3fa5940af17fc2289c5af54a5d20a16328d",
    ("demo", 224, "fp32"): "040cd2f2967364723fee31a56c714c83de6c5dff0ce8fd754a1eafd87d8366e2",
}


def _spec_digest(monkeypatch: pytest.MonkeyPatch, name: str, input_px: int, precision: str) -> str:
    monkeypatch.setattr(embedding_backbone, "weights_digest", lambda *_: WEIGHTS)
    unused = Path("unused")
    found = find(BACKBONES[name], unused) if name == "demo" else LocatedWeights(BACKBONES[name], "pth", unused)
    assert isinstance(found, LocatedWeights)
    return embedding_spec(found, input_px=input_px, precision=precision).digest


@pytest.mark.parametrize(("name", "input_px", "precision"), DIGESTS)
def test_the_digest_of_a_spec_stays_so_that_nobody_embeds_again(
    monkeypatch: pytest.MonkeyPatch, name: str, input_px: int, precision: str
):
    assert _spec_digest(monkeypatch, name, input_px, precision) == DIGESTS[name, input_px, precision]


def test_every_backbone_has_its_digest_pinned():
    assert {name for name, _px, _precision in DIGESTS} == set(BACKBONES)


def test_the_demonstrations_own_weights_keep_their_digest():
    found = find(BACKBONES["demo"], Path("unused"))
    assert isinstance(found, LocatedWeights)
    spec = embedding_spec(found, input_px=128)
    assert (spec.weights_digest, spec.digest) == (
        "adcce560a2a2278f97ebc62310ef85154299741c6d10b7af9f898c5a83a30a97",
        "407b3b84b4b5b2d75bdbd793eaccaa791e6c46449386ce7c440e8431e3cddea5",
    )
