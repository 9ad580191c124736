"""Ctrl-C, a terminal that is closed, full or knows ASCII alone, and entries of folders that are no files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from coarseloc import __main__ as script
from coarseloc.vectors.shard import Shard

ASCII = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
ROOT = Path(__file__).parents[2]


def start(shell: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = f"{sys.executable} -m coarseloc {shell}"
    return subprocess.run(
        command, shell=True, capture_output=True, text=True, timeout=600, env=os.environ | environment, cwd=ROOT
    )  # fmt: skip


@pytest.mark.parametrize(
    ("shell", "code"),
    [("backbones --json > /dev/full", 2), ("--help >&-", 0), ("backbones --json >&- 2>&-", 0), ("--help | true", 0)],
)
def test_an_output_that_is_full_or_closed_ends_without_a_traceback(state, shell, code):
    done = start(shell)
    assert done.returncode == code and "Traceback" not in done.stderr and "Exception" not in done.stderr, done


def test_a_terminal_of_ascii_alone_gets_json_that_can_be_read(state):
    (state / "coarseloc.toml").write_text('[[backbones]]\nname = "tiny"\npath = "/없음"\n')
    done = start(f"backbones --json && {sys.executable} -m coarseloc --lang ko backbones", **ASCII)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert "없음" in str(json.JSONDecoder().raw_decode(done.stdout)[0])


def test_ctrl_c_in_a_rebuild_is_an_interrupt_and_the_same_command_goes_on(coarseloc, ingested, monkeypatch):
    upsert = Shard.upsert

    def interrupted(shard: Shard, *args: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        upsert(shard, *args)

    monkeypatch.setattr(Shard, "upsert", interrupted)
    stopped = coarseloc("rebuild")
    assert stopped.code == 130 and "goes on" in stopped.err
    monkeypatch.setattr(Shard, "upsert", upsert)
    assert coarseloc("rebuild").code == 0 and coarseloc("reconcile").code == 0


def test_an_error_that_an_interrupt_has_caused_is_the_interrupt(coarseloc, ingested, monkeypatch):
    def broken(shard: Shard, *_: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("half done") from None

    monkeypatch.setattr(Shard, "flush", broken)
    assert coarseloc("rebuild").code == 130


def test_ctrl_c_while_modules_are_imported_has_no_traceback(monkeypatch):
    monkeypatch.setattr("coarseloc.cli.main", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as stop:
        script.main()
    assert stop.value.code == 130


@pytest.fixture
def odd_entries(flight: Path, ingested: Path) -> Path:
    """A flight and a capture; beside their pictures lie a pipe, a device, endless links and a name that is no UTF-8."""
    capture = next(ingested.glob("*_000"))
    for folder in (flight, capture):
        os.mkfifo(folder / f"{folder.name}_00090.jpg")
        (folder / f"{folder.name}_00091.jpg").symlink_to(f"{folder.name}_00091.jpg")
        (folder / f"{folder.name}_00092.jpg").symlink_to("/dev/zero")
        (folder / "around").symlink_to(folder)
        os.mkfifo(folder / "more.json")
        (folder / "zero.csv").symlink_to("/dev/zero")
        Path(os.fsdecode(os.fsencode(folder) + b"/251124155712_\xff93.jpg")).write_bytes(b"x")
    return flight


def test_pipes_devices_and_endless_links_among_pictures_hold_nobody_up(coarseloc, odd_entries, ingested):
    signal.signal(signal.SIGALRM, lambda *_: pytest.exit("it hangs", returncode=3))
    signal.alarm(100)
    try:
        for command in (["search", odd_entries, "--no-verify"], ["ingest", "captures", ingested, "--backbone", "tiny"]):
            done = coarseloc(*command)
            assert done.code in (0, 2) and len(done.err.splitlines()) < 12, done
        looked_up = coarseloc("lookup", odd_entries / f"{odd_entries.name}_00090.jpg")
        assert looked_up.code == 2 and "pipe" in looked_up.err
    finally:
        signal.alarm(0)
