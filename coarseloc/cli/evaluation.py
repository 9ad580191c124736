"""`coarseloc evaluate` and `report`: how good a flight's runs are, in numbers and as one file to read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coarseloc.cli.options import flight_id, method_option, report_options
from coarseloc.cli.terminal import answer, err, json_option, next_step, out, pass_workspace, spoken, table
from coarseloc.core import files
from coarseloc.workspace import Workspace

if TYPE_CHECKING:
    from search.evaluation.evaluate import Evaluations, FrameCounts
    from search.evaluation.fix_evaluation import FixCounts, FixEvaluation
    from search.evaluation.fix_scores import FixScore
    from search.evaluation.intervals import IntervalEstimate
    from search.evaluation.scores import Score
    from search.evaluation.track_evaluation import TrackEvaluation, TrackScore

FORMS = {"m": "{:.1f}", "°": "{:.1f}", "%": "{:.1%}", "": "{:.3f}"}


@click.command()
@click.argument("names", metavar="FLIGHT|RUN…", nargs=-1, required=True)
@click.option("--reference-set", "name", help="Only a flight's runs against this set.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Write every score to this file as well.")
@method_option
@click.option("--all", "all_scores", is_flag=True, help="Every score, with its 95 % interval and n_eff.")
@json_option
@pass_workspace
def evaluate(
    workspace: Workspace,
    names: Sequence[str],
    name: str | None,
    csv_file: Path | None,
    all_scores: bool,
    method: str,
    as_json: bool,
) -> None:
    """Score runs against the truth: FLIGHT means its newest run of each backbone.

    Frames without truth are counted and left out. Places are scored on frames the map shows, headings where the
    place is right, rejection on all. Intervals are 95 %; n_eff is the number of independent frames that the
    correlated ones of a flight are worth: below 30 of them no interval is said.
    """
    from search.evaluation.evaluate import to_csv

    evaluations = workspace.evaluate(*map(flight_id, names), reference_set=name, method=method, save=True)
    if csv_file:
        csv_file.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(csv_file, to_csv(evaluations))

    def show() -> None:
        _print_scores(evaluations, all_scores)
        next_step("report", *map(flight_id, names), "--out", "report.html", note="these and their figures, to read")

    answer(as_json, evaluations.to_json(), show)


_SHORT = ("error_median", "error_mean", "hit_centre@1", "hit_footprint@1", "hit_footprint@10", "pdm@10",
          "heading_error_median", "margin_area")  # fmt: skip
_SHORT_FIX = ("fix_ground_error_median", "fix_aircraft_error_median", "fix_aircraft_within@5", "fix_ground_coverage@95",
              "fix_aircraft_coverage@95", "fix_aircraft_nees", "fix_heading_error_median", "fix_right",
              "fix_wrong_matches", "fix_verify_median")  # fmt: skip


def _print_scores(evaluations: Evaluations, all_scores: bool) -> None:
    """A row per score and a column per run: six backbones fit beside each other, forty scores do not."""
    from search.evaluation.fix_evaluation import NO_BACKBONE
    from search.evaluation.fix_scores import FIX_SCORES, FIX_SCORES_BY_KEY
    from search.evaluation.scores import BY_KEY, SCORES

    scores = SCORES if all_scores else [BY_KEY[key] for key in _SHORT]
    columns = [f"{evaluation.label} (run {evaluation.run.id})" for evaluation in evaluations]
    columns += [f"{NO_BACKBONE} ({whole_map.reference_set})" for whole_map in evaluations.whole_maps]
    empty = [""] * len(evaluations.whole_maps)
    rows: list[tuple[object, ...]] = []
    if evaluations:
        rows += [
            (_row_title(score), *(_cell(e.scores[score.key], score, e.counts, all_scores) for e in evaluations), *empty)
            for score in scores
        ]
    fixes = [evaluation.fixes for evaluation in evaluations] + evaluations.whole_maps
    if evaluations.fixes:
        fix_scores = FIX_SCORES if all_scores else [FIX_SCORES_BY_KEY[key] for key in _SHORT_FIX]
        rows += [(_row_title(score), *(_fix_cell(fix, score, all_scores) for fix in fixes)) for score in fix_scores]
    for title, count in _COUNTS.items():
        rows.append((spoken(title), *(getattr(row.counts, count) for row in (*evaluations, *evaluations.whole_maps))))
    for title, count_fixes in _FIX_COUNTS.items() if evaluations.fixes else ():
        rows.append((spoken(title), *("" if fix is None else count_fixes(fix.counts) for fix in fixes)))
    if columns:
        table("", *columns, rows=rows)
    if evaluations.tracks:
        _print_tracks(evaluations.tracks, all_scores)
    notes = ["n is said where it is not all frames on the map"]
    if not all_scores:
        notes.append("--all shows every score")
    if any(fix.counts.judged for fix in evaluations.fixes):
        notes.append(
            "of matches that are wrong, [0, …] is the exact 95 % upper bound; an ellipse holds its own share (=)"
        )
    if any(not fix.counts.line_of_sight and fix.fixes.match.any() for fix in evaluations.fixes):
        notes.append(
            "the truth is the aircraft's position: without its pitch, roll, altitude above ground and the camera's "
            "field of view a ground error holds the tilt's lever, and no coverage is said of it"
        )
    for note in notes:
        out.print(note)


def _print_tracks(tracks: Sequence[TrackEvaluation], with_intervals: bool) -> None:
    """A column per stored track; of false claims the exact 95 % upper bound beside the share. with_intervals: of
    blocks of consecutive frames."""
    from search.evaluation.track_evaluation import TRACK_SCORES

    def text(track: TrackEvaluation, score: TrackScore) -> str:
        estimate, block = track.scores[score.key], track.block_intervals.get(score.key)
        value = _estimate_text(estimate, score.text, estimate.n, with_interval=False)
        if block is None:
            return value + (f" [≤ {score.text(estimate.high)}], n {estimate.n}" if estimate.n else "")
        if not with_intervals or math.isnan(block.low):
            return value
        return f"{value} [{score.text(block.low)}, {score.text(block.high)}], blocks of {block.block}"

    rows: list[tuple[object, ...]] = [
        (_row_title(score), *(text(track, score) for track in tracks)) for score in TRACK_SCORES
    ]
    rows.append((spoken("track: false from, m"), *(f"{track.false_claim_m:g}" for track in tracks)))
    rows.append((spoken("track: frames to acquire"), *(_frames(track.acquired_after) for track in tracks)))
    rows.append(
        (spoken("track: frames lost each time"), *(", ".join(map(_frames, track.losses)) or "–" for track in tracks))
    )
    rows.append((spoken("frames judged"), *(len(track.judged.error_m) for track in tracks)))
    table("", *(track.label for track in tracks), rows=rows, title="tracks")


def _frames(count: int | None) -> str:
    return "to the end" if count is None else str(count)


_COUNTS = {
    "frames": "frames",
    "judged": "judged",
    "of these off the map": "off_map",
    "without truth, left out": "without_truth",
    "failed, left out": "failed",
}
_FIX_COUNTS: dict[str, Callable[[FixCounts], object]] = {
    "fix: frames looked for": lambda counts: counts.frames - counts.failed,
    "fix: matches": lambda counts: counts.matches,
    "fix: no match": lambda counts: _reasons(counts.no_match),
    "fix: not verified": lambda counts: _reasons(counts.not_verified),
}


def _reasons(counts: Mapping[str, int]) -> str:
    """`3 (ambiguous 2, no-ground 1)`"""
    total = sum(counts.values())
    return f"{total} ({', '.join(f'{reason} {n}' for reason, n in counts.items())})" if total else "0"


def _row_title(score: Score | FixScore | TrackScore) -> str:
    return f"{spoken(score.title)} ({_DIRECTIONS[score.better]})"


_DIRECTIONS = {"lower": "↓", "higher": "↑", "nominal": "="}


def _cell(estimate: IntervalEstimate, score: Score, counts: FrameCounts, all_scores: bool) -> str:
    expected_n = counts.judged if score.group == "rejection" else counts.judged - counts.off_map
    return _estimate_text(estimate, FORMS[score.unit].format, expected_n, all_scores)


def _fix_cell(fix: FixEvaluation | None, score: FixScore, all_scores: bool) -> str:
    if fix is None:
        return ""
    on_map = fix.counts.judged - fix.counts.off_map
    text = _estimate_text(fix.scores[score.key], score.text, on_map, all_scores or score.is_bound)
    low, high = fix.nees_regions.get(score.key, (math.nan, math.nan))
    return text if math.isnan(low) else f"{text}, expected {low:.2f} to {high:.2f}"


def _estimate_text(
    estimate: IntervalEstimate, form: Callable[[float], str], expected_n: int, with_interval: bool
) -> str:
    if math.isnan(estimate.value):
        return "–"
    interval = f" [{form(estimate.low)}, {form(estimate.high)}]" if not math.isnan(estimate.low) else ""
    notes = [] if estimate.n == expected_n else [f"n {estimate.n}"]
    if with_interval:
        notes.append("n_eff –" if math.isnan(estimate.n_eff) else f"n_eff {estimate.n_eff:.0f}")
    return form(estimate.value) + (interval if with_interval else "") + (f" ({', '.join(notes)})" if notes else "")


@click.command()
@click.argument("names", metavar="FLIGHT|RUN…", nargs=-1, required=True)
@click.option("--out", "file", type=click.Path(path_type=Path), required=True, help="The HTML file to write.")
@report_options
@method_option
@click.option("--reference-set", "name", help="Only a flight's runs against this set.")
@click.option("--frame", type=int, help="Whose thumbnails to show; the frame of middling error by default.")
@json_option
@pass_workspace
def report(
    workspace: Workspace,
    names: Sequence[str],
    file: Path,
    language: str,
    figures: Path | None,
    name: str | None,
    frame: int | None,
    note: str | None,
    method: str,
    as_json: bool,
) -> None:
    """One self-contained HTML file of runs: scores, times, errors, agreement, worst frames, with their tables."""
    evaluations = workspace.evaluate(*map(flight_id, names), reference_set=name, method=method, save=True)
    options = {"language": language, "figures": figures, "frame": frame, "note": note}
    for notice in workspace.report(evaluations, file, **options):
        err.print(notice, style="yellow")
    size = file.stat().st_size
    facts = {"file": str(file), "bytes": size, "runs": [evaluation.run.id for evaluation in evaluations]}
    answer(as_json, facts, lambda: out.print(f"wrote {file} ({size / 1e6:.1f} MB) of {len(evaluations)} runs"))
