"""The benchmark runs, at settings so small that its figures mean nothing, and shows what it found as it is."""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import commands, figures, fixes, machine, models, registration_devices, report, rounds, run
from benchmarks.__main__ import bench
from benchmarks.figures import Figure
from benchmarks.rounds import Contest, Skipped, Way
from benchmarks.size import FULL, QUICK, Size
from coarseloc.core.errors import InputError
from coarseloc.embedding import specs

ROOT = Path(__file__).parents[2]

TINY = Size(
    rounds=2,
    backbones=("vits16",),
    layers=1,
    input_px=32,
    source_px=(64,),
    tiles=2,
    peer_tiles=1,
    ceiling_side=64,
    ceiling_mib=1,
    counts=(1_000,),
    wider=((500, 16),),
    call_s=0.0,
    many_up_to=1_000_000,
    filtered=2_000,
    filtered_local=160,
    references=500,
    large_px=64,
    map_km2=2.0,
    fixed_frames=0,
)


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Threads that wait for each other take seconds on a busy machine, and show nothing here. Nor does it to collect
    anew before each contest what the suite has imported: what is frozen stays so to the end."""
    import faiss
    import torch

    unfreeze = gc.unfreeze
    monkeypatch.setattr(gc, "unfreeze", lambda: None)
    monkeypatch.setattr(machine, "cores", lambda: 1)
    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    yield
    torch.set_num_threads(before[0])
    faiss.omp_set_num_threads(before[1])
    unfreeze()


def test_every_way_runs_once_a_round_and_each_round_begins_with_another() -> None:
    calls: list[str] = []
    ways = {name: Way(lambda name=name: calls.append(name)) for name in "abc"}
    found = rounds.contest("letters", "letter", ways, rounds=3, warm_ups=1)
    assert "".join(calls) == "abc" + "abc" + "bca" + "cab"
    assert {name: len(values) for name, values in found.seconds.items()} == {"a": 3, "b": 3, "c": 3}


def test_what_a_call_needs_is_prepared_each_time_and_time_is_a_units() -> None:
    prepared: list[int] = []
    way = Way(lambda: None, units=1_000_000, prepare=lambda: prepared.append(1))
    found = rounds.contest("nothing", "unit", {"way": way}, rounds=4, warm_ups=2)
    assert len(prepared) == 6 and max(found.seconds["way"]) < 1e-3


def test_a_ratio_is_one_of_medians() -> None:
    found = Contest("c", "tile", {"ours": [1.0, 100.0, 2.0], "peer": [6.0, 0.1, 4.0]})
    assert found.ratio("ours", "peer") == 2.0 and found.minimum("peer") == 0.1


def test_a_skipped_way_is_shown_with_its_reason() -> None:
    found = rounds.contest("c", "tile", {"ours": Way(lambda: None), "peer": Skipped("not installed")}, rounds=1)
    assert figures.contests_table([found])[-1] == "|  | peer | skipped |  | not installed |"
    figure = figures.faster("it", found, "ours", "peer", 2.0)
    assert figure.value is None and figure.reached is None and "not installed" in figure.note


def test_the_table_says_what_was_reached_and_what_was_not() -> None:
    lines = figures.figures_table(
        [
            Figure("a", "b", 2.004, "x", 2.0, of_minima=1.5),
            Figure("a|b", "", 1.999, "x", 2.0, note="close"),
            Figure("open", "", 4.0, "ms", 5.0, at_most=True),
            Figure("cosine", "CPU", 0.99871, "", 0.999),
            Figure("gone", "c", None, "%", 75, note="why"),
            Figure("free", "d", 81.6, "%"),
        ]
    )
    assert lines == [
        "| what | against | measured | of minima | target | reached | note |",
        "| --- | --- | --: | --: | --: | --- | --- |",
        "| a | b | 2.00 x | 1.50 x | 2 x | yes |  |",
        "| a\\|b |  | 2.00 x |  | 2 x | **no** | close |",
        "| open |  | 4.00 ms |  | ≤ 5 ms | yes |  |",
        "| cosine | CPU | 0.99871 |  | 0.999 | **no** |  |",
        "| gone | c | not measured |  | 75 % |  | why |",
        "| free | d | 82 % |  |  |  |  |",
    ]


def test_a_busy_machine_gives_no_verdict() -> None:
    assert "| (yes) |" in figures.figures_table([Figure("a", "b", 3.0, "x", 2.0)], busy=True)[-1]
    idle = {"machine": {"cores": 2}, "load before": 0.2, "load after": 2.1}
    assert not report.was_busy(idle)
    assert report.was_busy(idle | {"load before": 4.0}) and report.was_busy(idle | {"load after": 6.5})


def test_the_documentations_page_is_not_written_on_a_busy_machine_and_who_loads_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "load", lambda: 9.0)
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            refused = CliRunner().invoke(bench, ["--table", str(tmp_path / "t.md"), "--out", str(tmp_path)])
        finally:
            busy.kill()
    assert refused.exit_code == 2 and "not written on a busy machine" in refused.output
    assert re.search(r"\(\d+\) \d+%", refused.output), "it, or three that are busier"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "gflop"),
    [("vits16", 9.4), ("vits16+", 12.2), ("vitb16", 35.9), ("vitl16", 125.7), ("vith16+", 344.2)],
)
def test_operations_are_those_of_the_architecture(name: str, gflop: float) -> None:
    row = specs.row(name)
    assert models.flops(row, 224) / 1e9 == pytest.approx(gflop, abs=0.1)
    assert 0.9 < models.flops(row, 224, class_token_only=True) / models.flops(row, 224) < 1


def test_the_full_size_has_the_rounds_and_the_growth_that_were_promised() -> None:
    assert FULL.rounds >= 7 and FULL.layers is None and FULL.counts == (10**3, 10**4, 10**5, 10**6)
    assert QUICK.layers is None


def test_a_commands_processor_time_and_memory_are_its_own() -> None:
    held = bytearray(300 << 20)  # of this process, not of what it starts
    cost = commands.process_cost([sys.executable, "-c", "sum(range(3_000_000)); b = bytearray(50 << 20)"])
    assert len(held) and 0.02 < cost.cpu_s < 5 and 50 < cost.memory_mib < 200
    with pytest.raises(RuntimeError, match="ended with 3: it says why"):
        commands.process_cost([sys.executable, "-c", "import sys; print('it says why', file=sys.stderr); sys.exit(3)"])


def test_stages_within_a_stage_count_for_themselves_alone() -> None:
    clock = fixes.StageClock()

    def spin(seconds: float) -> None:
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            pass

    with clock.stage("outer"):
        spin(0.02)
        clock.timed("inner", spin)(0.04)
    assert clock.spent_ms["inner"] >= 40 and 20 <= clock.spent_ms["outer"] < 35


@pytest.mark.usefixtures("one_core")
def test_a_fix_is_timed_in_three_ways_by_stage(tmp_path: Path) -> None:
    spent = fixes.measure(fixes.generated(tmp_path, km2=2.0, frames=2), repeats=1)
    assert list(spent) == list(fixes.GOALS_MS)
    assert all(stages["coarse places"] > 0 and stages["blocks: search, fit"] > 0 for stages in spent.values())
    assert spent["tracked"]["odometry"] > 0 == spent["ten places"]["odometry"]
    assert figures.stages_table(spent)[-1].startswith("| all | **")


@pytest.mark.usefixtures("one_core")
def test_a_tiny_benchmark_measures_every_part_and_writes_it_down(tmp_path: Path) -> None:
    results = run.run(TINY, scratch=tmp_path)
    assert not [figure for figure in results.figures if figure.note.startswith("failed")]
    names = [contest.name for contest in results.contests]
    for part in (
        "product",
        "read",
        "eight views",
        "tile ingest",
        "six small",
        "input of 64 px",
        "one frame",
        "64 exact",
        "open",
    ):
        assert any(part in name for name in names), (part, names)
    assert all(len(times) == TINY.rounds for contest in results.contests for times in contest.seconds.values())
    raw = report.write_json(results, tmp_path / "results", "tiny")
    assert json.loads(raw.read_text())["contests"][0]["seconds"]
    page = tmp_path / "docs" / "benchmarks.md"
    report.write_markdown(results, page, raw)
    text = page.read_text()
    for promised in (
        "2 interleaved rounds",
        "torch 2",
        "GFLOP/s",
        "load",
        "Qdrant Edge",
        "benchmarks/gpu.py",
        "cores busy",
    ):
        assert promised in text
    widths = {line.count(" | ") for line in text.splitlines() if line.startswith("| filtered") or "| what" in line}
    assert len(widths) == 2  # the figures' columns, and the contests'


def test_the_command_measures_one_part_and_answers_in_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.size.FULL", TINY)
    command = ["--only", "views", "--out", str(tmp_path / "out"), "--table", str(tmp_path / "t.md"), "--json"]
    done = CliRunner().invoke(bench, command, catch_exceptions=False)
    assert done.exit_code == 0
    facts = json.loads(done.stdout)
    assert facts["figures"][0]["what"].startswith("eight views") and "views" in done.stderr
    assert json.loads((tmp_path / "out" / "part.json").read_text()) == facts
    assert "out/part.json" in (tmp_path / "t.md").read_text()


def test_a_part_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(InputError, match="no part of the benchmark is called 'speed': it has ceilings, views"):
        run.run(TINY, "speed")


_ALONE = """
import sys
GONE = {"faiss", "rasterio", "sqlalchemy", "qdrant_edge", "qdrant_client", "pydantic_settings", "PIL", "flask"}

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in GONE else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
from pathlib import Path
from benchmarks import gpu
results = gpu.measure(gpu.GpuSettings("cpu", ("vits16",), 1, 1, 32, 64, 2, ((500, 384),), (2, 12), 64))
print(gpu.write(results, Path(sys.argv[1])))
"""


def test_the_gpu_script_needs_torch_transformers_and_numpy_alone(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _ALONE, str(tmp_path)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    written = Path(done.stdout.split()[-1])
    kept = json.loads(written.read_text())
    by_name = {figure["what"]: figure["value"] for figure in kept["figures"]}
    assert by_name["vits16, fp32 against the CPU in fp32: least cosine"] == pytest.approx(1.0, abs=1e-5)
    assert by_name["1 exact query, 500 x 384"] > 0
    assert "| vits16, one frame at 64 px |" in written.with_suffix(".md").read_text()


_DEVICES_ALONE = (
    _ALONE.replace('"PIL", ', "").partition("from pathlib")[0]
    + """
import json
from benchmarks import registration_devices
figures = registration_devices.measure("cpu", 1, (1500.0, 1400.0))
print(json.dumps(figures | {"agrees": registration_devices.agrees(figures)}))
"""
)


def test_the_script_that_compares_devices_needs_torch_numpy_and_pillow_alone() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _DEVICES_ALONE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert measured["agrees"]
    for part in ("windows", "map"):
        assert measured[part]["right"] == {"cpu": 1, "device": 1}
        assert measured[part]["ms"]["device"]["all"] > 0
    measured["windows"]["apart"]["ground_m"]["most"] = 0.03
    assert not registration_devices.agrees(measured)


def test_memory_is_watched_at_its_peak() -> None:
    with machine.peak_memory(every_s=0.001) as low:
        pass
    with machine.peak_memory(every_s=0.001) as high:
        held = [np.ones(2**20) for _ in range(16)]
        time.sleep(0.5)
        del held
    assert high[0] - low[0] > 64 * 2**20
