"""Real Qdrant servers for tests: the one that COARSELOC_TEST_QDRANT_URL names, or processes of the binary that
COARSELOC_TEST_QDRANT_BIN names, one or a cluster of several, which may be killed."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import httpx

URL, BINARY = os.environ.get("COARSELOC_TEST_QDRANT_URL"), os.environ.get("COARSELOC_TEST_QDRANT_BIN")
HAS_SERVER = bool(URL or BINARY)
START_S = 60.0


@cache
def server_url() -> str:
    """The server of this run: the one that is named, else one of the binary that ends with this process."""
    if URL:
        return URL
    node = QdrantNode([str(BINARY)], Path(tempfile.mkdtemp(prefix="qdrant-")))
    atexit.register(node.kill)
    node.start()
    return node.url


class QdrantNode:
    """One process of Qdrant on ports of its own, with its files in a folder of its own."""

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        first: QdrantNode | None = None,
        *,
        in_cluster: bool = False,
        api_key: str | None = None,
    ) -> None:
        """command: the binary. first: the node of a cluster that this one joins."""
        self.folder, self._first, self._in_cluster = folder, first, in_cluster
        self.port, self._grpc_port, self._peer_port = (_free_port() for _ in range(3))
        self.url, self.peer_url = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self._peer_port}"
        self._command, self._api_key = list(command), api_key
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, again where it was killed, and wait until it is ready. RuntimeError with its output where not."""
        self.folder.mkdir(parents=True, exist_ok=True)
        log = (self.folder / "output.log").open("ab")
        self._process = subprocess.Popen(
            [*self._command, *self._arguments()], cwd=self.folder, env=os.environ | self._environment(),
            stdout=log, stderr=log, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + START_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                output = (self.folder / "output.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self._command[0]} did not come up on {self.url}:\n{output}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def peers(self) -> int:
        """How many nodes it knows of in its cluster."""
        return len(httpx.get(f"{self.url}/cluster", timeout=5).json()["result"]["peers"])

    def _arguments(self) -> list[str]:
        if not self._in_cluster:
            return []
        joined = ["--bootstrap", self._first.peer_url] if self._first else []
        return ["--uri", self.peer_url, *joined]

    def _environment(self) -> dict[str, str]:
        values = {
            "SERVICE__HOST": "127.0.0.1",
            "SERVICE__HTTP_PORT": self.port,
            "SERVICE__GRPC_PORT": self._grpc_port,
            "STORAGE__STORAGE_PATH": self.folder / "storage",
            "STORAGE__SNAPSHOTS_PATH": self.folder / "snapshots",
            "TELEMETRY_DISABLED": "true",
            "CLUSTER__ENABLED": str(self._in_cluster).lower(),
            "CLUSTER__P2P__PORT": self._peer_port,
        }
        if self._api_key is not None:
            values["SERVICE__API_KEY"] = self._api_key
        return {f"QDRANT__{name}": str(value) for name, value in values.items()}

    def _is_ready(self) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/readyz", timeout=2).status_code == 200
        return False


@contextmanager
def cluster(folder: Path, count: int = 3) -> Iterator[list[QdrantNode]]:
    """Nodes of one cluster, all of which know each other."""
    first = QdrantNode([str(BINARY)], folder / "node-1", in_cluster=True)
    nodes = [first]
    try:
        first.start()
        for number in range(2, count + 1):
            nodes.append(QdrantNode([str(BINARY)], folder / f"node-{number}", first, in_cluster=True))
            nodes[-1].start()
        deadline = time.monotonic() + START_S
        while any(node.peers() < count for node in nodes):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the nodes do not know each other: {[node.peers() for node in nodes]}")
            time.sleep(0.1)
        yield nodes
    finally:
        for node in nodes:
            node.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
