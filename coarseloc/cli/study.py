"""`coarseloc evaluate`, `report`, `rotation` and `altitude`: answers to how good, how stable, how fast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coarseloc.cli.app import App, answer, err, json_option, out, pass_app, progress_bar, table
from coarseloc.cli.options import Overlap, backbone_options
from coarseloc.embedding.encoders import Encoders
from coarseloc.errors import InputError
from coarseloc.store import embeddings, references

if TYPE_CHECKING:
    from coarseloc.scoring.bootstrap import Estimate
    from coarseloc.scoring.scores import Score
    from coarseloc.types import EmbeddingSpec
    from search.evaluate import Counts, Evaluation
    from search.laboratory.study import Answer

FORMS = {"m": "{:.1f}", "°": "{:.1f}", "%": "{:.1%}", "": "{:.3f}"}


@click.command()
@click.argument("names", metavar="FLIGHT|RUN…", nargs=-1, required=True)
@click.option("--reference-set", "name", help="Only a flight's runs against this set.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Write every score to this file as well.")
@click.option("--all", "everything", is_flag=True, help="Every score, with its 95 % interval.")
@json_option
@pass_app
def evaluate(
    app: App, names: Sequence[str], name: str | None, csv_file: Path | None, everything: bool, as_json: bool
) -> None:
    """Score runs against the truth: FLIGHT means its newest run of each backbone.

    Frames without truth are counted and left out. Places are scored on frames the map shows, headings where the
    place is right, rejection on all. Intervals are 95 %, by a block bootstrap over frames.
    """
    from search import evaluate as evaluation

    done = evaluation.evaluate(app.db, evaluation.find_runs(app.db, [_flight_id(each) for each in names], name))
    evaluation.save(app.db, done)
    if csv_file:
        csv_file.parent.mkdir(parents=True, exist_ok=True)
        csv_file.write_text(evaluation.to_csv(done), encoding="utf-8")
    answer(as_json, [evaluation.facts(one) for one in done], lambda: _show(done, everything))


def _flight_id(name: str) -> str:
    """A flight's folder stands for its id, as `coarseloc search` was given it."""
    return Path(name).resolve().name if Path(name).is_dir() else name


_SHORT = ("error_median", "error_mean", "hit_centre@1", "hit_footprint@1", "hit_footprint@10", "pdm@10",
          "heading_error_median", "margin_area")  # fmt: skip


def _show(done: Sequence[Evaluation], everything: bool) -> None:
    """A row per score and a column per run: six backbones fit beside each other, forty scores do not."""
    from coarseloc.scoring.scores import BY_KEY, SCORES

    shown = SCORES if everything else [BY_KEY[key] for key in _SHORT]
    rows: list[tuple[object, ...]] = [
        (
            f"{score.title} ({'↓' if score.better == 'lower' else '↑'})",
            *(_cell(one.scores[score.key], score, one.counts, everything) for one in done),
        )
        for score in shown
    ]
    for what, field in _COUNTS.items():
        rows.append((what, *(getattr(one.counts, field) for one in done)))
    table("", *(f"{one.label} (run {one.run.id})" for one in done), rows=rows)
    out.print("n is said where it is not all frames on the map" + ("" if everything else "; --all shows every score"))


_COUNTS = {
    "frames": "frames",
    "judged": "judged",
    "of these off the map": "off_map",
    "without truth, left out": "without_truth",
    "failed, left out": "failed",
}


def _cell(found: Estimate, score: Score, counts: Counts, everything: bool) -> str:
    form = FORMS[score.unit]
    if math.isnan(found.value):
        return "–"
    known = everything and not math.isnan(found.low)
    interval = f" [{form.format(found.low)}, {form.format(found.high)}]" if known else ""
    usual = counts.judged if score.group == "rejection" else counts.judged - counts.off_map
    return form.format(found.value) + interval + ("" if found.n == usual else f" (n {found.n})")


@click.command()
@click.argument("names", metavar="FLIGHT|RUN…", nargs=-1, required=True)
@click.option("--out", "file", type=click.Path(path_type=Path), required=True, help="The HTML file to write.")
@click.option("--lang", "language", type=click.Choice(["en", "ko"]), default="en", show_default=True)
@click.option("--figures", type=click.Path(path_type=Path), help="Folder for every figure as PNG and SVG.")
@click.option("--reference-set", "name", help="Only a flight's runs against this set.")
@click.option("--frame", type=int, help="Whose thumbnails to show; the frame of middling error by default.")
@click.option("--note", help="A line put above everything, such as what stands in for what.")
@json_option
@pass_app
def report(
    app: App,
    names: Sequence[str],
    file: Path,
    language: str,
    figures: Path | None,
    name: str | None,
    frame: int | None,
    note: str | None,
    as_json: bool,
) -> None:
    """One self-contained HTML file of runs: scores, times, errors, agreement, worst frames, with their tables."""
    from search import evaluate as evaluation
    from search.report.runs import write_report

    done = evaluation.evaluate(app.db, evaluation.find_runs(app.db, [_flight_id(each) for each in names], name))
    evaluation.save(app.db, done)
    with progress_bar("report") as progress:
        notices = write_report(
            done, app.settings.thumbnails, file, language=language, figures=figures, frame=frame, note=note,
            progress=progress,
        )  # fmt: skip
    for notice in notices:
        err.print(f"[yellow]{notice}[/yellow]")
    size = file.stat().st_size
    facts = {"file": str(file), "bytes": size, "runs": [one.run.id for one in done]}
    answer(as_json, facts, lambda: out.print(f"wrote {file} ({size / 1e6:.1f} MB) of {len(done)} runs"))


def _study_options(command: Any) -> Any:
    for option in (
        json_option,
        click.option("--note", help="A line put above everything, such as what stands in for what."),
        click.option("--figures", type=click.Path(path_type=Path), help="Folder for every figure as PNG and SVG."),
        click.option("--lang", "language", type=click.Choice(["en", "ko"]), default="en", show_default=True),
        click.option("--out", "file", type=click.Path(path_type=Path), help="Write an HTML report here."),
        backbone_options,
        click.option("--seed", type=int, default=1, show_default=True, help="Of the frames' places."),
        click.option("--tile-px", type=click.IntRange(min=16), help="Side of a cut view; native by default."),
        click.option("--overlap", type=Overlap(), default="50", show_default=True, help="Of neighbouring references."),
        click.option("--footprint-m", type=click.FloatRange(min=0, min_open=True), help="Side of a view, metres."),
        click.option(
            "--frames-from", type=click.Path(path_type=Path, exists=True), help="Cut frames from this GeoTIFF instead."
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("source", metavar="REFERENCE_SET|GEOTIFF|FOLDER")
@click.option("--step", type=click.Choice(["5", "9", "15", "45"]), default="15", show_default=True, help="Degrees.")
@click.option("--frames", type=click.IntRange(min=2), default=40, show_default=True, help="Places looked at.")
@click.option("--references", "most", type=click.IntRange(min=2), default=200, show_default=True, help="At most.")
@click.option("--patches", type=click.IntRange(min=0), default=6, show_default=True, help="Frames for patch tokens.")
@_study_options
@pass_app
def rotation(
    app: App,
    /,
    source: str,
    step: str,
    frames: int,
    most: int,
    patches: int,
    backbones: tuple[str, ...],
    input_px: int | None,
    precision: str,
    device: str | None,
    footprint_m: float | None,
    overlap: float,
    tile_px: int | None,
    frames_from: Path | None,
    seed: int,
    **report: Any,
) -> None:
    """How stable embeddings stay when the aircraft turns, and which way to be robust to it pays.

    SOURCE is a reference set, an orthophoto, or a folder of pictures. Interrupted, the same command goes on; asked
    again, it answers from the database.
    """
    from search.laboratory.ground import Ortho, open_ground
    from search.laboratory.rotation import run_rotation

    encoders = Encoders(app.settings, device, precision or "fp32", input_px)
    specs = _specs(app, encoders, source, backbones, input_px)
    ground = open_ground(app.db, source, footprint_m=footprint_m, overlap=overlap, tile_px=tile_px, most=most)
    if frames_from and not isinstance(ground, Ortho):
        raise InputError(f"--frames-from needs an orthophoto to cut references from; {source!r} is pictures")
    other = replace(ground, path=frames_from.resolve()) if frames_from and isinstance(ground, Ortho) else None
    with progress_bar("rotation") as progress:
        found = run_rotation(
            app.db, ground, specs, encoders.load, _environment(app, device), frames_from=other,
            step=int(step), frames=frames, patches=patches, seed=seed, progress=progress,
        )  # fmt: skip
    _answer_study(found, **report)


class Altitudes(click.ParamType):
    """`200,300,600`: metres, in ascending order, each once."""

    name = "metres"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = sorted({float(part) for part in str(value).split(",")})
        except ValueError:
            self.fail(f"{value!r}: expected metres such as 300,600", param, ctx)
        if not numbers or not all(0 < number < math.inf for number in numbers):
            self.fail(f"{value!r}: expected finite metres above 0", param, ctx)
        return tuple(numbers)


@click.command()
@click.argument("source", metavar="REFERENCE_SET|GEOTIFF")
@click.option("--reference-m", type=float, default=300.0, show_default=True, help="The footprint is seen from here.")
@click.option(
    "--altitudes", type=Altitudes(), default="200,250,300,350,400,450,500,550,600", show_default=True, help="Frames."
)
@click.option("--pyramid", type=Altitudes(), default="300,600", show_default=True, help="Levels of the pyramid.")
@click.option("--frames", type=click.IntRange(min=2), default=40, show_default=True, help="Places looked at.")
@click.option(
    "--references", "most", type=click.IntRange(min=2), default=200, show_default=True, help="At most, a level."
)
@_study_options
@pass_app
def altitude(
    app: App,
    /,
    source: str,
    reference_m: float,
    altitudes: tuple[float, ...],
    pyramid: tuple[float, ...],
    frames: int,
    most: int,
    backbones: tuple[str, ...],
    input_px: int | None,
    precision: str,
    device: str | None,
    footprint_m: float | None,
    overlap: float,
    tile_px: int | None,
    frames_from: Path | None,
    seed: int,
    **report: Any,
) -> None:
    """How stable embeddings stay when the aircraft climbs, and what a pyramid of references buys.

    SOURCE is a reference set cut from an orthophoto, or the orthophoto. All views face north: scale alone differs.
    """
    from search.laboratory.altitude import run_altitude
    from search.laboratory.ground import Ortho, open_ground

    encoders = Encoders(app.settings, device, precision or "fp32", input_px)
    specs = _specs(app, encoders, source, backbones, input_px)
    ground = open_ground(app.db, source, footprint_m=footprint_m, overlap=overlap, tile_px=tile_px, most=most)
    if not isinstance(ground, Ortho):
        raise InputError(f"{source!r} is pictures: other altitudes can only be seen in an orthophoto")
    other = replace(ground, path=frames_from.resolve()) if frames_from else None
    with progress_bar("altitude") as progress:
        found = run_altitude(
            app.db, ground, specs, encoders.load, _environment(app, device), frames_from=other, reference_m=reference_m,
            altitudes_m=altitudes, pyramid_m=pyramid, overlap=overlap, most=most, frames=frames, seed=seed,
            progress=progress,
        )  # fmt: skip
    _answer_study(found, **report)


def _specs(
    app: App, encoders: Encoders, source: str, backbones: Sequence[str], input_px: int | None
) -> list[EmbeddingSpec]:
    """The encoders asked for, else those a reference set is embedded with, else every one of the six that is here."""
    with app.db.read() as session:
        known = {one.name: one.id for one in references.reference_sets(session)}
        held = embeddings.specs(session, known[source]) if source in known else []
    if backbones or not held:
        return encoders.specs(backbones)
    newest = {one.spec.backbone: one.spec for one in held}
    return [encoders.spec(name, input_px or spec.input_px, spec.precision) for name, spec in newest.items()]


def _environment(app: App, device: str | None) -> dict[str, Any]:
    from coarseloc.embedding.backbone import resolve_device
    from search.facts import machine
    from search.index import backend

    return machine(str(resolve_device(device or app.settings.device)), backend())


def _answer_study(
    found: Answer, file: Path | None, language: str, figures: Path | None, note: str | None, as_json: bool
) -> None:
    """The table of ways, and the report where one is asked for."""
    from search.laboratory.ways import gain, share
    from search.report.study import write_study

    if file:
        with progress_bar("report") as progress:
            notices = write_study(found, file, language=language, figures=figures, note=note, progress=progress)
        for notice in notices:
            err.print(f"[yellow]{notice}[/yellow]")
    elif figures:
        raise InputError("--figures goes with --out: give the report's file too")
    facts = {
        "study": found.study.id,
        "kind": found.study.kind,
        "parameters": found.study.parameters,
        "environment": found.study.environment,
        "findings": found.study.findings,
        "curves": [point._asdict() for point in found.points],
    }

    def show() -> None:
        for backbone, ways in found.study.findings["ways"].items():
            rows = [
                (
                    way["name"],
                    share(way),
                    gain(way),
                    *("–" if way[key] is None else f"{way[key]:.3g}" for key in ("error_m", "heading_error_deg")),
                    *(f"{way[key]:.3g}" for key in ("embed_ms", "search_ms")),
                    f"{way['index_bytes'] / 1e6:.3g}",
                    way["n"],
                )
                for way in ways
            ]
            columns = ("way", "right place", "gain", "error m", "heading °", "embed ms", "search ms", "index MB", "n")
            table(*columns, rows=rows, title=f"\n{backbone}")
        out.print(f"study {found.study.id}" + (f"; wrote {file}" if file else ""))

    answer(as_json, facts, show)
