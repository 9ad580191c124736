"""What the figures of a report are as files."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from search.evaluation.report import style


def test_a_figure_is_the_same_file_in_every_run(tmp_path: Path) -> None:
    def hatched_figure() -> Figure:
        figure = Figure()
        figure.subplots().fill_between([0, 1, 2], [1, 2, 1], hatch="/")  # clip paths and hatches have ids
        return figure

    first, second = (style.write(hatched_figure(), tmp_path / folder, "curve") for folder in ("first", "again"))
    assert [path.suffix for path in first] == [".png", ".svg"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
