"""Commands as processes of their own, from their start to their end, and a server's first answer to an upload.

The data is what the load test uses: the users' 36,672 rotated tiles under six backbones, with random vectors.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.figures import Figure, Results
from benchmarks.size import Size

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "torture")]  # what it generates is measured here too

from load import Server  # noqa: E402
from load_clients import Client  # noqa: E402
from load_data import QUERY, build  # noqa: E402

BACKBONE = "like-vits16"
CHOOSING_S = 3.0  # that a reader takes to choose a file
HELP, TORCH, NUMPY_LOOKUP, FILTERED_LOOKUP = "--help", "import torch", "lookup", "lookup by filters"
_MEASURED = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([done.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""


class ProcessCost(NamedTuple):
    cpu_s: float
    memory_mib: float  # the most that was resident


def process_cost(command: Sequence[str], cwd: Path | None = None) -> ProcessCost:
    """What a command took. Raises RuntimeError where it fails.

    A small process starts it: the memory of the one that starts it would count as its own.
    """
    measured = [sys.executable, "-c", _MEASURED, *command]
    done = subprocess.run(measured, cwd=cwd, capture_output=True, text=True, check=True)
    status, cpu_s, memory_mib = json.loads(done.stdout)
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with {status}: {done.stderr.strip()}")
    return ProcessCost(cpu_s, memory_mib)


def commands(size: Size, work: Path) -> Results:
    """Processor seconds of commands in interleaved rounds, and the first search of an upload after a server's start."""
    data = work / "data"
    build(data, small=size.references < 10_000)
    command = [sys.executable, "-m", "coarseloc"]
    asked = [*command, "--data-dir", str(data), "lookup", str(data / QUERY), "--backbone", BACKBONE, "--json"]
    ways = {
        HELP: [*command, "--help"],
        TORCH: [sys.executable, "-c", "import torch"],
        NUMPY_LOOKUP: asked,
        FILTERED_LOOKUP: [*asked, "--angle", "45"],
    }
    costs: dict[str, list[ProcessCost]] = {way: [] for way in ways}
    uploads_s: dict[float, list[float]] = {0.0: [], CHOOSING_S: []}
    for _ in range(size.rounds):
        for way, line in ways.items():
            costs[way].append(process_cost(line, ROOT))
        for waited_s, seconds in uploads_s.items():
            seconds.append(first_upload_s(data, waited_s))
    figures = [
        _seconds("coarseloc --help, processor time", costs[HELP], 0.5),
        _seconds("import torch, processor time", costs[TORCH], None),
        _seconds("lookup of one picture among six backbones' references, processor time", costs[NUMPY_LOOKUP], 2.0),
        _seconds("the same with --angle 45", costs[FILTERED_LOOKUP], 2.5),
        Figure(
            "the most memory of such a lookup", "", median(cost.memory_mib for cost in costs[NUMPY_LOOKUP]), "MiB", 614,
            at_most=True,
        ),
        Figure(
            f"first upload searched in the web, {CHOOSING_S:g} s after its page was opened", "",
            median(uploads_s[CHOOSING_S]), "s", 1.5, at_most=True,
        ),
        Figure(
            "the same at once after the server's start", "", median(uploads_s[0.0]), "s", 1.5, at_most=True,
            note="collections are checked and pages compiled meanwhile",
        ),
    ]  # fmt: skip
    return Results([], figures, {"commands": costs, "first uploads": list(uploads_s.values())})


def _seconds(what: str, costs: Sequence[ProcessCost], target: float | None) -> Figure:
    times = [cost.cpu_s for cost in costs]
    return Figure(what, "", median(times), "s", target, at_most=True, note=f"minimum {min(times):.2f} s")


def first_upload_s(data: Path, waited_s: float) -> float:
    """Seconds of wall clock from a picture's sending to its hits, by a server that has answered nothing before.

    waited_s: since its page was opened, while the reader chooses a file; 0: the page is not opened.
    """
    picture = (data / QUERY).read_bytes()
    server = Server(data)
    try:
        client = Client(server.url)
        if waited_s:
            client.ask("page", "/search", accept="text/html")
            time.sleep(waited_s)
        started = time.perf_counter()
        sent = client.send(picture)
        if sent.status != 201:
            raise RuntimeError(f"the upload was answered by {sent.status}: {sent.body[:300]!r}")
        image = json.loads(sent.body)["image"]
        found = client.ask("search", f"/search.json?image={image}&model={BACKBONE}")
        took_s = time.perf_counter() - started
        client.close()
    finally:
        server.process.terminate()
        server.process.communicate()
    if found.status != 200:
        raise RuntimeError(f"the search was answered by {found.status}: {found.body[:300]!r}")
    return took_s
