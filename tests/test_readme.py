"""The README says what is true: its Python block and its shell lines run, as they stand, on a small world."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from databases import environment_of

from coarseloc.cli import cli
from coarseloc.simulate.captures import write_captures
from coarseloc.simulate.flight import simulate_flight
from coarseloc.simulate.terrain import write_area
from coarseloc.workspace import open_orthophoto, open_workspace

README = Path(__file__).parents[1] / "README.md"
FLIGHT = "251124155712"
PYTHON, SHELL = "python", "sh"
COMMAND = [sys.executable, "-c", "from coarseloc.cli import main; main()"]


def blocks(language: str, page: str = README.name) -> list[str]:
    text = (README.parent / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_its_first_block_is_two_commands_and_its_second_a_notebooks_few_lines():
    first = re.findall(r"```(\w+)\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert first[0][0] == SHELL and [line.split("#")[0].strip() for line in first[0][1].strip().splitlines()] == [
        "make demo",
        "make test",
    ]
    assert first[1][0] == PYTHON
    code = [line for line in first[1][1].splitlines() if line.strip() and not line.startswith(("import", "print"))]
    assert len(code) <= 5


@pytest.mark.parametrize("page", ["README.md", "README.ko.md", "docs/tutorial.md", "docs/ko/tutorial.md"])
def test_every_command_of_a_page_is_there_with_its_options(page: str):
    lines = [line for block in blocks(SHELL, page) for line in block.splitlines() if line.startswith("coarseloc ")]
    assert len(lines) >= 8
    for line in lines:
        words = shlex.split(line.split(" #")[0])[1:]
        context, command = click.Context(cli), cli
        while isinstance(command, click.Group):  # options of the group, then the command's name
            _, rest, _ = command.make_parser(context).parse_args(words)
            name, words = rest[0], rest[1:]
            found = command.get_command(context, name)
            assert found is not None, line
            command = found
            context = click.Context(command)
        command.make_parser(context).parse_args(words)  # raises NoSuchOption


@pytest.mark.parametrize("page", ["README.md", "README.ko.md", "docs/tutorial.md", "docs/ko/tutorial.md"])
def test_what_a_page_links_to_is_there(page: str):
    path = README.parent / page
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8"))
    assert links and [link for link in links if not (path.parent / link).exists()] == []


def test_the_korean_readme_lists_the_same_backbones():
    rows = re.compile(r"^\| (\S+) \| ([\d.]+) \| (\d+) \|", re.MULTILINE)
    english, korean = ((README.parent / name).read_text(encoding="utf-8") for name in ("README.md", "README.ko.md"))
    assert rows.findall(english) == rows.findall(korean) != []


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the one that `make demo` leaves, only smaller."""
    root = tmp_path_factory.mktemp("readme")
    area = write_area(root / "area.tif", 3, width_m=1000, height_m=850, style="suburb")
    write_area(root / "later.tif", 3, width_m=1000, height_m=850, style="suburb", season=1)
    data = root / "demo-data"
    simulate_flight(area, data / "flights", flight_id=FLIGHT, frames=8, footprint_m=300, seed=5, side_px=128)
    with pytest.MonkeyPatch.context() as patch:
        _clean_environment(patch, data)
        with open_workspace(data, device="cpu") as workspace:
            workspace.ingest(open_orthophoto(area, name="demo", footprint_m=300, altitude_m=300), ["demo"])
    return root


def _clean_environment(patch: pytest.MonkeyPatch, data: Path) -> None:
    for name in [name for name in os.environ if name.startswith("COARSELOC_") and "TEST" not in name]:
        patch.delenv(name)
    for name, value in environment_of(data).items():
        patch.setenv(name, value)


def test_its_python_block_runs(demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("pandas")
    _clean_environment(monkeypatch, demo / "demo-data")
    monkeypatch.chdir(demo)
    (block,) = blocks(PYTHON)
    exec(compile(block, "README.md", "exec"), {})
    said = capsys.readouterr().out
    assert "LonLat(lon=127.0" in said and "demo/0000" in said
    assert re.search(r"frame_index +lon +lat +margin +error_m", said)


@pytest.fixture(scope="module")
def own_data(demo: Path, tiny_dinov3: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """A user's own data where the README says they lie, and a backbone of theirs."""
    data = demo / "state"
    data.mkdir()
    (data / "coarseloc.toml").write_text(
        f'input_px = 32\ndevice = "cpu"\n[[backbones]]\nname = "ours"\npath = "{tiny_dinov3}"\n', encoding="utf-8"
    )
    turned = open_orthophoto(demo / "area.tif", footprint_m=300, altitude_m=300, angles=(0, 45, 90, 180), tile_px=64)
    write_captures(turned, demo / "captures")
    shutil.copytree(demo / "demo-data/flights", demo / "flights")
    shutil.copy(demo / f"flights/{FLIGHT}/{FLIGHT}_00001.jpg", demo / "frame.jpg")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COARSELOC_")}
    environment |= {"COARSELOC_DATA_DIR": str(data)} | environment_of(data)
    yield demo, environment


@pytest.mark.usefixtures("undrawn")
def test_its_shell_lines_run(own_data: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch):
    """All of "Your own data", in their order; the speed table and the study of fewer frames."""
    root, environment = own_data
    _clean_environment(monkeypatch, Path(environment["COARSELOC_DATA_DIR"]))
    monkeypatch.setenv("COARSELOC_DATA_DIR", environment["COARSELOC_DATA_DIR"])
    monkeypatch.chdir(root)
    lines = [line.split("  #")[0].split(" # ")[0].strip() for line in blocks(SHELL)[1].splitlines()]
    commands = [shlex.split(line) for line in lines if line.startswith("coarseloc")]
    assert [command[1] for command in commands] == [
        *(
            "backbones",
            "ingest",
            "ingest",
            "search",
            "export",
            "localize",
            "track",
            "boresight",
            "lookup",
            "evaluate",
            "report",
            "rotation",
            "serve",
        ),
        "bench",
    ]
    for command in commands:
        asked = [word.replace("/data/", f"{root}/") for word in command[1:]]
        asked += {"bench": ["--frames", "2"], "rotation": ["--frames", "4", "--positions", "1", "--step", "45"]}.get(
            asked[0], []
        )
        if asked[0] == "serve":
            _serve_and_stop(root, environment)
            continue
        done = CliRunner().invoke(cli, asked, catch_exceptions=False)
        assert done.exit_code == 0, (command, done.output)
    assert (root / "results" / f"{FLIGHT}.geojson").exists() and (root / "report.html").stat().st_size > 10_000


def _serve_and_stop(root: Path, environment: dict[str, str]) -> None:
    server = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0"],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert server.stdout is not None
    started, said = time.monotonic(), ""
    while not (address := re.search(r"http://127\.0\.0\.1:\d+", said)) and time.monotonic() - started < 180:
        said += server.stdout.readline()
    assert address, said
    with urllib.request.urlopen(f"{address[0]}/healthz", timeout=90) as answer:
        assert answer.status == 200
    server.send_signal(signal.SIGTERM)
    assert server.wait(timeout=90) == 0
