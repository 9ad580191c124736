"""The short form of `make load`: few references, two clients, a second."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from databases import environment_of

TORTURE = Path(__file__).parents[1] / "torture"


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """The data of `load.py --small`, made in this process, which has torch already."""
    found = importlib.util.spec_from_file_location("load_data", TORTURE / "load_data.py")
    load_data = importlib.util.module_from_spec(found)
    found.loader.exec_module(load_data)
    folder = tmp_path_factory.mktemp("load")
    with pytest.MonkeyPatch.context() as environment:
        for name, value in environment_of(folder).items():
            environment.setenv(name, value)
        load_data.build(folder, small=True)
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux' /proc")
def test_under_load_all_is_answered_a_full_queue_says_so_and_sigterm_finishes_what_is_held(few):
    command = [sys.executable, str(TORTURE / "load.py"), "--small", "--data", str(few), "--json"]
    done = subprocess.run(
        [*command, "--seconds", "1", "--clients", "2"],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment_of(few),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.stdout, done.stderr
    facts = json.loads(done.stdout)
    assert [check for check in facts["checks"] if not check["held"]] == []
    assert done.returncode == 0
    assert {row["kind"] for row in facts["times"]} >= {"page", "json", "picture"}
