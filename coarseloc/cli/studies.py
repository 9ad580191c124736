"""`coarseloc rotation` and `altitude`: how stable embeddings are, and which way to be robust pays."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from coarseloc.cli.options import Overlap, backbone_options, report_options
from coarseloc.cli.terminal import answer, err, json_option, out, pass_workspace, table
from coarseloc.core.errors import InputError
from coarseloc.workspace import Workspace

if TYPE_CHECKING:
    from search.evaluation.studies.study import StudyResult

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class StudyReport:
    """Where and how a study is shown."""

    file: Path | None
    language: str
    figures: Path | None
    note: str | None
    as_json: bool


def study_options(command: F) -> F:
    """Add what both studies take: the fields of `StudyRequest` as they are, the report's as one `report`."""

    @click.option("--frames", type=click.IntRange(min=2), default=40, show_default=True, help="Places looked at.")
    @click.option(
        "--positions",
        type=click.IntRange(min=0),
        default=4,
        show_default=True,
        help="Of them, placed in metres by patch tokens and by orientation correlation: 30 and more have intervals.",
    )
    @click.option(
        "--references",
        type=click.IntRange(min=2),
        default=200,
        show_default=True,
        help="At most, of each altitude.",
    )
    @click.option(
        "--frames-from", type=click.Path(path_type=Path, exists=True), help="Cut frames from this GeoTIFF instead."
    )
    @click.option("--footprint-m", type=click.FloatRange(min=0, min_open=True), help="Side of a view, metres.")
    @click.option("--overlap", type=Overlap(), default="50", show_default=True, help="Of neighbouring references.")
    @click.option("--tile-px", type=click.IntRange(min=16), help="Side of a cut view; native by default.")
    @click.option("--seed", type=int, default=1, show_default=True, help="Of the frames' places.")
    @backbone_options
    @click.option("--out", "file", type=click.Path(path_type=Path), help="Write an HTML report here.")
    @report_options
    @json_option
    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        report = StudyReport(**{field.name: kwargs.pop(field.name) for field in fields(StudyReport)})
        if report.figures and not report.file:
            raise InputError("--figures goes with --out: give the report's file too")
        return command(*args, **kwargs, report=report)

    return wrapped  # type: ignore[return-value]


@click.command()
@click.argument("source", metavar="REFERENCE_SET|GEOTIFF|FOLDER")
@click.option("--step", type=click.Choice(["5", "9", "15", "45"]), default="15", show_default=True, help="Degrees.")
@click.option("--patches", type=click.IntRange(min=0), default=6, show_default=True, help="Frames for patch tokens.")
@study_options
@pass_workspace
def rotation(
    workspace: Workspace, /, source: str, step: str, patches: int, report: StudyReport, **request: Any
) -> None:
    """How stable embeddings stay when the aircraft turns, and which way to be robust to it pays.

    SOURCE is a reference set, an orthophoto, or a folder of pictures. Interrupted, the same command goes on; asked
    again, it answers from the database.
    """
    result = workspace.study_rotation(source, step=int(step), patches=patches, **request)
    _present(workspace, result, report)


class Altitudes(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.5 on
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
@study_options
@pass_workspace
def altitude(
    workspace: Workspace,
    /,
    source: str,
    reference_m: float,
    altitudes: tuple[float, ...],
    pyramid: tuple[float, ...],
    report: StudyReport,
    **request: Any,
) -> None:
    """How stable embeddings stay when the aircraft climbs, and what a pyramid of references buys.

    SOURCE is a reference set cut from an orthophoto, or the orthophoto. All views face north: scale alone differs.
    """
    result = workspace.study_altitude(
        source, reference_m=reference_m, altitudes_m=altitudes, pyramid_m=pyramid, **request
    )
    _present(workspace, result, report)


def _present(workspace: Workspace, result: StudyResult, report: StudyReport) -> None:
    """Write the report, if one is to be written, and print the table of strategies."""
    from search.evaluation.studies import limits

    if report.file:
        options = {"language": report.language, "figures": report.figures, "note": report.note}
        for notice in workspace.report_study(result, report.file, **options):
            err.print(notice, style="yellow")
    facts = {
        "study": result.study.id,
        "kind": result.study.kind,
        "parameters": result.study.parameters,
        "environment": result.study.environment,
        "findings": result.study.findings,
        "limits": limits.sentences(result),
        "curves": [point._asdict() for point in result.points],
    }
    answer(report.as_json, facts, lambda: _show_strategies(result, report.file))


def _show_strategies(result: StudyResult, file: Path | None) -> None:
    from search.evaluation.studies import limits
    from search.evaluation.studies.strategies import ceiling_text, gain_text, recall_text

    columns = (
        "way",
        "right place",
        "ceiling",
        "gain",
        "n of gain",
        "error m",
        "heading °",
        "embed ms",
        "search ms",
        "index MB",
        "n",
    )
    for backbone, strategies in result.study.findings["ways"].items():
        rows = [
            (
                strategy["name"],
                recall_text(strategy),
                ceiling_text(strategy) or "not recorded",
                gain_text(strategy),
                "–" if strategy["gain"] is None else strategy.get("gain_n", "not recorded"),
                *("–" if strategy[key] is None else f"{strategy[key]:.3g}" for key in ("error_m", "heading_error_deg")),
                *(f"{strategy[key]:.3g}" for key in ("embed_ms", "search_ms")),
                f"{strategy['index_bytes'] / 1e6:.3g}",
                strategy["n"],
            )
            for strategy in strategies
        ]
        table(*columns, rows=rows, title=f"\n{backbone}")
    if result.study.kind == "altitude":
        _show_levels(result)
    _show_positions(result)
    out.print("gain: points of right places more than the usual way, on the frames that both can reach")
    out.print(
        "ms: of one frame, without decoding, median of single calls after a warm-up; views of a turned frame at once"
    )
    for line in limits.sentences(result):
        out.print(line, style="yellow")
    out.print(f"study {result.study.id}" + (f"; wrote {file}" if file else ""))


def _show_levels(result: StudyResult) -> None:
    """What each level of the pyramid can reach."""
    from search.evaluation.studies.altitude import levels

    limits = result.study.findings.get("limits")
    rows = [
        (
            f"{altitude:g} m",
            count,
            f"{limits['ceilings'][i]:.1%}" if limits else "not recorded",
            f"{limits['floors_m'][i]:.0f}" if limits else "not recorded",
        )
        for i, (altitude, count) in enumerate(levels(result))
    ]
    table("level", "references", "ceiling", "nearest reference m", rows=rows, title="\nlevels")


def _show_positions(result: StudyResult) -> None:
    """What the global token, patch tokens and orientation correlation find in metres, where that was measured."""
    from search.evaluation.studies.positions import WITNESSES, position_figures

    rows = [
        (
            backbone,
            WITNESSES[witness],
            *("–" if point.y is None else f"{point.y:.1%}" for point in (figures.position, figures.place)),
            "–" if figures.metres.y is None else f"{figures.metres.y:.3g}",
            figures.metres.n,
        )
        for backbone in result.backbones
        for witness, figures in position_figures(result, backbone).items()
    ]
    if rows:
        columns = ("backbone", "witness", "right position", "right place", "error m", "n")
        table(*columns, rows=rows, title="\npositions in metres")
