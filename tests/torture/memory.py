"""What a server holds under hostile uploads and heavy requests: `python tests/torture/memory.py`.

A real `coarseloc serve` over a small gallery. Six clients send 500 pictures made to be expensive (49 million pixels in
50 kB, headers that promise more, damaged, cut short) to the search and to `POST /localize`, then ask 2,000 heavy things
(renditions, exports, the gallery, comparisons, searches). Its memory at rest is flat from the second fifth of each to
the last, its peak without mapped files below 1 GiB, and no answer is a 5xx. Where control groups may be made, the
system ends it where it asks for more. Exit code 1 where something did not hold.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import re
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from urllib.parse import quote

import load_clients
import numpy as np
from load import GROWTH, GROWTH_MIB, Server
from load_clients import Client, Target, another, explore, warm
from PIL import Image

CLIENTS, PARTS, SETTLE_S = 6, 5, 2.0
PEAK_MIB = 1024.0
GROUPS = Path("/sys/fs/cgroup")
SIDE = 7000  # 49 million pixels, below the server's limit
ALLOWED = {200, 201, 400, 413, 415, 429}


def picture(mode: str, form: str, side: int, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (side, side)).save(buffer, form, **options)
    return buffer.getvalue()


def promising(width: int, height: int) -> bytes:
    """A PNG whose header says so many pixels, and which has none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def told_text() -> bytes:
    """A small PNG with a comment of a gigabyte, packed."""
    small = picture("RGB", "PNG", 8)
    packed = b"comment\0\0" + zlib.compress(bytes(200_000_000), 9)
    chunk = struct.pack(">I", len(packed)) + b"zTXt" + packed + struct.pack(">I", zlib.crc32(b"zTXt" + packed))
    return small[:33] + chunk + small[33:]


HOSTILE: dict[str, Callable[[], bytes]] = {
    "palette": lambda: picture("P", "PNG", SIDE),
    "see-through palette": lambda: picture("P", "PNG", SIDE, transparency=0),
    "one bit": lambda: picture("1", "PNG", SIDE),
    "with alpha": lambda: picture("RGBA", "PNG", SIDE),
    "sixteen bits": lambda: picture("I;16", "PNG", SIDE),
    "cmyk": lambda: picture("CMYK", "JPEG", 5000),
    "progressive": lambda: picture("RGB", "JPEG", SIDE, progressive=True),
    "webp": lambda: picture("RGBA", "WEBP", 4000, lossless=True),
    "a little too large": lambda: picture("P", "PNG", 7750),
    "promises": lambda: promising(100_000, 100_000),
    "promises less": lambda: promising(7_000, 7_000),
    "comment": told_text,
    "cut short": lambda: picture("RGB", "JPEG", 4000)[:-5000],
    "noise": lambda: np.random.default_rng(0).bytes(200_000),
    "empty": lambda: b"",
}


@cache
def hostile(name: str) -> bytes:
    return HOSTILE[name]()


def peak_mib(server: Server) -> float:
    """The most that was ever in RAM, but for mapped files (libraries, mirrors), which a limit on memory lets go."""
    status = Path(f"/proc/{server.process.pid}/status").read_text(encoding="ascii")
    kib = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB$", status, re.M)}
    return (kib["VmHWM"] - kib["RssFile"]) / 1024


@contextmanager
def confined(pid: int) -> Iterator[bool]:
    """Confine a process to `PEAK_MIB` where control groups may be made here: the system ends it where it asks for more.
    Yields whether it could be. To be closed after the process."""
    name = f"coarseloc-{pid}"
    files = [(GROUPS / "memory" / name, "memory.limit_in_bytes")]
    if (GROUPS / "cgroup.controllers").exists():
        files.append((GROUPS / name, "memory.max"))
    with ExitStack() as stack:
        is_confined = False
        for folder, limit in files:
            with suppress(OSError):
                folder.mkdir()
                stack.enter_context(suppress(OSError))
                stack.callback(folder.rmdir)
                (folder / limit).write_text(str(int(PEAK_MIB * 2**20)))
                (folder / "cgroup.procs").write_text(str(pid))
                is_confined = True
                break
        yield is_confined


def send_hostile(target: Target, number: int, rng: random.Random) -> int:
    """Send one picture, made unlike every other of its kind; returns the answer's status."""
    name = list(HOSTILE)[number % len(HOSTILE)]
    body = another(hostile(name), f"{number}") if hostile(name) else b""
    client = Client(target.url)
    try:
        if number % 2:
            return client.send(body).status
        client._connection.request("POST", f"/localize?model={quote(rng.choice(target.models))}", body)
        return client.end("localize", 0.0).status
    except OSError:  # nobody takes it
        return 0
    finally:
        client.close()


def ask_heavy(target: Target, number: int, rng: random.Random) -> int:
    """Ask for one of the things that cost most."""
    client = Client(target.url)
    flight = rng.choice([page for page in target.pages if re.fullmatch(r"/flights/[^/]+", page)])
    picture_url = rng.choice(target.pictures)
    size = rng.choice(["view", "full"])
    kinds = [
        lambda: client.ask("export", f"{flight}/export.{rng.choice(['json', 'csv', 'geojson', 'kml'])}"),
        lambda: client.ask("gallery", f"/gallery.json?sort={rng.choice(['error', 'score'])}"),
        lambda: client.ask("page", rng.choice(target.pages), accept="text/html"),
        lambda: client.ask("twin", rng.choice(target.twins)),
        lambda: client.ask("picture", f"{picture_url}{'&' if '?' in picture_url else '?'}size={size}"),
        lambda: client.send(another(target.query, f"{number}")),
    ]
    try:
        return kinds[number % len(kinds)]().status
    finally:
        client.close()


def in_parts(
    server: Server, target: Target, count: int, act: Callable[[Target, int, random.Random], int], seed: int
) -> tuple[list[float], Counter[int], float]:
    """Do something so often in equal parts; returns (MiB at rest after each, answers by status, seconds)."""
    at_rest, statuses, started = [], Counter[int](), time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        for part in range(PARTS):
            numbers = range(part * count // PARTS, (part + 1) * count // PARTS)
            answers = pool.map(lambda number: act(target, number, random.Random(f"{seed}/{number}")), numbers)
            statuses.update(answers)
            if (code := server.process.poll()) is not None:
                raise SystemExit(f"BROKEN  the server ended with {code} (-9: for memory) after {dict(statuses)}")
            time.sleep(SETTLE_S)
            at_rest.append(server.memory().anonymous)
    return at_rest, statuses, time.monotonic() - started


def is_flat(at_rest: Sequence[float]) -> bool:
    """Whether the last is what the second was: in the first part models and caches are filled."""
    return at_rest[-1] <= at_rest[1] * GROWTH + GROWTH_MIB


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uploads", type=int, default=500)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    import load_data

    load_clients.TIMEOUT_S = 300.0  # large pictures wait for each other, on a busy machine for minutes
    held = True
    with tempfile.TemporaryDirectory(prefix="coarseloc-memory-") as temporary:
        folder = Path(temporary)
        load_data.build(folder, True)
        server = Server(folder)
        group = ExitStack()
        try:
            target = explore(server.url, folder / load_data.QUERY)
            warm(target)
            is_confined = group.enter_context(confined(server.process.pid))
            print(
                f"at rest {server.memory().anonymous:.0f} MiB, load {os.getloadavg()[0]:.1f}, "
                f"{'' if is_confined else 'not '}confined to {PEAK_MIB:.0f} MiB by the system", flush=True,
            )  # fmt: skip
            for what, count, act in (
                ("hostile uploads", asked.uploads, send_hostile), ("heavy requests", asked.requests, ask_heavy)
            ):  # fmt: skip
                at_rest, statuses, seconds = in_parts(server, target, count, act, asked.seed)
                peak = peak_mib(server)
                checks = {
                    "flat": is_flat(at_rest),
                    f"peak below {PEAK_MIB:.0f} MiB": peak <= PEAK_MIB,
                    "no answer of 5xx, none left out": set(statuses) <= ALLOWED,
                    "no traceback in the log": "Traceback" not in server.log,
                }
                print(
                    f"{count} {what} in {seconds:.0f} s: at rest {', '.join(f'{mib:.0f}' for mib in at_rest)} MiB, "
                    f"peak so far {peak:.0f} MiB; by status {dict(sorted(statuses.items()))}"
                )
                for check, is_held in checks.items():
                    held &= is_held
                    print(f"{'held  ' if is_held else 'BROKEN'}  {what}: {check}", flush=True)
        finally:
            server.process.kill()
            server.process.wait()
            group.close()
            if not held:
                print(server.log[-3000:])
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
