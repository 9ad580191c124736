"""A cluster by the addresses of several of its nodes: a call that one of them does not answer goes to the next."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import httpx
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

log = logging.getLogger(__name__)

_NOT_SERVING = (502, 503, 504)  # a node that starts or stops, or the proxy before one that is down


def addresses(url: str) -> list[str]:
    """The addresses of COARSELOC_QDRANT_URL, separated by commas."""
    return list(dict.fromkeys(part.strip() for part in url.split(",") if part.strip()))


class NodesClient:
    """A `QdrantClient` of the first node that answers; it stays with that one until it does not.

    Calls are repeated at the next node where nobody can know whether they were done: they must be idempotent, as all
    of `ServerStore` are. Raises what the last node raised where none answers.
    """

    def __init__(self, clients: Sequence[QdrantClient], names: Sequence[str]) -> None:
        self._clients, self._names = list(clients), list(names)
        self._current = 0
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            return self._call(name, *args, **kwargs)

        return call

    def unreachable(self) -> list[str]:
        """The addresses that do not answer now."""
        return [name for name, client in zip(self._names, self._clients, strict=True) if not _answers(client)]

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        started = self._current
        for step in range(len(self._clients)):
            number = (started + step) % len(self._clients)
            try:
                answer = getattr(self._clients[number], name)(*args, **kwargs)
            except (ResponseHandlingException, UnexpectedResponse) as error:
                if step + 1 == len(self._clients) or not is_out_of_reach(error):
                    raise
                following = self._names[(number + 1) % len(self._clients)]
                log.info("vector store: %s does not answer, trying %s", self._names[number], following)
                continue
            with self._lock:
                self._current = number
            return answer
        raise AssertionError("there is at least one address")


def is_out_of_reach(error: ApiException) -> bool:
    """Whether another node may answer what this one did not."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code in _NOT_SERVING
    return isinstance(error, ResponseHandlingException) and isinstance(error.source, httpx.TransportError)


def _answers(client: QdrantClient) -> bool:
    try:
        client.info()
    except ApiException as error:
        return not is_out_of_reach(error)
    return True
