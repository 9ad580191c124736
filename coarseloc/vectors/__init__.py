"""Qdrant behind one interface: embedded in this process, or a server by URL. The only package that imports it."""

from __future__ import annotations

from pathlib import Path

from coarseloc.core.config import Settings
from coarseloc.vectors.checks import short_identity
from coarseloc.vectors.protocol import VectorStore


def configured_store(settings: Settings, database: str) -> VectorStore:
    """Open the vector store that the settings name, for the database of this identity; errors as `open_store`."""
    key = settings.qdrant_api_key
    return open_store(
        settings.data_dir,
        database,
        settings.qdrant_url,
        key.get_secret_value() if key else None,
        timeout=settings.qdrant_timeout_s,
        shard_number=settings.qdrant_shard_number,
        replication_factor=settings.qdrant_replication_factor,
    )


def open_store(
    data_dir: Path,
    database: str,
    qdrant_url: str | None = None,
    api_key: str | None = None,
    *,
    timeout: float = 30.0,
    shard_number: int = 1,
    replication_factor: int = 1,
) -> VectorStore:
    """Open the collections of one database: on the server where a URL is given, else in `data_dir/vectors`.

    `database` is the database's identity: collections of another are not seen, so never read or dropped. `timeout`
    (seconds), `shard_number` and `replication_factor` are the server's.

    Raises LockedError where another process has the embedded store open, VectorStoreUnavailable where the server
    does not answer.
    """
    if qdrant_url:
        from coarseloc.vectors.server import ServerStore

        return ServerStore(qdrant_url, database, api_key, timeout, shard_number, replication_factor)

    from coarseloc.vectors.edge import EdgeStore

    return EdgeStore(Path(data_dir) / "vectors" / short_identity(database))
