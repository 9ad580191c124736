"""The report of runs: figures of scores and times, and of errors where the truth is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from coarseloc.core.errors import InputError
from coarseloc.core.types import Frame, Progress, ReferenceSet, T
from coarseloc.i18n import Translator, translator
from coarseloc.localize import metrics
from search.evaluation import scores
from search.evaluation.intervals import bootstrap
from search.evaluation.report import accuracy, confidence, fixes, pictures, style, timing
from search.evaluation.report.page import (
    Page,
    Section,
    Table,
    figures_translator,
    stand_in_warnings,
    threads_text,
    timing_text,
    write_page,
)
from search.evaluation.report.plotted_run import PlottedRun, estimate_text, group_by_timing, plotted_runs
from search.evaluation.report.tracks import make_sections as make_track_sections
from search.evaluation.report.tracks import map_name

if TYPE_CHECKING:
    from search.evaluation.evaluate import Evaluation
    from search.evaluation.fix_evaluation import FixEvaluation
    from search.evaluation.track_evaluation import TrackEvaluation

K = 10
WORST_COUNT = 6  # frames of largest error


def write_report(
    evaluations: Sequence[Evaluation],
    thumbnails: Path,
    out: Path,
    *,
    whole_maps: Sequence[FixEvaluation] = (),
    tracks: Sequence[TrackEvaluation] = (),
    language: str = "en",
    figures: Path | None = None,
    frame: int | None = None,
    note: str | None = None,
    created_at: datetime | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Write runs as one HTML file with all their figures; returns notices for the user.

    `whole_maps`: what whole maps give without any backbone. `tracks`: of the flights. `frame`: whose thumbnails are shown, the one of median error by default. `figures`: a folder for PNG and SVG.
    `note`: a line put above everything. `created_at`: in UTC, now by default. Raises InputError for a frame that no run has.
    """
    translate = translator(language)
    runs = plotted_runs(evaluations)
    answered = any(len(run.scores) for run in runs) or any(whole_map.answers for whole_map in whole_maps)
    if not answered and not tracks:
        raise InputError("no frame of these runs was answered: there is nothing to report; see `coarseloc flights`")
    translate_figures, notices = figures_translator(language, figures)
    shown_frame = _find_frame(runs, frame)
    sections = _sections(runs, whole_maps, tracks, shown_frame, thumbnails, translate, translate_figures)
    page = Page(
        title=translate("Localization report: {flights}").format(flights=_flights(runs, whole_maps, tracks)),
        lead=_summary_paragraph(runs, translate) if runs else [],
        facts=_facts(runs, translate) if runs else _facts_without_runs(whole_maps, tracks, translate),
        sections=sections,
        warnings=_warnings(runs, note, translate),
        language=language,
        translate=translate,
        created_at=created_at,
    )
    write_page(page, out, figures, progress)
    if figures and shown_frame:
        with style.drawing():
            style.write_figure(pictures.contact_sheet(shown_frame, runs, thumbnails, K), figures, "thumbnails")
    return notices


def _sections(
    runs: Sequence[PlottedRun],
    whole_maps: Sequence[FixEvaluation],
    tracks: Sequence[TrackEvaluation],
    shown_frame: Frame | None,
    thumbnails: Path,
    translate: Translator,
    translate_figures: Translator,
) -> list[Section]:
    with_truth = [run for run in runs if len(run.evaluation.frames)]
    sections: list[Section] = []
    if with_truth:
        sections += _with_figures_in(accuracy.make_sections, with_truth, translate, translate_figures)
        sections += _with_figures_in(confidence.make_sections, with_truth, translate, translate_figures)
    sections += _with_figures_in(partial(_fix_sections, whole_maps), runs, translate, translate_figures)
    sections += _with_figures_in(make_track_sections, tracks, translate, translate_figures)
    if runs:
        sections += _with_figures_in(timing.make_sections, runs, translate, translate_figures)
    if shown_frame:
        sections.append(
            Section(
                "thumbnails",
                translate("Top {k} of one frame").format(k=K),
                translate(
                    "The query on the left, a row per backbone. A solid green border: its footprint holds the truth; "
                    "a dashed orange one: it does not. Under each its score, heading and distance from the truth."
                )
                + _missing_note(runs, [shown_frame], thumbnails, translate),
                body=pictures.hit_strips(shown_frame, runs, thumbnails, K, translate),
            )
        )
    if worst_frames := pictures.worst_frames(with_truth, WORST_COUNT):
        sections.append(
            Section(
                "worst-frames",
                translate("Worst frames"),
                translate("The frames with the largest error, as the median over the runs, and the best hit of each.")
                + _missing_note(runs, worst_frames, thumbnails, translate, 1),
                body="".join(pictures.best_hits(frame, runs, thumbnails, translate) for frame in worst_frames),
            )
        )
    if runs:
        sections.append(Section("runs", translate("Runs"), table=_run_table(runs, translate), open=True))
    return sections


def _fix_sections(
    whole_maps: Sequence[FixEvaluation], runs: Sequence[PlottedRun], translate: Translator
) -> list[Section]:
    plotted = fixes.plotted_fixes(runs, whole_maps, translate)
    unmatched = fixes.unmatched_section(plotted, translate)
    return fixes.make_sections(plotted, translate) + ([] if unmatched is None else [unmatched])


def _with_figures_in(
    make_sections: Callable[[Sequence[T], Translator], list[Section]],
    answers: Sequence[T],
    translate: Translator,
    translate_figures: Translator,
) -> list[Section]:
    """Sections whose figures are in another language than their text, for lack of a font."""
    sections = make_sections(answers, translate)
    if translate is translate_figures:
        return sections
    return [
        replace(section, draw=drawn.draw, chart=drawn.chart)
        for section, drawn in zip(sections, make_sections(answers, translate_figures), strict=True)
    ]


def _missing_note(
    runs: Sequence[PlottedRun], frames: Sequence[Frame], thumbnails: Path, translate: Translator, k: int = K
) -> str:
    missing = pictures.count_missing(runs, frames, thumbnails, k)
    count = sum(missing.values())
    return (
        ""
        if not count
        else " " + translate("{n} pictures are no longer where they were and shown grey.").format(n=count)
    )


def _find_frame(runs: Sequence[PlottedRun], index: int | None) -> Frame | None:
    if index is None or not runs:
        return pictures.median_frame(runs)
    for run in runs:
        for result in run.evaluation.results:
            if result.frame.index == index:
                return result.frame
    first, last = (pick(r.frame.index for run in runs for r in run.evaluation.results) for pick in (min, max))
    raise InputError(f"frame {index} is in none of these runs: their frames are numbered {first} to {last}")


# --- text ---------------------------------------------------------------------------------------


def _summary_paragraph(runs: Sequence[PlottedRun], translate: Translator) -> list[str]:
    """A paragraph on the best runs by error, recall and speed."""
    with_truth = [run for run in runs if run.evaluation.scores["error_median"].n]
    if not with_truth:
        return [
            translate("The position of no frame is known, so errors cannot be told; scores alone say little of them."),
            *_fastest(runs, translate),
        ]
    best = min(with_truth, key=lambda run: run.evaluation.scores["error_median"].value)
    smallest = best.evaluation.scores["error_median"]
    most_right = max(with_truth, key=lambda run: run.evaluation.scores["hit_footprint@1"].value)
    lines = [
        translate("{name} has the smallest median error, {error} m over {n} frames.").format(
            name=best.label, error=estimate_text(smallest, "m"), n=smallest.n
        ),
        translate("{name} finds the right place most often, in {share} of the frames.").format(
            name=most_right.label, share=estimate_text(most_right.evaluation.scores["hit_footprint@1"], "%")
        ),
        *_fastest(runs, translate),
    ]
    tied = [run.label for run in with_truth if run is not best and _is_tied(run, best)]
    if tied:
        lines.insert(
            1,
            translate("On these frames the median errors of {names} are not told apart from it.").format(
                names=", ".join(tied)
            ),
        )
    front_labels = accuracy.pareto_labels(with_truth)
    for title, group in group_by_timing(with_truth, translate):
        if len(group) < 2:
            continue
        names = ", ".join(run.label for run in group if run.label in front_labels)
        if title:
            lines.append(translate("Unbeaten in both speed and error ({how}): {names}.").format(how=title, names=names))
        else:
            lines.append(translate("Unbeaten in both speed and error: {names}.").format(names=names))
    return [" ".join(lines)]


def _fastest(runs: Sequence[PlottedRun], translate: Translator) -> list[str]:
    """The fastest run of each group whose times compare, or the time of a run that is alone in its group."""
    lines = []
    for title, group in group_by_timing([run for run in runs if len(run.total_ms)], translate):
        fastest = min(group, key=lambda run: float(run.total_ms.mean()))
        text = (
            translate("{name} is the fastest: {ms} ms a frame for embedding and search on average ({how}).")
            if len(group) > 1
            else translate("{name} takes {ms} ms a frame for embedding and search on average ({how}).")
        )
        conditions = title or timing_text(fastest.batch, translate)
        lines.append(text.format(name=fastest.label, ms=f"{fastest.total_ms.mean():.1f}", how=conditions))
    return lines


def _is_tied(run: PlottedRun, best: PlottedRun) -> bool:
    """Whether the interval of the difference of two runs' median errors, on the frames both have, holds zero, or too
    few frames are independent for an interval."""
    pair = [compared.evaluation.frames.select(compared.evaluation.frames.on_map) for compared in (run, best)]
    errors_by_frame = [
        dict(zip(frames.frame.tolist(), metrics.error_m(frames.ranked).tolist(), strict=True)) for frames in pair
    ]
    shared_frames = sorted(errors_by_frame[0].keys() & errors_by_frame[1].keys())
    if run.stored.flight_id != best.stored.flight_id or not shared_frames:
        return not run.evaluation.scores["error_median"].low > best.evaluation.scores["error_median"].high
    pairs = np.array([[errors[frame] for errors in errors_by_frame] for frame in shared_frames])
    difference = bootstrap(
        pairs,
        float(np.max([scores.correlation(frames) for frames in pair])),  # nan where one is unknown
        statistic=lambda samples: np.subtract(*np.median(samples, axis=1).T),
    )
    return not (difference.low > 0 or difference.high < 0)


def _warnings(runs: Sequence[PlottedRun], note: str | None, translate: Translator) -> list[str]:
    warnings = [note] if note else []
    warnings += stand_in_warnings((run.evaluation.backbone for run in runs), translate)
    if len(group_by_timing(runs, translate)) > 1:
        warnings.append(
            translate(
                "Not all of these runs were timed alike (one frame at a time or in batches, device, processor, threads; "
                "or it is not recorded): times are ranked only among runs that were."
            )
        )
    return warnings


def _flights(
    runs: Sequence[PlottedRun], whole_maps: Sequence[FixEvaluation] = (), tracks: Sequence[TrackEvaluation] = ()
) -> str:
    flight_ids = [run.stored.flight_id for run in runs] + [whole_map.flight_id for whole_map in whole_maps]
    flight_ids += [track.localization.flight_id for track in tracks]
    return ", ".join(dict.fromkeys(flight_ids))


def _facts_without_runs(
    whole_maps: Sequence[FixEvaluation], tracks: Sequence[TrackEvaluation], translate: Translator
) -> list[tuple[str, str]]:
    """Of whole maps and tracks alone, where no run is reported."""
    environments = [whole_map.localization.parameters["environment"] for whole_map in whole_maps]
    devices = [" · ".join(str(environment.get(key, "?")) for key in ("device", "cpu")) for environment in environments]
    sets = [whole_map.reference_set for whole_map in whole_maps] + [map_name(track) for track in tracks]
    frames = {whole_map.flight_id: whole_map.counts.frames for whole_map in whole_maps}
    frames |= {track.localization.flight_id: len(track.track.frames) for track in tracks}
    return [
        (translate("Flights"), _flights((), whole_maps, tracks)),
        (translate("Reference sets"), "; ".join(dict.fromkeys(sets))),
        (translate("Frames"), ", ".join(map(str, frames.values()))),
        *([(translate("Device"), "; ".join(dict.fromkeys(devices)))] if devices else []),
    ]


def _facts(runs: Sequence[PlottedRun], translate: Translator) -> list[tuple[str, str]]:
    counts = runs[0].evaluation.counts
    environments = [run.stored.environment for run in runs]
    batches = dict.fromkeys(timing_text(run.batch, translate) for run in runs)
    devices = [
        " · ".join(str(environment.get(key, "?")) for key in ("device", "cpu", "backend"))
        for environment in environments
    ]
    threads = [threads_text(environment.get("threads"), translate) for environment in environments]
    versions = ", ".join(f"{name} {version}" for name, version in environments[0].get("versions", {}).items())
    sets = {run.stored.reference_set.name: run.stored.reference_set for run in runs}
    frames = translate("{frames}, of which {failed} failed and {without} have no truth; {off} are off the map")
    times = translate("after {n} warm-up calls, the device synchronised; {how}")
    return [
        (translate("Flights"), _flights(runs)),
        (
            translate("Reference sets"),
            "; ".join(_reference_set_text(reference_set, translate) for reference_set in sets.values()),
        ),
        (
            translate("Frames"),
            frames.format(frames=counts.frames, failed=counts.failed, without=counts.without_truth, off=counts.off_map),
        ),
        (translate("Device"), "; ".join(dict.fromkeys(devices))),
        (translate("Threads"), "; ".join(dict.fromkeys(threads))),
        (translate("Times"), times.format(n=environments[0].get("warm_up", "?"), how="; ".join(batches))),
        (translate("Versions"), versions or "?"),
    ]


def _reference_set_text(reference_set: ReferenceSet, translate: Translator) -> str:
    height = f"{reference_set.altitude_m:g} m, " if reference_set.altitude_m else ""
    side = f"{reference_set.footprint_m:.0f} m" if reference_set.footprint_m else "?"
    return translate("{name} ({height}overlap {overlap}, footprint {side}, {angles} headings)").format(
        name=reference_set.name,
        height=height,
        overlap=f"{reference_set.overlap:.0%}",
        side=side,
        angles=len(reference_set.angles),
    )


def _run_table(runs: Sequence[PlottedRun], translate: Translator) -> Table:
    rows = []
    for run in runs:
        stored, spec, counts = run.stored, run.stored.spec, run.evaluation.counts
        parameters = {key: value for key, value in stored.parameters.items() if key != "index_version" and value}
        rows.append(
            [str(stored.id), run.label, stored.flight_id, stored.reference_set.name,
             spec.how, spec.digest[:12],
             f"{stored.environment.get('device', '?')}, {stored.environment.get('backend', '?')}",
             ", ".join(f"{key} {value}" for key, value in parameters.items()), str(counts.frames), str(counts.judged),
             f"{stored.finished_at:%Y-%m-%d %H:%M}" if stored.finished_at else ""]
        )  # fmt: skip
    columns = (translate("run"), translate("backbone"), translate("flight"), translate("reference set"),
               translate("input"), translate("spec digest"), translate("device"), translate("asked"),
               translate("frames"), translate("judged"), translate("finished"))  # fmt: skip
    return Table(columns, rows)
