"""A Qdrant server or cluster through qdrant-client, and the client's local mode for the contract tests."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, cast

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from coarseloc.core.errors import VectorStoreError, without_passwords
from coarseloc.core.filters import ALL_TILES, Where
from coarseloc.core.types import Float32, Point, ScoredPoint
from coarseloc.vectors.checks import check_batch, check_name, check_query, short_identity
from coarseloc.vectors.failover import NodesClient, addresses
from coarseloc.vectors.payload import INDEXES, client_filter, payload
from coarseloc.vectors.server_errors import DEFAULT_BACKOFF, Backoff, clear_errors, retrying

log = logging.getLogger(__name__)

_PAGE = 1_000
_PREFIX = "coarseloc-"  # a server may hold other people's collections, which are never touched


class ServerStore:
    """A VectorStore on a server or a cluster, safe for threads and for several processes.

    url: of one node, or of several with commas between them, of which the first that answers is asked. Opening pings
    the server: VectorStoreUnavailable where it does not answer. Upserts and deletes are idempotent and tried again
    where the trouble may pass; searches are not, so that their user is told at once.
    """

    backend = "qdrant-server"
    _indexed: ClassVar[bool] = True
    _exact: ClassVar[models.SearchParams | None] = models.SearchParams(exact=True)

    def __init__(
        self,
        url: str,
        database: str,
        api_key: str | None = None,
        timeout: float = 30.0,
        shard_number: int = 1,
        replication_factor: int = 1,
        backoff: Backoff = DEFAULT_BACKOFF,
    ) -> None:
        urls = addresses(url) or [url]
        self.location = ", ".join(map(without_passwords, urls))
        self._prefix = f"{_PREFIX}{short_identity(database)}-"
        self._shard_number = shard_number
        self._replication_factor = replication_factor
        self._retrying = retrying(backoff)
        self._dims: dict[str, int] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "insecure connection": normal inside a compose network
            try:
                clients = [self._connect(address, api_key, timeout) for address in urls]
            except ValueError as error:
                raise VectorStoreError(
                    f"COARSELOC_QDRANT_URL is {url!r}: {error}. Give http(s)://host:port, of several nodes with commas "
                    "between them"
                ) from None
        self._nodes = NodesClient(clients, list(map(without_passwords, urls)))
        self._client = cast(QdrantClient, self._nodes)
        self.version = self._ping()

    def _connect(self, url: str, api_key: str | None, timeout: float) -> QdrantClient:
        # the client counts whole seconds, and asks for the version in a thread that prints warnings
        return QdrantClient(url=url, api_key=api_key, timeout=max(1, round(timeout)), check_compatibility=False)

    def _ping(self) -> str:
        with clear_errors(self.location, "opening it"):
            return self._client.info().version

    def unreachable(self) -> list[str]:
        """The addresses among several that do not answer now."""
        return self._nodes.unreachable()

    def __enter__(self) -> ServerStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _name(self, collection: str) -> str:
        """Name a collection as the server knows it."""
        return self._prefix + check_name(collection)

    def collections(self) -> list[str]:
        """List this database's collections; others on the same server are left out."""
        with clear_errors(self.location, "listing collections"):
            names = [description.name for description in self._client.get_collections().collections]
        return sorted(name.removeprefix(self._prefix) for name in names if name.startswith(self._prefix))

    def has(self, collection: str) -> bool:
        with clear_errors(self.location, f"looking for {collection}"):
            return bool(self._client.collection_exists(self._name(collection)))

    def ensure(self, collection: str, dim: int) -> None:
        """Create the collection with its payload indexes where it lacks; VectorStoreError if its dim is another."""
        name = self._name(collection)
        with clear_errors(self.location, f"creating {collection}"):
            if not self._client.collection_exists(name):
                self._create(name, dim)
            info = self._client.get_collection(name)
            if self._indexed:
                for field in INDEXES.keys() - (info.payload_schema or {}).keys():
                    self._client.create_payload_index(name, field, models.PayloadSchemaType(INDEXES[field]), wait=True)
        self._dims[collection] = _dim(info)
        if self._dims[collection] != dim:
            raise VectorStoreError(
                f"collection {collection} on {self.location} holds vectors of {self._dims[collection]} values, not "
                f"{dim}: it belongs to another backbone. Use EmbeddingSpec.collection for the name, or drop it first."
            )

    def _create(self, name: str, dim: int) -> None:
        try:
            self._client.create_collection(
                name,
                vectors_config=models.VectorParams(size=dim, distance=models.Distance.DOT),
                hnsw_config=models.HnswConfigDiff(m=0),  # no graph: searches are exact
                shard_number=self._shard_number,
                replication_factor=self._replication_factor,
            )
        except UnexpectedResponse as error:
            if error.status_code != 409:  # another process made it in this very moment
                raise

    def upsert(self, collection: str, points: Sequence[Point]) -> None:
        """Write a batch, replacing points of the same id. The batch is checked first and refused whole."""
        vectors = check_batch(points, self._dim(collection), collection)
        if not points:
            return
        rows = [
            models.PointStruct(id=point.id, vector=vector, payload=payload(point.facts))
            for point, vector in zip(points, vectors.tolist(), strict=True)
        ]
        with clear_errors(self.location, f"writing to {collection}"):
            self._retrying(self._client.upsert, self._name(collection), rows, wait=True)

    def delete(self, collection: str, point_ids: Sequence[str]) -> None:
        """Delete points; ids that are not there are no error."""
        if not point_ids:
            return
        chosen = models.PointIdsList(points=list(point_ids))
        with clear_errors(self.location, f"deleting from {collection}"):
            self._retrying(self._client.delete, self._name(collection), chosen, wait=True)

    def flush(self, collection: str) -> None:
        """Do nothing: every write has waited until the server applied it and had it in its log. How that log
        survives a power cut there is the server's setting; `reconcile` finds what is missing."""

    def query(self, collection: str, vector: Float32, k: int, where: Where = ALL_TILES) -> list[ScoredPoint]:
        """The k best by dot product among those that match, exact, best first; equal scores by id.

        Where more points share the k-th score than there is room for, which of them come is the server's choice.
        """
        query = check_query(vector, k, self._dim(collection), collection)
        with clear_errors(self.location, f"searching {collection}"):
            response = self._client.query_points(
                self._name(collection),
                query=query.tolist(),
                limit=k,
                query_filter=client_filter(where),
                search_params=self._exact,
                with_payload=False,
            )
        hits = [ScoredPoint(str(point.id), point.score) for point in response.points]
        return sorted(hits, key=lambda hit: (-hit.score, hit.id))

    def count(self, collection: str, where: Where = ALL_TILES) -> int:
        with clear_errors(self.location, f"counting {collection}"):
            return self._client.count(self._name(collection), client_filter(where), exact=True).count

    def ids(self, collection: str) -> Iterator[str]:
        offset: Any = None
        while True:
            with clear_errors(self.location, f"listing {collection}"):
                page, offset = self._client.scroll(
                    self._name(collection), offset=offset, limit=_PAGE, with_payload=False, with_vectors=False
                )
            yield from (str(record.id) for record in page)
            if offset is None:
                return

    def vectors(self, collection: str, point_ids: Sequence[str]) -> dict[str, Float32]:
        """Read {id: vector float32 [D]}; missing ids are left out."""
        with clear_errors(self.location, f"reading {collection}"):
            records = self._client.retrieve(
                self._name(collection), list(point_ids), with_payload=False, with_vectors=True
            )
        return {str(record.id): np.asarray(record.vector, np.float32) for record in records}

    def drop(self, collection: str) -> None:
        """Delete the collection; one that is not there is no error."""
        self._dims.pop(collection, None)
        with clear_errors(self.location, f"dropping {collection}"):
            self._client.delete_collection(self._name(collection))

    def drop_all(self) -> None:
        """Delete every collection of this database."""
        for collection in self.collections():
            self.drop(collection)

    def close(self) -> None:
        self._client.close()

    def _dim(self, collection: str) -> int:
        if collection not in self._dims:
            with clear_errors(self.location, f"looking at {collection}"):
                self._dims[collection] = _dim(self._client.get_collection(self._name(collection)))
        return self._dims[collection]


class LocalStore(ServerStore):
    """The same on qdrant-client's local mode, a folder or `:memory:`. For the contract tests only: it searches
    hundreds of times slower than Edge."""

    backend = "qdrant-local"
    _indexed: ClassVar[bool] = False  # it has none,
    _exact: ClassVar[models.SearchParams | None] = None  # and is always exact

    def __init__(self, path: str = ":memory:", database: str = "local") -> None:
        super().__init__(path, database)

    def _connect(self, url: str, api_key: str | None, timeout: float) -> QdrantClient:
        return QdrantClient(":memory:") if url == ":memory:" else QdrantClient(path=url)

    def _ping(self) -> str:
        return "local"


def apart(server: str, client: str) -> bool:
    """Whether two versions of Qdrant are more than one minor version apart: further ones are not tested together."""
    try:
        (major, minor), (other, other_minor) = (map(int, text.split(".")[:2]) for text in (server, client))
    except ValueError:
        return False
    return major != other or abs(minor - other_minor) > 1


def _dim(info: models.CollectionInfo) -> int:
    params = info.config.params.vectors
    if not isinstance(params, models.VectorParams) or params.distance != models.Distance.DOT:
        raise VectorStoreError(
            "the collection was not made by coarseloc (it has named vectors or another distance than Dot): "
            "rename it on the server"
        )
    return params.size
