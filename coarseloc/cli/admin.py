"""The commands that look after the installation, from `backbones` to `doctor`."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from coarseloc import __version__
from coarseloc.cli.app import App, answer, json_option, out, pass_app, progress_bar, table
from coarseloc.cli.ingest import show_drained
from coarseloc.core.errors import CoarselocError, StoreError
from coarseloc.embedding import specs
from coarseloc.embedding.encoders import LICENCE_NOTE, inventory
from coarseloc.store import embeddings, open_database
from coarseloc.store.session import head_revision
from coarseloc.vectors import sync


@click.command()
@json_option
@pass_app
def backbones(app: App, as_json: bool) -> None:
    """Each encoder, and where its weights were found or how to get them."""
    entries = inventory(specs.table(app.settings.backbones), app.settings.weights)

    def show() -> None:
        rows = [
            (
                entry.name,
                entry.params_m and round(entry.params_m, 1),
                entry.dim,
                entry.pretraining,
                f"{entry.kind}: {entry.path}" if entry.path else f"not here: {entry.reason}",
            )
            for entry in entries
        ]
        table("backbone", "M params", "dim", "pretraining", "weights", rows=rows)
        for entry in entries:
            if not entry.path:
                out.print(f"\n[bold]{entry.name}[/bold]: {entry.remedy}")
        out.print(f"\n{LICENCE_NOTE}")

    answer(as_json, [asdict(entry) for entry in entries], show)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Another address needs COARSELOC_TOKEN.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True)
@click.option("--access-log", is_flag=True, help="A line of JSON on stderr for each request.")
@pass_app
def serve(app: App, host: str, port: int, access_log: bool) -> None:
    """The web pages."""
    import web
    from web.monitoring import log_accesses

    if access_log:
        log_accesses()

    _ = app.db  # migrates the embedded default, or says what is wrong, before anything listens
    web.serve(app.settings, host=host, port=port, ready=lambda url: out.print(f"coarseloc is at [bold]{url}[/bold]"))


@click.command()
@json_option
@pass_app
def drain(app: App, as_json: bool) -> None:
    """Bring the vector store up to the database; ingest does this by itself where it can."""
    with app.vectors() as store, progress_bar("index") as progress:
        done = sync.drain(app.db, store, progress)
    answer(as_json, asdict(done), lambda: show_drained(done))


@click.command()
@click.option("--sample", type=click.IntRange(min=1), default=1000, show_default=True, help="Vectors compared of each.")
@json_option
@pass_app
def reconcile(app: App, sample: int, as_json: bool) -> None:
    """Compare the vector store with the database and the database's tallies with its rows, and say what differs.

    Wrong tallies are mended; nothing else is changed.
    """
    miscounts = sync.recount(app.db)
    with app.vectors() as store:
        found = sync.reconcile(app.db, store, sample)
    with app.db.read() as session:
        pending = embeddings.pending_counts(session)
    bad = [d for d in found if d.missing or d.orphaned or d.differing]

    def show() -> None:
        rows = [(d.collection, len(d.missing), len(d.orphaned), len(d.differing), d.compared) for d in found]
        table("collection", "missing", "orphaned", "differing", "vectors compared", rows=rows)
        if pending:
            out.print(f"{sum(pending.values())} embeddings are pending: `coarseloc drain`")
        for one in miscounts:
            out.print(
                f"[yellow]the tally of {one.reference_set} in {one.collection} said {one.found.live} embeddings and "
                f"there are {one.rows.live}: mended, and its mirror will be built anew[/yellow]"
            )
        out.print("differences found" if bad else "no differences")

    facts = {"differences": [asdict(d) for d in found], "miscounts": [asdict(m) for m in miscounts], "pending": pending}
    answer(as_json, facts, show)
    if bad:
        raise StoreError(
            f"the vector store differs from the database in {', '.join(d.collection for d in bad)}: "
            "`coarseloc rebuild` replays it"
        )


@click.command()
@json_option
@pass_app
def rebuild(app: App, as_json: bool) -> None:
    """Drop the vector store's collections and replay the database into new ones."""
    with app.vectors() as store, progress_bar("rebuild") as progress:
        done = sync.rebuild(app.db, store, progress)
    answer(as_json, asdict(done), lambda: show_drained(done))


@click.command()
@pass_app
def migrate(app: App) -> None:
    """Bring the database's schema to this version's; the embedded default does this by itself."""
    open_database(app.settings.database).close()
    out.print(f"the schema is at {head_revision()}")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@pass_app
def backup(app: App, file: Path) -> None:
    """Write the embedded database as of now to FILE, while others use it. See docs/operations.md for the way back."""
    size = app.db.back_up(file)
    out.print(f"wrote {file} ({size / 1e6:.1f} MB)")


@click.command()
@json_option
@pass_app
def doctor(app: App, as_json: bool) -> None:
    """Versions, device, FAISS, stores, what is pending, disk: what a report of a fault should hold."""
    checks: dict[str, Any] = {"coarseloc": __version__, "python": platform.python_version(), "cpus": os.cpu_count()}
    problems = []

    def check(name: str, ask: Callable[[], Any]) -> None:
        try:
            checks[name] = ask()
        except CoarselocError as error:
            checks[name] = f"PROBLEM: {error}"
            problems.append(name)

    for package in ("torch", "transformers", "qdrant-client", "qdrant-edge-py", "sqlalchemy", "rasterio", "flask"):
        check(package, lambda package=package: metadata.version(package))  # type: ignore[misc]
    check("device", lambda: _device(app))
    check("faiss", _faiss)
    check("data folder", lambda: f"{app.settings.data_dir} ({_free(app)} free)")
    check("database", lambda: _database(app))
    check("vector store", lambda: _vector_store(app))
    check("pending", lambda: _pending(app))
    entries = inventory(specs.table(app.settings.backbones), app.settings.weights)
    checks["weights found"] = ", ".join(entry.name for entry in entries if entry.path) or "none"
    answer(as_json, checks, lambda: table("what", "found", rows=list(checks.items())))
    if problems:
        raise StoreError(f"doctor found problems with: {', '.join(problems)}")


def _device(app: App) -> str:
    from coarseloc.embedding.backbone import resolve_device

    return str(resolve_device(app.settings.device))


def _faiss() -> str:
    from search import faiss_vectors

    return faiss_vectors.owner()


def _free(app: App) -> str:
    folder = next(f for f in (app.settings.data_dir, *app.settings.data_dir.parents) if f.exists())
    return f"{shutil.disk_usage(folder).free / 1e9:.1f} GB"


def _database(app: App) -> str:
    if damage := app.db.damage():
        raise StoreError(
            f"{app.db.engine.url!r} is damaged ({damage}): stop everything that uses it and restore a back-up, see "
            "docs/operations.md"
        )
    return f"{app.db.engine.url!r}, schema {app.db.revision()}"


def _vector_store(app: App) -> str:
    with app.vectors() as store:
        counts = {name: store.count(name) for name in store.collections()}
        return f"{store.backend} at {store.location}: {counts or 'empty'}"


def _pending(app: App) -> str:
    with app.db.read() as session:
        return str(embeddings.pending_counts(session) or "nothing")
