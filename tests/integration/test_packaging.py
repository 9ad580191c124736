"""What the wheel holds: an application's packages, its migrations, and no tests."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    with zipfile.ZipFile(next(out.glob("*.whl"))) as archive:
        return archive.namelist()


def test_the_wheels_top_level_is_the_five_packages_and_its_metadata(wheel: list[str]):
    top = {name.split("/")[0] for name in wheel}
    assert {name for name in top if not name.endswith(".dist-info")} == {
        "coarseloc",
        "ingest",
        "search",
        "web",
        "migrations",
    }


def test_the_wheel_carries_what_is_read_at_run_time(wheel: list[str]):
    for needed in (
        "migrations/env.py",
        "migrations/versions/0001_first_schema.py",
        "coarseloc/py.typed",
        "coarseloc/localize/registration/calibration.json",
    ):
        assert needed in wheel
    assert any(name.startswith("web/templates/") for name in wheel)
    assert any(name.startswith("web/static/") for name in wheel)
