"""A Qdrant server's errors: which are transient and tried again, and what the user is told."""

from __future__ import annotations

import json
import logging
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from coarseloc.core.errors import VectorStoreError, VectorStoreUnavailable

log = logging.getLogger(__name__)


# What a node says that answers while others of its cluster do not.
_CLUSTER = re.compile(r"\b(replica|peer|consensus)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to go on trying. Before try n (from 2) it waits between half and all of
    `first_s * 2**(n-2)`, at most `longest_s`; a server's own Retry-After counts where it is longer."""

    tries: int = 5
    first_s: float = 0.5
    longest_s: float = 30.0

    def wait_s(self, failures: int, retry_after_s: float = 0.0) -> float:
        wait = min(self.first_s * 2.0 ** (failures - 1), self.longest_s)
        jittered = wait * random.uniform(0.5, 1.0)  # noqa: S311 - spreads clients out, guards nothing
        return max(jittered, min(retry_after_s, self.longest_s))


DEFAULT_BACKOFF = Backoff()


def retrying(backoff: Backoff = DEFAULT_BACKOFF) -> Retrying:
    """Repeat calls on a refused or broken connection, a timeout, 429 and 5xx; anything else is raised at
    once. They must be idempotent: after a timeout nobody knows whether it was done."""

    def wait_s(attempt: RetryCallState) -> float:
        error = _error_of(attempt)
        retry_after_s = float(error.retry_after_s) if isinstance(error, ResourceExhaustedResponse) else 0.0
        return backoff.wait_s(attempt.attempt_number, retry_after_s)

    def log_attempt(attempt: RetryCallState) -> None:
        number, wait = attempt.attempt_number + 1, attempt.upcoming_sleep
        log.info("vector store: %s; try %d of %d in %.1f s", describe(_error_of(attempt)), number, backoff.tries, wait)

    return Retrying(
        stop=stop_after_attempt(backoff.tries),
        wait=wait_s,
        retry=retry_if_exception(is_transient),
        before_sleep=log_attempt,
        reraise=True,
    )


def _error_of(attempt: RetryCallState) -> BaseException | None:
    return attempt.outcome.exception() if attempt.outcome else None


def is_transient(error: BaseException) -> bool:
    """Test whether the same call may succeed a little later."""
    if isinstance(error, ResponseHandlingException):
        return isinstance(error.source, httpx.TransportError)
    if isinstance(error, UnexpectedResponse):
        return error.status_code == 429 or (error.status_code or 0) >= 500
    return isinstance(error, QdrantException)  # 429 with Retry-After, or with one that the client cannot read


@contextmanager
def clear_errors(location: str, doing: str) -> Iterator[None]:
    """Turn what the client raises into VectorStoreUnavailable or VectorStoreError with the URL in it."""
    try:
        yield
    except (ApiException, QdrantException, json.JSONDecodeError) as error:
        if is_transient(error):
            remedy = (
                "Start the nodes of the cluster that are down"
                if _CLUSTER.search(describe(error))
                else "Start it, or correct COARSELOC_QDRANT_URL; unset it to use the embedded store"
            )
            raise VectorStoreUnavailable(
                f"the Qdrant server at {location} is not available ({doing}: {describe(error)}). {remedy}. Exact "
                "search works without."
            ) from error
        raise VectorStoreError(
            f"Qdrant at {location} did not do as asked ({doing}: {describe(error)}). {_advice(error)}"
        ) from error
    except (ValueError, RuntimeError, httpx.InvalidURL) as error:  # local mode raises the first two plainly
        raise VectorStoreError(f"{doing} at {location}: {error}") from error


def describe(error: BaseException | None) -> str:
    """Describe an error in a few words."""
    if _is_foreign(error):
        return "an answer that is not a Qdrant server's"
    if isinstance(error, ResponseHandlingException):
        if isinstance(error.source, httpx.TimeoutException):
            return "no answer in time"
        return str(error.source) or type(error.source).__name__
    if isinstance(error, UnexpectedResponse):
        return f"status {error.status_code}, {_server_message(error)}"
    return f"status 429, {error}"


def _is_foreign(error: BaseException | None) -> bool:
    if isinstance(error, ResponseHandlingException):
        return not isinstance(error.source, httpx.HTTPError)  # the client could not make sense of the body
    return isinstance(error, json.JSONDecodeError)


def _server_message(error: UnexpectedResponse) -> str:
    try:
        return str(error.structured()["status"]["error"])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        return error.reason_phrase or "no reason given"


def _advice(error: Exception) -> str:
    if _is_foreign(error):
        return "Correct COARSELOC_QDRANT_URL: something else answers there."
    status = error.status_code if isinstance(error, UnexpectedResponse) else None
    if status in (401, 403):
        return "Correct COARSELOC_QDRANT_API_KEY."
    if status == 404:
        return "Run `coarseloc rebuild` to write the collection from the database."
    return "Its log says more."
