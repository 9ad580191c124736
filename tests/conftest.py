"""Fixtures for every room: small models on disk, and a backbone that costs nothing.

A fixture that only one room needs belongs into that room's test file.
"""

from __future__ import annotations

import os

# Small arrays on a busy machine: more threads of BLAS and OpenMP would only wait for each other. Read when numpy and
# torch are loaded, and by child processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import gc
import re
import signal
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image
from sqlalchemy import Engine, inspect, text

from coarseloc.core.config import CustomBackbone
from coarseloc.core.types import EmbeddingSpec, Float32, UInt8
from coarseloc.store import session as store_session

# To collect all generations takes a quarter of a second once torch and transformers are imported: a twelfth of the
# suite's time.
gc.set_threshold(20_000, 20, 50)

# A busy machine is no failure, and long to draw an example.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

# --- where tests write --------------------------------------------------------------------------

# Databases and vector stores wait for the disk at each commit: a third of the suite's time. `--basetemp` comes before.
MEMORY, ROOM_BYTES = Path("/dev/shm"), 6 << 30  # its peak is about 3.5 GB


def _why_not_in_memory(folder: Path) -> str:
    """What keeps tests from writing to a file system in memory; empty where nothing does.

    It must hold what tests leave until their ends, and let them run programs that they write there.
    """
    try:
        state, memory = os.statvfs(folder), Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError as error:
        return str(error)
    available = re.search(r"^MemAvailable: +(\d+) kB", memory, re.MULTILINE)
    free = min(state.f_bavail * state.f_frsize, int(available[1]) * 1024 if available else 0)
    if free < ROOM_BYTES:
        return f"{folder} has {free >> 20} MB free, less than {ROOM_BYTES >> 20} MB"
    if state.f_flag & os.ST_NOEXEC or not os.access(folder, os.W_OK):
        return f"{folder} cannot be written to, or holds no programs"
    return ""


NOT_IN_MEMORY = _why_not_in_memory(MEMORY)
if not NOT_IN_MEMORY:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_sessionstart(session: pytest.Session) -> None:
    """A header's line; pytest's own headers are left out by `-q`."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None and NOT_IN_MEMORY and session.config.option.basetemp is None:
        terminal.write_line(f"tests write to the disk, which takes longer: {NOT_IN_MEMORY}")


# --- skips --------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--only-listed-skips", action="store_true", help="Fail where a skip is not in allowed_skips.txt.")


class SkipGuard:
    """Fails a run that left out a test for a reason that is not listed."""

    def __init__(self, listed: re.Pattern[str]) -> None:
        self.listed = listed
        self.unlisted: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._check(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._check(report)

    def _check(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
            reason = report.longrepr[2].removeprefix("Skipped: ")
            if not self.listed.search(reason):
                self.unlisted.add(f"{report.nodeid}: {reason}")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for skip in sorted(self.unlisted):
            terminalreporter.write_line(f"skipped for a reason that tests/allowed_skips.txt does not list: {skip}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.unlisted and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_configure(config: pytest.Config) -> None:
    # a shell lets what it starts in the background ignore Ctrl-C, which tests of interruption send
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("--only-listed-skips") and not hasattr(config, "workerinput"):  # xdist's workers report to it
        lines = (Path(__file__).parent / "allowed_skips.txt").read_text(encoding="utf-8").splitlines()
        config.pluginmanager.register(SkipGuard(re.compile("|".join(x for x in lines if x and not x.startswith("#")))))


# --- databases ----------------------------------------------------------------------------------


@pytest.fixture(scope="session", autouse=True)
def _copied_schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """New SQLite databases of this process get their tables as the migrations left them in one: running all migrations
    takes longer than most tests here. What is not empty is migrated, and so are the databases of other processes."""
    migrate = store_session._upgrade
    statements: list[str] = []

    def upgrade(engine: Engine) -> None:
        if engine.dialect.name != "sqlite" or not engine.url.database or inspect(engine).get_table_names():
            migrate(engine)
            return
        if not statements:
            path = tmp_path_factory.mktemp("migrated") / "coarseloc.db"
            migrated = store_session.open_engine(f"sqlite:///{path}")
            migrate(migrated)
            with closing(migrated.raw_connection()) as connection:
                statements.extend(list(connection.driver_connection.iterdump())[1:-1])  # without BEGIN and COMMIT
            migrated.dispose()
        with store_session.schema_change(engine) as connection:
            if inspect(connection).has_table("alembic_version"):
                return  # another process was faster
            for statement in statements:
                connection.exec_driver_sql(statement)
            connection.execute(text("UPDATE database_identity SET uid = :uid"), {"uid": uuid4().hex})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_session, "_upgrade", upgrade)
        yield


# --- reports ------------------------------------------------------------------------------------


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of reports are plotted and not drawn, which is most of a report's time: for tests of its words."""
    from search.evaluation.report import style

    monkeypatch.setattr(style, "inline_svg", lambda figure, key, label: f'<svg role="img" aria-label="{label}"></svg>')


# --- backbones ----------------------------------------------------------------------------------


class FakeBackbone:
    """A `Backbone` without a model: 8 × 8 RGB thumbnails through a fixed random projection.

    The same picture gives the same vector in every process, similar pictures similar ones, and a turned
    picture another one. Counts what passes through it.
    """

    def __init__(self, name: str = "fake", dim: int = 16, input_px: int = 32) -> None:
        self.spec = EmbeddingSpec(name, dim, f"fake-weights-of-{name}", input_px, (0.5,) * 3, (0.5,) * 3, "cls")
        self.device = "cpu"
        self.batches = 0
        self.images = 0
        self._projection = np.random.default_rng(zlib.crc32(name.encode())).standard_normal((193, dim))

    def embed(self, images: UInt8) -> Float32:
        """uint8 [B, H, W, 3] → float32 [B, D], unit norm."""
        assert images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == 3, images.shape
        self.batches += 1
        self.images += len(images)
        small = [np.asarray(Image.fromarray(image).resize((8, 8), Image.Resampling.BOX)) for image in images]
        flat = np.stack(small).reshape(len(images), 192) / 127.5 - 1.0
        # A constant term keeps a mid-grey picture from being the zero vector.
        vectors = np.column_stack([flat, np.full(len(images), 0.1)]) @ self._projection
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)

    def embed_many(self, images: Sequence[UInt8]) -> Float32:
        """Images of differing sizes → float32 [N, D]."""
        return np.concatenate([self.embed(image[None]) for image in images])


@pytest.fixture
def make_fake_backbone() -> Callable[..., FakeBackbone]:
    """`FakeBackbone(name="fake", dim=16, input_px=32)`, for tests that need several."""
    return FakeBackbone


@pytest.fixture
def fake_backbone() -> FakeBackbone:
    """A deterministic backbone that counts its `batches` and `images`."""
    return FakeBackbone()


def build_dinov3(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """Write a small true-architecture DINOv3 with random weights as a Hugging Face folder.

    Norms, biases and layer scales are random too: at their initial ones and zeros, half of the forward
    would be untested.
    """
    import torch
    from transformers import DINOv3ViTConfig, DINOv3ViTModel
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    values = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_register_tokens": 4,
    }
    generator = torch.Generator().manual_seed(seed)
    model = DINOv3ViTModel(DINOv3ViTConfig(**(values | changes)))
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            noise = torch.randn(tensor.shape, generator=generator)
            matrix = tensor.ndim > 1 and "token" not in name
            scale = tensor[0].numel() ** -0.5 if matrix else 0.2
            center = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            tensor.copy_(center + scale * noise + (0.5 if "lambda1" in name else 0.0))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_dinov3() -> Callable[..., Path]:
    """`build_dinov3(folder, seed=0, **config changes)`."""
    return build_dinov3


@pytest.fixture(scope="session")
def tiny_dinov3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder: 2 layers of width 32, 2 heads, patch 16, 4 register tokens. Embeds in milliseconds."""
    return build_dinov3(tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture(scope="session")
def tiny_backbone(tiny_dinov3: Path) -> CustomBackbone:
    """The `[[backbones]]` row of `tiny_dinov3`, named `tiny`."""
    return CustomBackbone(name="tiny", path=tiny_dinov3)
