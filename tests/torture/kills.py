"""kill -9 at random moments, of everything that writes: `python tests/torture/kills.py --trials 140 --seed 1`.

This process only forks: a child does the work and is killed, another looks at what is left, a third lets the same
command finish. It opens no store itself, so that every fork begins as a fresh process would. What is tested is the
death of a process, not of the machine: what the kernel had taken over is written.

The database is SQLite, or PostgreSQL where COARSELOC_TEST_DATABASE_URL names one that may be written to.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

sys.path.append(str(Path(__file__).parents[1] / "support"))

import commands
from commands import World

Work = Callable[[World, commands.Ack], None]
COMMANDS = ("ingest", "drain", "rebuild", "forget", "search", "migrate", "serve")
_GIVE_UP_S = 120.0


class Failed(Exception):
    """Something did not hold; the message says where to look."""


class Child:
    """A forked process and what it has acknowledged, a line of JSON each."""

    def __init__(self, work: Callable[[commands.Ack], None], log: Path) -> None:
        self._pipe, end = os.pipe()
        self._text, self._log, self.acknowledged = b"", log, []
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._pipe)
            os._exit(_run(work, end, log))
        os.close(end)

    def listen(self, seconds: float, until: str | None = None) -> bool:
        """Take acknowledgements for so long, or until one of this kind; False where the child has ended."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self._pipe], [], [], left)[0]:
                return True
            if not (some := os.read(self._pipe, 1 << 16)):
                return False
            *lines, self._text = (self._text + some).split(b"\n")
            self.acknowledged += [json.loads(line) for line in lines]
            if until and any(kind == until for kind, *_ in self.acknowledged):
                return True
        return True

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def end(self) -> int:
        """Hear it out and give its exit code, negative for a signal. Raises Failed where it hangs."""
        if self.listen(_GIVE_UP_S):
            self.kill()
            raise Failed(f"no end after {_GIVE_UP_S:.0f} s: {self._log}")
        os.close(self._pipe)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if code not in (0, -signal.SIGKILL):
            raise Failed(f"exit code {code}:\n{self._log.read_text()[-3000:]}")
        return code


def _run(work: Callable[[commands.Ack], None], end: int, log: Path) -> int:
    handle = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    try:
        work(lambda what: os.write(end, json.dumps(what).encode() + b"\n") and None)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        return 1
    return 0


class Torture:
    """A world and the trials in it."""

    def __init__(self, root: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.world, self.log = World(root, self.rng), root / "log"
        self.took: dict[str, float] = {}
        self.found: Counter[str] = Counter()
        for name in ("ingest", "search", "migrate"):
            self.do(name)

    def alone(self, check: Callable[..., None], *args: Any) -> None:
        """A check in a process of its own."""
        Child(lambda _: check(self.world, *args), self.log).end()

    def do(self, name: str) -> list[Any]:
        """A command from begin to end."""
        child, started = Child(lambda ack: getattr(commands, name)(self.world, ack), self.log), time.monotonic()
        if name == "serve":
            self._browse(child, whole=True).end()
            child.kill()
        child.end()
        self.took[name] = time.monotonic() - started
        return child.acknowledged

    def _browse(self, server: Child, whole: bool) -> Child:
        if not server.listen(_GIVE_UP_S, until="ready"):
            server.end()
        url, seed = server.acknowledged[0][1], self.rng.random()
        return Child(lambda _: commands.browse(self.world, url, seed, whole), self.log.with_name("client.log"))

    def trial(self, name: str) -> None:
        """Prepare, begin, kill, look, perhaps kill the second attempt too, finish, look again."""
        if name == "forget":
            Child(lambda ack: commands.ingest(self.world, ack, self.world.other), self.log).end()
        # In this process: what it draws must be remembered. It opens no store of ours.
        if name in ("ingest", "search"):
            getattr(commands, f"before_{name}")(self.world)
        elif hasattr(commands, f"before_{name}"):
            self.rng.random()
            self.alone(getattr(commands, f"before_{name}"))
        for _ in range(self.rng.choice([1, 1, 2])):
            self._kill_once(name)
        self._look(name, self.do(name), finished=True)
        self.alone(commands.check_index)

    def _kill_once(self, name: str) -> None:
        moment = self.rng.uniform(0.0, self.took.get(name, 0.5))
        child = Child(lambda ack: getattr(commands, name)(self.world, ack), self.log)
        client = self._browse(child, whole=False) if name == "serve" else None
        if child.listen(moment):
            child.kill()
        killed = child.end() != 0
        if client:
            client.end()
        self.found[f"{name}: killed at work" if killed else f"{name}: ended before the kill"] += 1
        self._look(name, child.acknowledged, finished=not killed)

    def _look(self, name: str, acknowledged: list[Any], finished: bool) -> None:
        if name == "migrate":
            self.alone(commands.check_migrated, finished)
        self.alone(commands.check_truth, acknowledged)
        if name in ("ingest", "drain"):
            self.alone(commands.check_claims)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=140)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--commands", nargs="*", choices=COMMANDS, default=COMMANDS)
    asked = parser.parse_args()
    warnings.simplefilter("ignore", DeprecationWarning)  # of forking: there are no threads here
    root, started = Path(tempfile.mkdtemp(prefix="coarseloc-torture-")), time.monotonic()
    torture, name, trial = None, "making the world", 0
    try:
        torture = Torture(root, asked.seed)
        for trial in range(1, asked.trials + 1):
            name = asked.commands[trial % len(asked.commands)]
            torture.trial(name)
    except Failed as error:
        print(f"seed {asked.seed}, trial {trial} ({name}), what is left: {root}\n{error}")
        return 1
    for what, count in sorted(torture.found.items()):
        print(f"{count:5}  {what}")
    print(f"{asked.trials} trials held, seed {asked.seed}, {time.monotonic() - started:.0f} s")
    shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
