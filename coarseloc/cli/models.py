"""Which stored embeddings a command means."""

from __future__ import annotations

from collections.abc import Sequence

from coarseloc.cli.app import App
from coarseloc.embedding import specs
from coarseloc.errors import InputError
from coarseloc.store import embeddings
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.references import StoredReferenceSet


def stored_specs(
    app: App,
    reference_set: StoredReferenceSet | None,
    names: Sequence[str],
    input_px: int | None,
    precision: str | None,
) -> list[StoredSpec]:
    """The specs a reference set (or any) is embedded with, narrowed to what was asked for.

    Raises InputError listing what there is where a backbone has none, or several and nothing says which.
    """
    with app.db.read() as session:
        here = embeddings.specs(session, reference_set.id if reference_set else None)
    where = f"reference set {reference_set.name!r}" if reference_set else "the database"
    rows = specs.table(app.settings.backbones)
    asked = dict.fromkeys(specs.row(name, rows).name for name in names) or dict.fromkeys(s.spec.backbone for s in here)
    if not here:
        raise InputError(f"{where} has no embeddings yet: run `coarseloc ingest` first")
    return [_the_one(where, name, here, input_px, precision) for name in asked]


def _the_one(
    where: str, name: str, here: Sequence[StoredSpec], input_px: int | None, precision: str | None
) -> StoredSpec:
    alike = [s for s in here if s.spec.backbone == name]
    fitting = [
        s
        for s in alike
        if (input_px is None or s.spec.input_px == input_px) and (precision is None or s.spec.precision == precision)
    ]
    held = ", ".join(f"{s.spec.backbone} at {s.spec.input_px} px {s.spec.precision}" for s in (alike or here))
    if not fitting:
        raise InputError(
            f"{where} is not embedded with {name} as asked; it holds {held}. "
            f"Ingest with `--backbone {name}` first, or ask for what is there."
        )
    if len({(s.spec.input_px, s.spec.precision) for s in fitting}) > 1:
        raise InputError(f"{where} holds {held}: say which with --input-px or --precision")
    return fitting[-1]  # of two weights under one name and size, those ingested last
