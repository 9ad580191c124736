"""One bit flipped in a file of the data folder, again and again: `python tests/torture/flips.py --trials 500 --seed 1`.

After each flip forked children look an image up, export and evaluate a flight and search it again. Each answer is the
one from before, or exit code 2 with a line that says what to do: never another answer, a hang, or the end of a process
by a signal. `doctor --deep` then ends with 0 or 2.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "COARSELOC_INPUT_PX": "32"}

import numpy as np
from PIL import Image

from coarseloc import cli
from coarseloc.core import geo
from coarseloc.core.types import LonLat

GIVE_UP_S = 120
STAMP, FLIGHT = "251210182149", "251124155712"
LOCKS = (".lock", "ingest.lock")


class Failed(Exception):
    """An answer was another one, a process hung or died."""


class World:
    """Captures, a flight over them, and a data folder in which it was searched."""

    def __init__(self, root: Path, rng: random.Random) -> None:
        self.root, self.rng, self.state, self.sound = root, rng, root / "state", root / "sound"
        self.flight = root / "flights" / FLIGHT
        os.environ["COARSELOC_DATA_DIR"] = str(self.state)
        self._write_pictures()
        for command in (
            ["ingest", "captures", root / "captures", "--backbone", "demo"],
            ["search", self.flight],
            ["doctor", "--deep"],
        ):
            code, _, err = self.run(command)
            if code:
                raise Failed(f"{command}: {code} {err}")
        self._copy(self.state, self.sound)
        self.answers = {name: self.ask(name) for name in ("lookup", "export", "evaluate", "search")}
        if not all(self.answers.values()):
            raise Failed(f"nothing to compare: {self.answers}")

    def _write_pictures(self) -> None:
        labels: dict[Path, list[Any]] = {}
        for index in range(1, 7):
            row, column = divmod(index - 1, 3)
            at = geo.offset(LonLat(127.03, 37.50), column * 150.0, -row * 150.0)
            for angle in (0, 45):
                capture = self.root / "captures" / f"{STAMP}_300_50_0_{angle:03d}"
                self._draw(capture, index, at, labels)
            if index < 5:
                self._draw(self.flight, index, at, labels)
        for folder, images in labels.items():
            place = folder / "labels.json" if folder == self.flight else folder.with_suffix(".json")
            place.write_text(json.dumps({"images": images}))

    def _draw(self, folder: Path, index: int, at: LonLat, labels: dict[Path, list[Any]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{folder.name}_{index:05d}.png"
        coarse = np.frombuffer(self.rng.randbytes(192), np.uint8).reshape(8, 8, 3)
        Image.fromarray(np.kron(coarse, np.ones((8, 8, 1), np.uint8))).save(folder / name)
        position = {"longitude": at.lon, "latitude": at.lat, "altitude": 300.0}
        labels.setdefault(folder, []).append({"imageref": name, "position": position, "attitude": {"yaw": 0.0}})

    def _copy(self, source: Path, target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run(["cp", "-a", "--sparse=always", source, target], check=True)

    def restore(self) -> None:
        self._copy(self.sound, self.state)

    def run(self, command: list[Any]) -> tuple[int, str, str]:
        """(exit code, standard output, standard error) of a command in a forked child."""
        log = self.root / "log.json"
        log.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            signal.alarm(GIVE_UP_S)
            os._exit(_run_here([str(part) for part in command], log))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status < 0 or not log.exists():
            what = "no end" if status == -signal.SIGALRM else f"ended by signal {-status}"
            raise Failed(f"{' '.join(map(str, command))}: {what} (status {status})")
        out, err = json.loads(log.read_text())
        if status not in (0, 2) or "Traceback" in err:
            raise Failed(f"{' '.join(map(str, command))}: exit code {status}\n{err[-3000:]}")
        return status, out, err

    def ask(self, name: str) -> Any:
        """An answer as it can be compared; None where it was refused with a line."""
        out = self.root / "out"
        shutil.rmtree(out, ignore_errors=True)
        if name == "search":
            code, _, err = self.run(["search", self.flight, "--no-verify"])
            if code:
                return self._refused(name, err)
            name = "searched"
        if name == "lookup":
            code, text, err = self.run(["lookup", self.flight / f"{FLIGHT}_00002.png", "--json"])
            return self._refused(name, err) if code else _hits(json.loads(text))
        if name in ("export", "searched"):
            code, _, err = self.run(["export", FLIGHT, "--out", out])
            if code:
                return self._refused(name, err)
            infos = [json.loads(path.read_text()) for path in sorted(out.rglob("*.json"))]
            return [_hits(info) for info in infos]
        code, text, err = self.run(["evaluate", FLIGHT, "--json"])
        return self._refused(name, err) if code else text

    def _refused(self, name: str, err: str) -> None:
        if len(err.strip()) < 20:
            raise Failed(f"{name}: refused without a reason: {err!r}")


def _hits(info: Any) -> list[str]:
    """Every hit that is somewhere in a JSON document: what it names, without times."""
    if isinstance(info, list):
        return [hit for item in info for hit in _hits(item)]
    if not isinstance(info, dict):
        return []
    if "score" in info and "tile_id" in info:
        return [json.dumps({**info, "score": round(info["score"], 5)}, sort_keys=True)]
    return [hit for item in info.values() for hit in _hits(item)]


def _run_here(command: list[str], log: Path) -> int:
    out, err, code = io.StringIO(), io.StringIO(), 1
    sys.argv = ["coarseloc", *command]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        except BaseException:
            traceback.print_exc()
    log.write_text(json.dumps([out.getvalue(), err.getvalue()]))
    return code


def flip(rng: random.Random, path: Path) -> str:
    """Flip one bit, three times of four where the file is not zero; returns where."""
    content = path.read_bytes()
    at = rng.randrange(len(content))
    if rng.random() < 0.75 and (written := np.flatnonzero(np.frombuffer(content, np.uint8))).size:
        at = int(written[rng.randrange(written.size)])
    bit = rng.randrange(8)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([content[at] ^ 1 << bit]))
    return f"{path}, byte {at}, bit {bit}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    asked = parser.parse_args()
    rng, found, where = random.Random(asked.seed), Counter[str](), "making the world"
    root, started, trial = Path(tempfile.mkdtemp(prefix="coarseloc-flips-")), time.monotonic(), 0
    import torch  # here, so that no child spends its seconds on it

    torch.set_num_threads(1)
    try:
        world = World(root, rng)
        for trial in range(1, asked.trials + 1):
            world.restore()
            files = [
                path
                for path in sorted(world.state.rglob("*"))
                if path.is_file() and path.name not in LOCKS and path.stat().st_size
            ]
            kind_of = {path: path.relative_to(world.state).parts[0] for path in files}
            kind = rng.choice(sorted(set(kind_of.values())))
            where = flip(rng, rng.choice([path for path in files if kind_of[path] == kind]))
            for name in sorted(rng.sample(sorted(world.answers), 2)):  # a search, the last, makes a newer run
                answer = world.ask(name)
                if answer is not None and answer != world.answers[name]:
                    raise Failed(
                        f"{name} gives another answer:\n{answer!s:.2000}\ninstead of\n{world.answers[name]!s:.2000}"
                    )
                found[f"{kind}: {'refused' if answer is None else 'the same answer'}"] += 1
            if trial % 5 == 0:
                world.run(["doctor", "--deep"])
    except Failed as error:
        print(f"seed {asked.seed}, trial {trial}: {where}; what is left: {root}\n{error}")
        return 1
    for what, count in sorted(found.items()):
        print(f"{count:5}  {what}")
    print(f"{asked.trials} flips held, seed {asked.seed}, {time.monotonic() - started:.0f} s")
    shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
