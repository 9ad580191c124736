"""The report of runs: the figures of scores and times, and against the truth where it is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from coarseloc.core.errors import InputError
from coarseloc.core.types import Frame, Progress
from coarseloc.i18n import Translator, translator
from coarseloc.localize import metrics
from coarseloc.store.runs import StoredRun
from search.evaluation import scores
from search.evaluation.evaluate import Evaluation
from search.evaluation.intervals import bootstrap
from search.evaluation.report import accuracy, pictures, style, timing
from search.evaluation.report.page import Page, Section, Table, figures_say, write
from search.evaluation.report.series import Series, series_of, shown, timed_alike
from search.evaluation.report.texts import how_timed, stand_ins, threads_of

K = 10
WORST = 6  # frames shown


def write_report(
    evaluations: Sequence[Evaluation],
    thumbnails: Path,
    out: Path,
    *,
    language: str = "en",
    figures: Path | None = None,
    frame: int | None = None,
    note: str | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """One HTML file of everything that can be seen in these runs; returns notices for who asked.

    `frame`: whose thumbnails are shown, the one of middling error by default. `figures`: a folder for PNG and SVG.
    `note`: a line put above everything. Raises InputError for a frame that no run has.
    """
    say = translator(language)
    runs = series_of(evaluations)
    if not any(len(one.scores) for one in runs):
        raise InputError("no frame of these runs was answered: there is nothing to report; see `coarseloc flights`")
    say_figures, notices = figures_say(language, figures)
    chosen = _frame(runs, frame)
    sections = _sections(runs, chosen, thumbnails, say, say_figures)
    flights = ", ".join(dict.fromkeys(one.run.flight_id for one in runs))
    page = Page(
        title=say("Localization report: {flights}").format(flights=flights),
        lead=_lead(runs, say),
        facts=_facts(runs, say),
        sections=sections,
        warnings=_warnings(runs, note, say),
        language=language,
        say=say,
    )
    write(page, out, figures, progress)
    if figures and chosen:
        with style.drawing():
            style.write(pictures.contact_sheet(chosen, runs, thumbnails, K), figures, "thumbnails")
    return notices


def _sections(
    runs: Sequence[Series], chosen: Frame | None, thumbnails: Path, say: Translator, say_figures: Translator
) -> list[Section]:
    known = [one for one in runs if len(one.of.frames)]
    found: list[Section] = []
    if known:
        found += _drawn_in(accuracy.sections, known, say, say_figures)
    found += _drawn_in(timing.sections, runs, say, say_figures)
    if chosen:
        found.append(
            Section(
                "thumbnails",
                say("Top {k} of one frame").format(k=K),
                say("The query on the left, a row per backbone. A solid green border: its footprint holds the truth; "
                    "a dashed orange one: it does not. Under each its score, heading and distance from the truth.")
                + _gone(runs, [chosen], thumbnails, say),
                body=pictures.strips(chosen, runs, thumbnails, K, say),
            )
        )  # fmt: skip
    if worst := pictures.worst(known, WORST):
        found.append(
            Section(
                "worst-frames",
                say("Worst frames"),
                say("The frames with the largest error, as the median over the runs, and the best hit of each.")
                + _gone(runs, worst, thumbnails, say, 1),
                body="".join(pictures.firsts(frame, runs, thumbnails, say) for frame in worst),
            )
        )
    found.append(Section("runs", say("Runs"), table=_run_table(runs, say), open=True))
    return found


def _drawn_in(
    make: Callable[[Sequence[Series], Translator], list[Section]],
    runs: Sequence[Series],
    say: Translator,
    say_figures: Translator,
) -> list[Section]:
    """Sections in one language whose figures speak another, where a font is missing."""
    made = make(runs, say)
    if say is say_figures:
        return made
    return [replace(one, draw=other.draw) for one, other in zip(made, make(runs, say_figures), strict=True)]


def _gone(runs: Sequence[Series], frames: Sequence[Frame], thumbnails: Path, say: Translator, k: int = K) -> str:
    gone = pictures.missing(runs, frames, thumbnails, k)
    count = sum(gone.values())
    return "" if not count else " " + say("{n} pictures are no longer where they were and shown grey.").format(n=count)


def _frame(runs: Sequence[Series], index: int | None) -> Frame | None:
    if index is None:
        return pictures.typical(runs)
    for one in runs:
        for result in one.of.results:
            if result.frame.index == index:
                return result.frame
    first, last = (pick(r.frame.index for one in runs for r in one.of.results) for pick in (min, max))
    raise InputError(f"frame {index} is in none of these runs: their frames are numbered {first} to {last}")


# --- words --------------------------------------------------------------------------------------


def _lead(runs: Sequence[Series], say: Translator) -> list[str]:
    """What the numbers say, in a paragraph."""
    known = [one for one in runs if one.of.scores["error_median"].n]
    if not known:
        return [
            say("The position of no frame is known, so errors cannot be told; scores alone say little of them."),
            *_fastest(runs, say),
        ]
    best = min(known, key=lambda one: one.of.scores["error_median"].value)
    place = max(known, key=lambda one: one.of.scores["hit_footprint@1"].value)
    lines = [
        say("{name} has the smallest median error, {error} m over {n} frames.").format(
            name=best.label, error=shown(best.of.scores["error_median"], "m"), n=best.of.scores["error_median"].n
        ),
        say("{name} finds the right place most often, in {share} of the frames.").format(
            name=place.label, share=shown(place.of.scores["hit_footprint@1"], "%")
        ),
        *_fastest(runs, say),
    ]  # fmt: skip
    close = [one.label for one in known if one is not best and _alike(one, best)]
    if close:
        lines.insert(
            1,
            say("On these frames the median errors of {names} are not told apart from it.").format(
                names=", ".join(close)
            ),
        )
    best_of_both = accuracy.pareto_best(known)
    for title, alike in timed_alike(known, say):
        if len(alike) < 2:
            continue
        names = ", ".join(one.label for one in alike if one.label in best_of_both)
        if title:
            lines.append(say("Unbeaten in both speed and error ({how}): {names}.").format(how=title, names=names))
        else:
            lines.append(say("Unbeaten in both speed and error: {names}.").format(names=names))
    return [" ".join(lines)]


def _fastest(runs: Sequence[Series], say: Translator) -> list[str]:
    """The fastest of those whose times compare; a run that nothing compares with is only told of."""
    lines = []
    for title, alike in timed_alike([one for one in runs if len(one.total_ms)], say):
        fastest = min(alike, key=lambda one: float(one.total_ms.mean()))
        text = (
            say("{name} is the fastest: {ms} ms a frame for embedding and search on average ({how}).")
            if len(alike) > 1
            else say("{name} takes {ms} ms a frame for embedding and search on average ({how}).")
        )
        how = title or how_timed(fastest.run.parameters.get("batch"), say)
        lines.append(text.format(name=fastest.label, ms=f"{fastest.total_ms.mean():.1f}", how=how))
    return lines


def _alike(one: Series, best: Series) -> bool:
    """Whether the difference of two runs' median errors, on the frames both were judged on, may well be nothing: it
    may where too few frames are independent to tell."""
    placed = [each.of.frames.select(each.of.frames.on_map) for each in (one, best)]
    errors = [
        dict(zip(judged.frame.tolist(), metrics.error_m(judged.ranked).tolist(), strict=True)) for judged in placed
    ]
    both = sorted(errors[0].keys() & errors[1].keys())
    if one.run.flight_id != best.run.flight_id or not both:
        return not one.of.scores["error_median"].low > best.of.scores["error_median"].high
    pairs = np.array([[each[frame] for each in errors] for frame in both])
    difference = bootstrap(
        pairs,
        float(np.max([scores.correlation(judged) for judged in placed])),  # nan where one cannot be told
        statistic=lambda samples: np.subtract(*np.median(samples, axis=1).T),
    )
    return not (difference.low > 0 or difference.high < 0)


def _warnings(runs: Sequence[Series], note: str | None, say: Translator) -> list[str]:
    found = [note] if note else []
    found += stand_ins((one.of.backbone for one in runs), say)
    if len(timed_alike(runs, say)) > 1:
        found.append(
            say(
                "Not all of these runs were timed alike (one frame at a time or in batches, device, processor, threads; "
                "or it is not recorded): times are ranked only among runs that were."
            )
        )
    return found


def _facts(runs: Sequence[Series], say: Translator) -> list[tuple[str, str]]:
    first = runs[0]
    count = first.of.counts
    environment = first.run.environment
    environments = [one.run.environment for one in runs]
    batches = dict.fromkeys(how_timed(one.run.parameters.get("batch"), say) for one in runs)
    answered = [" · ".join(str(on.get(key, "?")) for key in ("device", "cpu", "backend")) for on in environments]
    versions = ", ".join(f"{name} {value}" for name, value in environment.get("versions", {}).items())
    sets = {one.run.reference_set.name: one.run for one in runs}
    frames = say("{frames}, of which {failed} failed and {without} have no truth; {off} are off the map")
    times = say("after {n} warm-up calls, the device synchronised; {how}")
    return [
        (say("Flights"), ", ".join(dict.fromkeys(one.run.flight_id for one in runs))),
        (say("Reference sets"), "; ".join(_set(name, run, say) for name, run in sets.items())),
        (
            say("Frames"),
            frames.format(frames=count.frames, failed=count.failed, without=count.without_truth, off=count.off_map),
        ),
        (say("Device"), "; ".join(dict.fromkeys(answered))),
        (say("Threads"), "; ".join(dict.fromkeys(threads_of(on.get("threads"), say) for on in environments))),
        (say("Times"), times.format(n=environment.get("warm_up", "?"), how="; ".join(batches))),
        (say("Versions"), versions or "?"),
    ]


def _set(name: str, run: StoredRun, say: Translator) -> str:
    facts = run.reference_set
    height = f"{facts.altitude_m:g} m, " if facts.altitude_m else ""
    side = f"{facts.footprint_m:.0f} m" if facts.footprint_m else "?"
    return say("{name} ({height}overlap {overlap}, footprint {side}, {angles} headings)").format(
        name=name, height=height, overlap=f"{facts.overlap:.0%}", side=side, angles=len(facts.angles)
    )


def _run_table(runs: Sequence[Series], say: Translator) -> Table:
    rows = []
    for one in runs:
        spec, run, count = one.run.spec, one.run, one.of.counts
        asked = {key: value for key, value in run.parameters.items() if key not in ("index_version",) and value}
        rows.append(
            [str(run.id), one.label, run.flight_id, run.reference_set.name, f"{spec.input_px} px {spec.precision}",
             spec.digest[:12], f"{run.environment.get('device', '?')}, {run.environment.get('backend', '?')}",
             ", ".join(f"{key} {value}" for key, value in asked.items()), str(count.frames), str(count.judged),
             f"{run.finished_at:%Y-%m-%d %H:%M}" if run.finished_at else ""]
        )  # fmt: skip
    columns = (say("run"), say("backbone"), say("flight"), say("reference set"), say("input"), say("spec digest"),
               say("device"), say("asked"), say("frames"), say("judged"), say("finished"))  # fmt: skip
    return Table(columns, rows)
