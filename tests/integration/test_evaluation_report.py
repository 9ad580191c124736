"""The report: one file, offline, every figure and table, in both languages."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from databases import database_url
from study_runs import make_runs

from coarseloc.core.errors import InputError
from coarseloc.i18n import dictionary
from coarseloc.store import Database, open_database
from search.evaluation import evaluate
from search.evaluation.report import timing
from search.evaluation.report.plotted_run import plotted_runs
from search.evaluation.report.runs import write_report

FIGURES = {
    "error", "hit-curve", "speed-and-accuracy", "heading", "agreement", "margin-and-error", "rejection",
    "score-distribution", "mean-score", "search-time", "total-time", "time-and-score", "mean-times", "thumbnails",
}  # fmt: skip


class Page(HTMLParser):
    """What a browser would see: ids, sources, and whether tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.sources: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href") and not (value or "").startswith("#"):
                self.sources.append(value or "")

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def evaluations(folder: Path) -> list[evaluate.Evaluation]:
    db = open_database(database_url(folder))
    make_runs(db, folder, backbones=2, frames=20, columns=5, rows=4, k=10)
    return evaluate.evaluate(db, evaluate.find_runs(db, ["251124155712"]))


@pytest.fixture(scope="module")
def report(evaluations: list[evaluate.Evaluation], folder: Path) -> str:
    """A report in English, its figures in `figures` beside it."""
    out = folder / "deep" / "report.html"
    note = "random weights stand in for <all>"
    assert write_report(evaluations, folder / "thumbnails", out, figures=folder / "figures", note=note) == []
    return out.read_text(encoding="utf-8")


def test_a_report_is_one_file_that_asks_nothing_of_the_network(report: str) -> None:
    page = Page(report)
    assert all(source.startswith("data:") for source in page.sources)
    assert "<script" not in report and "url(http" not in report
    assert len(page.ids) == len(set(page.ids))
    assert FIGURES | {"scores", "worst-frames", "runs"} <= set(page.ids)


def test_every_figure_is_written_as_png_and_svg(report: str, folder: Path) -> None:
    for form in ("png", "svg"):
        assert {path.stem for path in (folder / "figures").glob(f"*.{form}")} == FIGURES


def test_figures_follow_the_readers_colours(report: str) -> None:
    svgs = re.findall(r"<svg.*?</svg>", report, re.DOTALL)
    assert len(svgs) == len(FIGURES) - 1
    for svg in svgs:
        assert not re.search(r"#[0-9a-f]{6}\b", svg), "a colour that light and dark cannot both show"
        assert 'role="img"' in svg and "aria-label" in svg


def test_what_stands_in_for_the_six_is_said(report: str) -> None:
    assert "random weights stand in for &lt;all&gt;" in report


def test_scores_say_their_n_eff_and_the_caption_says_from_where_on_an_interval(report: str) -> None:
    assert re.search(r"<small>n_eff \d+</small>", report)
    assert "from 30 of them on the 95 % interval" in report


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("frames", "told_apart"), [(40, False), (250, True)])
def test_median_errors_are_told_apart_only_where_enough_frames_are_independent(
    db: Database, tmp_path: Path, frames: int, told_apart: bool
) -> None:
    """69 and 117 m over 241 frames are; of 31 frames nothing can be said."""
    run_ids = make_runs(db, tmp_path, backbones=2, frames=frames, columns=12, rows=12, k=10)
    evaluations = evaluate.evaluate(db, evaluate.find_runs(db, [str(run) for run in run_ids]))
    write_report(evaluations, tmp_path / "thumbnails", tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert ("are not told apart from it" not in text) == told_apart


def test_every_text_of_a_report_is_there_in_korean(evaluations: list[evaluate.Evaluation], tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    write_report(evaluations, tmp_path / "thumbnails", out, language="ko")
    page = out.read_text(encoding="utf-8")
    assert '<html lang="ko">' in page
    english = [key for key in dictionary("ko") if len(key) > 12 and "{" not in key and f">{key}<" in page]
    assert english == []
    words = [word.strip() for word in Page(page).words]
    english = [word for word in words if re.fullmatch(r"[A-Z][a-z]+( [a-z]+)+\.?", word)]
    assert english == []


@pytest.mark.usefixtures("undrawn")
def test_without_truth_a_report_still_shows_scores_and_times(db: Database, tmp_path: Path) -> None:
    make_runs(db, tmp_path, backbones=2, frames=5, columns=4, rows=3, k=5)  # frames 3 to 5 have no truth
    evaluations = evaluate.evaluate(db, evaluate.find_runs(db, ["251124155712"]))
    out = tmp_path / "report.html"
    write_report(evaluations, tmp_path / "thumbnails", out)
    ids = set(Page(out.read_text(encoding="utf-8")).ids)
    assert "mean-times" in ids and "error" not in ids


def test_a_frame_that_no_run_has_is_refused(evaluations: list[evaluate.Evaluation], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="numbered 1 to 20"):
        write_report(evaluations, tmp_path / "thumbnails", tmp_path / "report.html", frame=99)


def test_nothing_answered_is_nothing_to_report(db: Database, tmp_path: Path) -> None:
    make_runs(db, tmp_path, backbones=1, frames=2, columns=3, rows=2, k=5)  # both have failed
    evaluations = evaluate.evaluate(db, evaluate.find_runs(db, ["251124155712"]))
    with pytest.raises(InputError, match="nothing to report"):
        write_report(evaluations, tmp_path / "thumbnails", tmp_path / "report.html")


def _timed_otherwise(evaluation: evaluate.Evaluation, batch: int, **environment: object) -> evaluate.Evaluation:
    """The same run as if it had been timed so."""
    parameters, on = {**evaluation.run.parameters, "batch": batch}, {**evaluation.run.environment, **environment}
    return replace(evaluation, run=replace(evaluation.run, parameters=parameters, environment=on))


@pytest.mark.usefixtures("undrawn")
def test_a_batchs_times_are_never_ranked_against_single_frames(
    evaluations: list[evaluate.Evaluation], tmp_path: Path
) -> None:
    single, batched = evaluations[0], _timed_otherwise(evaluations[1], 8)
    write_report([single, batched], tmp_path / "thumbnails", tmp_path / "mixed.html")
    mixed_text = " ".join(Page((tmp_path / "mixed.html").read_text(encoding="utf-8")).words)
    assert "is the fastest" not in mixed_text and "Unbeaten" not in mixed_text, "neither has a run to be ranked against"
    assert f"{single.label} takes" in mixed_text and f"{batched.label} takes" in mixed_text
    assert (
        "batches of up to 8, their time divided by their frames" in mixed_text and "one frame at a time" in mixed_text
    )
    assert "Not all of these runs were timed alike" in mixed_text
    write_report(evaluations, tmp_path / "thumbnails", tmp_path / "alike.html")
    same_batch = " ".join(Page((tmp_path / "alike.html").read_text(encoding="utf-8")).words)
    assert "is the fastest" in same_batch and "Unbeaten" in same_batch and "Not all of these runs" not in same_batch


@pytest.mark.usefixtures("undrawn")
def test_threads_are_shown_where_a_run_records_them_and_never_guessed(
    evaluations: list[evaluate.Evaluation], tmp_path: Path
) -> None:
    old, new = evaluations[0], _timed_otherwise(evaluations[1], 1, threads={"torch": 4, "faiss": 3, "omp": 2})
    write_report([old, new], tmp_path / "thumbnails", tmp_path / "report.html")
    text = " ".join(Page((tmp_path / "report.html").read_text(encoding="utf-8")).words)
    assert "threads not recorded; torch 4, FAISS 3, OpenMP 2 threads" in text
    assert "is the fastest" not in text, "who knows how many threads the old run had"


def test_total_times_have_a_panel_for_each_reference_set(evaluations: list[evaluate.Evaluation]) -> None:
    first, second = evaluations
    winter = replace(second.run, reference_sets=(replace(second.run.reference_set, name="winter"),))
    figure = timing.plot_set_times(plotted_runs([first, replace(second, run=winter)]), str)
    assert [(ax.get_title(), len(ax.patches)) for ax in figure.axes] == [
        ("made-up: 160 references", 1),
        ("winter: 160 references", 1),
    ]


def test_the_total_of_mean_times_leaves_decoding_out(evaluations: list[evaluate.Evaluation]) -> None:
    runs = plotted_runs(evaluations)
    section = next(section for section in timing.make_sections(runs, str) if section.key == "mean-times")
    assert section.table is not None and section.draw is not None
    columns = list(section.table.columns)
    written = [text.get_text().strip() for text in section.draw().axes[0].texts]
    for run, row, beside in zip(runs, section.table.rows, written, strict=True):
        names = ("embed", "search", "total: embed + search", "decode, not in the total")
        embed, search, total, decode = (float(row[columns.index(name)]) for name in names)
        assert total == pytest.approx(embed + search, abs=0.02) and decode > 1
        assert float(beside) == pytest.approx(run.total_ms.mean(), abs=0.05) == pytest.approx(total, abs=0.06)
