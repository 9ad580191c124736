"""`INSERT … ON CONFLICT DO UPDATE`, spelled once for SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from coarseloc.store.tables import Base


def upsert(session: Session, table: type[Base], rows: Iterable[dict[str, Any]], keys: Sequence[str]) -> None:
    """Insert rows, all of the same columns, or update their other columns where `keys` are there already.

    One statement run for many rows: one that names them all is compiled anew each time, which takes longer than
    writing them.
    """
    values = list(rows)
    if not values:
        return
    assert isinstance(table.__table__, Table)  # noqa: S101 - for the type checker
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    statement = insert(table.__table__)
    changed = {name: statement.excluded[name] for name in values[0] if name not in keys}
    session.connection().execute(
        statement.on_conflict_do_update(index_elements=list(keys), set_=changed)
        if changed
        else statement.on_conflict_do_nothing(index_elements=list(keys)),
        values,
    )
