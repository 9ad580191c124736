"""A server under load: `python tests/torture/load.py --seconds 60`.

A real `coarseloc serve` over generated data of the users' size, made at the first run and kept in `--data`. Clients in
processes of their own ask for pages, JSON, pictures, searches by upload and filtered look-ups, each as fast as it is
answered; then a burst fills the queue, and SIGTERM comes in the middle of work. Exit code 1 where something did not
hold.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import load_clients
from load_clients import Answer, Client, Target, another

BURST = 24  # more than the server has threads, and they more than its queue takes
GROWTH, GROWTH_MIB = 1.05, 24.0  # what memory may come to between the first third and the last
END_S = 60.0
MIB = 2**20


@dataclass(frozen=True)
class Check:
    what: str
    held: bool
    found: str


class Memory(NamedTuple):
    """Of one moment, in MiB: in RAM, and of that what is no file's (mirrors are mapped files)."""

    resident: float
    anonymous: float


class Server:
    """A running `coarseloc serve`."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "server.log"
        command = [sys.executable, "-c", "from coarseloc.cli import main; main()", "--data-dir", str(folder)]
        self.process = subprocess.Popen(
            [*command, "serve", "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=self._log.open("w"),
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if "http://" in line:
                self.url = line[line.index("http://") :].strip()
                return
        raise SystemExit(f"the server did not start:\n{self.log}")

    @property
    def log(self) -> str:
        return self._log.read_text()

    def memory(self) -> Memory:
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        kib = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB$", status, re.M)}
        return Memory(kib["VmRSS"] / 1024, kib["RssAnon"] / 1024)


@contextmanager
def sampled(server: Server) -> Iterator[list[Memory]]:
    """Memory, four times a second."""
    found: list[Memory] = []
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.25):
            found.append(server.memory())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """The server does nothing meanwhile; what is sent waits for it in the kernel."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


# --- what is tried --------------------------------------------------------------------------------


def mixed(server: Server, target: Target, clients: int, seconds: float, seed: int) -> tuple[list[Answer], list[Check]]:
    """Clients for so long, after as many seconds as a fifth of that, which do not count."""
    with ProcessPoolExecutor(clients, mp_context=get_context("spawn")) as pool:
        for part, lasting in ("warm-up", seconds / 5), ("load", seconds):
            with sampled(server) as memory:
                runs = [pool.submit(load_clients.run, target, f"{part} {n}", seed, lasting) for n in range(clients)]
                answers = [answer for run in runs for answer in run.result()]
    statuses = Counter(answer.status for answer in answers)
    allowed = {200, 201, 429}
    third = max(1, len(memory) // 3)
    first, last = (statistics.median(m.anonymous for m in part) for part in (memory[:third], memory[-third:]))
    peak = max(m.resident for m in memory)
    return answers, [
        Check(
            "no answer of 5xx, none left out", set(statuses) <= allowed, f"by status: {dict(sorted(statuses.items()))}"
        ),
        Check(
            "memory does not grow",
            last <= first * GROWTH + GROWTH_MIB,
            f"{first:.0f} MiB in the first third, {last:.0f} in the last; with mapped files {peak:.0f} at most",
        ),
        Check("no traceback in the log", "Traceback" not in server.log, _last_lines(server.log)),
    ]


def burst(server: Server, target: Target, seed: int) -> list[Check]:
    """More searches at once than the queue takes: some are answered, the others are told when to come back."""
    images = [_sent(target, f"{seed}/burst/{n}") for n in range(BURST)]
    clients = [Client(target.url) for _ in images]
    started = time.perf_counter()
    with stopped(server):  # however slowly this process sends them, they are there at once
        for client, image in zip(clients, images, strict=True):
            client.begin(f"/search.json?image={image}&model={target.models[0]}")
    with ThreadPoolExecutor(BURST) as pool:
        answers = list(pool.map(lambda client: client.end("burst", started), clients))
    statuses = Counter(answer.status for answer in answers)
    refused = [answer for answer in answers if answer.status == 429]
    after = Client(target.url).ask("after", f"/search.json?image={images[0]}&model={target.models[0]}")
    slowest = max(answer.ms for answer in answers)
    return [
        Check(
            "a full queue answers 429, and no other failure",
            set(statuses) == {200, 429},
            f"by status: {dict(statuses)}",
        ),
        Check(
            "429 says when to come back",
            all((answer.retry_after or "").isdigit() and int(answer.retry_after or 0) > 0 for answer in refused),
            f"Retry-After: {sorted({str(answer.retry_after) for answer in refused})}",
        ),
        Check("a burst does not hang", slowest < 1e3 * END_S / 2, f"the last answer came after {slowest:.0f} ms"),
        Check("after it all is as before", after.status == 200, f"status {after.status}"),
    ]


def terminate(server: Server, target: Target, seed: int) -> list[Check]:
    """SIGTERM with more under way than there are threads: all are answered in full, and the exit code is 0."""
    flight = next(page for page in target.pages if page.startswith("/flights/"))
    images = [_sent(target, f"{seed}/end/{n}") for n in range(4)]  # as many as are embedded or may wait for it
    asked = [f"/search.json?image={image}&model={target.models[0]}" for image in images]
    asked += [f"{flight}.json"] * 16
    clients = [Client(target.url) for _ in range(len(asked) + 1)]
    clients[0].begin(f"{flight}/export.json")  # written while it is sent
    for client in clients[1:]:
        client.ask("open", "/healthz")
    with stopped(server):
        for client, path in zip(clients[1:], asked, strict=True):
            client.begin(path)
        server.process.send_signal(signal.SIGTERM)
    started, signalled = time.perf_counter(), time.monotonic()
    with ThreadPoolExecutor(len(clients)) as pool:
        answers = list(pool.map(lambda client: client.end("end", started), clients))
    try:
        code: int | None = server.process.wait(END_S)
    except subprocess.TimeoutExpired:
        server.process.kill()
        code = None
    took = time.monotonic() - signalled
    whole = sum(answer.status == 200 and _is_json(answer.body) for answer in answers)
    after = sum(answer.last for answer in answers[1:])
    refused = Client(target.url).ask("late", "/healthz").status
    return [
        Check(
            "SIGTERM: what is held is finished",
            whole == len(answers) and after > 0,
            f"{whole} of {len(answers)} answered in full, {after} of them as the last of their connections",
        ),
        Check("SIGTERM: exit code 0", code == 0, f"code {code} after {took:.1f} s"),
        Check("nobody listens afterwards", refused == 0, f"status {refused}"),
    ]


def _sent(target: Target, mark: str) -> str:
    """The id of an image that was taken in."""
    image: str = json.loads(Client(target.url).send(another(target.query, mark)).body)["image"]
    return image


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


def _last_lines(log: str) -> str:
    return " / ".join(log.strip().splitlines()[-3:]) or "nothing in it"


# --- what is told ---------------------------------------------------------------------------------


def times(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """By kind: how many, how many of them 429, and milliseconds at the client."""
    rows = []
    for kind in sorted({answer.kind for answer in answers}):
        some = [answer for answer in answers if answer.kind == kind]
        ms = sorted(answer.ms for answer in some)
        at = {f"p{p}_ms": round(ms[min(len(ms) - 1, len(ms) * p // 100)], 1) for p in (50, 95, 99)}
        refused = sum(answer.status == 429 for answer in some)
        rows.append({"kind": kind, "n": len(some), "429": refused, **at, "most_ms": round(ms[-1], 1)})
    return rows


def show(facts: dict[str, Any]) -> None:
    print(
        f"{facts['rotated_tiles']:,} rotated tiles x {facts['backbones']} backbones, {facts['clients']} clients, "
        f"{facts['seconds']:g} s, {facts['per_second']:.0f} answers/s, {os.cpu_count()} cores, load {facts['load']}"
    )
    if facts["build_s"]:
        print(f"data made in {facts['build_s']:.0f} s")
    columns = list(facts["times"][0])
    print("\n" + "".join(f"{name.replace('_', ' '):>10}" for name in columns))
    for row in facts["times"]:
        print("".join(f"{value:>10}" for value in row.values()))
    print()
    for check in facts["checks"]:
        print(f"{'held  ' if check['held'] else 'BROKEN'}  {check['what']}: {check['found']}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=4, help="processes, each asking one thing at a time")
    parser.add_argument("--data", type=Path, help="made where it is not there; load-data by default: 3 GB")
    parser.add_argument("--small", action="store_true", help="96 rotated tiles; in a temporary folder by default")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", dest="as_json")
    asked = parser.parse_args()
    import load_data  # brings torch along, which clients' processes do not need

    with tempfile.TemporaryDirectory(prefix="coarseloc-load-") as temporary:
        folder = asked.data or Path(temporary if asked.small else "load-data")
        built = load_data.build(folder, asked.small)
        server = Server(folder)
        try:
            target = load_clients.explore(server.url, folder / load_data.QUERY)
            load_clients.warm(target)
            answers, checks = mixed(server, target, asked.clients, asked.seconds, asked.seed)
            checks += burst(server, target, asked.seed)
            checks += terminate(server, target, asked.seed)
        finally:
            server.process.kill()
            server.process.wait()
        facts = {
            **json.loads((folder / load_data.BUILT).read_text()),
            **{"clients": asked.clients, "seconds": asked.seconds, "seed": asked.seed},
            "load": round(os.getloadavg()[0], 1),
            "build_s": round(built, 1),
            "per_second": round(len(answers) / asked.seconds, 1),
            "times": times(answers),
            "checks": [asdict(check) for check in checks],
        }
    if asked.as_json:
        print(json.dumps(facts, indent=2))
    else:
        show(facts)
    return 0 if all(check.held for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
