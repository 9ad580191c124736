"""What the figures of a report are as files."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.text import Annotation

from search.evaluation.report import style


def test_names_of_points_that_lie_close_are_moved_apart() -> None:
    _, (ax,) = style.new_figure()
    ax.set(xlim=(0, 10), ylim=(0, 10))
    style.label_points(ax, [(5.0, 5.0, "first"), (5.01, 5.0, "second"), (9.0, 1.0, "far away")])
    offsets = {name.get_text(): name.xyann for name in ax.texts if isinstance(name, Annotation)}
    assert offsets["first"] == offsets["far away"] == (8, 5), "beside their points, where nothing is in the way"
    assert offsets["second"] != offsets["first"]


def test_a_figure_is_the_same_file_in_every_run(tmp_path: Path) -> None:
    def hatched_figure() -> Figure:
        figure = Figure()
        figure.subplots().fill_between([0, 1, 2], [1, 2, 1], hatch="/")  # clip paths and hatches have ids
        return figure

    first, second = (style.write_figure(hatched_figure(), tmp_path / folder, "curve") for folder in ("first", "again"))
    assert [path.suffix for path in first] == [".png", ".svg"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
