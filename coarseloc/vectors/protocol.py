"""What a vector store is asked: the interface of the embedded one and of a server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from coarseloc.core.filters import Where
from coarseloc.core.types import Float32, Point, ScoredPoint


class VectorStore(Protocol):
    """Qdrant, embedded or a server. Derived from SQL: it can be thrown away and rebuilt."""

    backend: str  # "qdrant-edge", "qdrant-server", "qdrant-local"
    location: str  # folder or URL, for messages

    def collections(self) -> list[str]: ...

    def has(self, collection: str) -> bool:
        """Whether the collection is there and sound; no other one is looked at."""
        ...

    def ensure(self, collection: str, dim: int) -> None:
        """Create the collection with its payload indexes; raise VectorStoreError if it exists with another dim."""
        ...

    def upsert(self, collection: str, points: Sequence[Point]) -> None:
        """All or nothing visible to a validated batch: dimension, finiteness and unique ids are checked first."""
        ...

    def delete(self, collection: str, point_ids: Sequence[str]) -> None: ...

    def flush(self, collection: str) -> None:
        """Return when everything written so far survives a power cut."""
        ...

    def query(self, collection: str, vector: Float32, k: int, where: Where = ...) -> list[ScoredPoint]:
        """The k best by dot product among those that match, exact, best first."""
        ...

    def count(self, collection: str, where: Where = ...) -> int: ...

    def ids(self, collection: str) -> Iterator[str]: ...

    def vectors(self, collection: str, point_ids: Sequence[str]) -> dict[str, Float32]: ...

    def drop(self, collection: str) -> None: ...

    def drop_all(self) -> None:
        """Drop every collection of this database; none is opened."""
        ...

    def close(self) -> None: ...
