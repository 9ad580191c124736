"""What commands print: tables as wide as the terminal, and progress where there is none."""

from __future__ import annotations

import re

import pytest

from coarseloc.cli import terminal


@pytest.mark.parametrize("width", [30, 80])
def test_columns_beyond_the_width_stand_below_behind_the_first(monkeypatch, capsys, width):
    monkeypatch.setattr(terminal, "out", terminal.VisibleConsole(width=width, markup=False, highlight=False))
    columns = [f"column {i}" for i in range(12)]
    terminal.table("backbone", *columns, rows=[("vits16", *(f"value {i}" for i in range(12)))])
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= width for line in lines)
    assert re.findall(r"column \d+", " ".join(lines)) == columns  # each whole, once, in order
    headers = [line for line in lines if "column" in line]
    assert len(headers) > 1 and all(line.startswith("backbone ") for line in headers)


def test_progress_without_a_terminal_is_a_line_now_and_then(monkeypatch, capsys):
    now = iter([0.0, 1.0, 10.0, 12.0, 25.0])
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(now))
    with terminal.progress_bar("search demo") as progress:
        for done in (100, 200, 220, 350):  # the first 100 were an earlier run's
            progress(done, 600, "frames")
    assert capsys.readouterr().err.splitlines() == [
        "search demo: 200 of 600 frames, 10 a second, 40 s left",
        "search demo: 350 of 600 frames, 10 a second, 25 s left",
    ]
