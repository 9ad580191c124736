"""Settings: the environment before the file before the defaults, and errors that name the setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from coarseloc.core import config
from coarseloc.core.errors import ConfigError


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COARSELOC_INPUT_PX", "COARSELOC_CONFIG", "COARSELOC_DEVICE"):
        monkeypatch.delenv(name, raising=False)


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "coarseloc.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_the_environment_comes_before_the_file_and_the_file_before_the_defaults(tmp_path, monkeypatch):
    write(tmp_path, 'input_px = 32\ndevice = "cpu"\ndata_dir = "/elsewhere"\n')
    monkeypatch.setenv("COARSELOC_INPUT_PX", "64")
    settings = config.load(tmp_path)
    assert (settings.input_px, settings.device, settings.qdrant_timeout_s) == (64, "cpu", 30.0)
    assert settings.data_dir == tmp_path  # where the file was found


def test_another_file_is_named_by_the_option_or_the_environment(tmp_path, monkeypatch):
    write(tmp_path, "input_px = 32\n")
    other = tmp_path / "other.toml"
    other.write_text("input_px = 48\n")
    assert config.load(tmp_path, config_file=other).input_px == 48
    monkeypatch.setenv("COARSELOC_CONFIG", str(other))
    assert config.load(tmp_path).input_px == 48
    with pytest.raises(ConfigError, match=r"none\.toml is not there: correct --config or COARSELOC_CONFIG"):
        config.load(tmp_path, config_file=tmp_path / "none.toml")


@pytest.mark.parametrize(
    "text, message",
    [
        ("= 3", r"coarseloc\.toml is not TOML: .*Correct it or move it away"),
        (b"\xff\xfe", r"coarseloc\.toml is not TOML: .*Correct it or move it away"),
        ("inputpx = 3", "setting `inputpx` is 3: Extra inputs are not permitted"),
        ("input_px = 'x'", "setting `input_px` is 'x': .*Correct COARSELOC_INPUT_PX or coarseloc.toml"),
        ('[[backbones]]\nname = "tiny"\n', r"setting `backbones\.0\.path`"),
        ("toml_file = 'x'", "setting `toml_file`"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path, text, message):
    write(tmp_path, text)
    with pytest.raises(ConfigError, match=message):
        config.load(tmp_path)
