"""`INSERT … ON CONFLICT DO UPDATE`, spelled once for SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from coarseloc.store.tables import Base

T = TypeVar("T")
_ROWS = 500  # keeps a statement under SQLite's limit of bound values


def upsert(session: Session, table: type[Base], rows: Iterable[dict[str, Any]], keys: Sequence[str]) -> None:
    """Insert rows, or update all their other columns where `keys` are there already."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    for some in batches(rows, _ROWS):
        statement = insert(table).values(list(some))
        changed = {name: statement.excluded[name] for name in some[0] if name not in keys}
        session.execute(
            statement.on_conflict_do_update(index_elements=list(keys), set_=changed)
            if changed
            else statement.on_conflict_do_nothing(index_elements=list(keys))
        )


def batches(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of up to `size` rows."""
    iterator = iter(rows)
    while some := list(islice(iterator, size)):
        yield some
