"""`coarseloc rotation` and `altitude`: how stable embeddings are, and which way to be robust pays."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from coarseloc.cli.app import App, answer, err, json_option, out, pass_app, progress_bar, table
from coarseloc.cli.options import Overlap, backbone_options, report_options
from coarseloc.core.errors import InputError
from coarseloc.embedding.encoders import Encoders
from coarseloc.store import embeddings, references

if TYPE_CHECKING:
    from coarseloc.core.types import Backbone, EmbeddingSpec
    from search.evaluation.studies.ground import OrthophotoGround, PictureGround
    from search.evaluation.studies.study import StudyResult

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Asked:
    """What every laboratory is asked."""

    source: str
    frames: int
    most: int
    frames_from: Path | None
    footprint_m: float | None
    overlap: float
    tile_px: int | None
    seed: int
    backbones: tuple[str, ...]
    input_px: int | None
    precision: str | None
    device: str | None
    file: Path | None
    language: str
    figures: Path | None
    note: str | None
    as_json: bool


def asked_options(command: F) -> F:
    """Add what every laboratory is asked, and hand it to the command as one `asked`."""

    @click.option("--frames", type=click.IntRange(min=2), default=40, show_default=True, help="Places looked at.")
    @click.option(
        "--references",
        "most",
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
        asked = Asked(**{field.name: kwargs.pop(field.name) for field in fields(Asked)})
        return command(*args, **kwargs, asked=asked)

    return wrapped  # type: ignore[return-value]


@click.command()
@click.argument("source", metavar="REFERENCE_SET|GEOTIFF|FOLDER")
@click.option("--step", type=click.Choice(["5", "9", "15", "45"]), default="15", show_default=True, help="Degrees.")
@click.option("--patches", type=click.IntRange(min=0), default=6, show_default=True, help="Frames for patch tokens.")
@asked_options
@pass_app
def rotation(app: App, step: str, patches: int, asked: Asked) -> None:
    """How stable embeddings stay when the aircraft turns, and which way to be robust to it pays.

    SOURCE is a reference set, an orthophoto, or a folder of pictures. Interrupted, the same command goes on; asked
    again, it answers from the database.
    """
    from search.evaluation.studies.ground import OrthophotoGround
    from search.evaluation.studies.rotation import run_rotation

    bench = _bench(app, asked)
    if asked.frames_from and not isinstance(bench.ground, OrthophotoGround):
        raise InputError(f"--frames-from needs an orthophoto to cut references from; {asked.source!r} is pictures")
    with progress_bar("rotation") as progress:
        found = run_rotation(
            app.db, bench.ground, bench.specs, bench.load, bench.environment, frames_from=bench.frames_from,
            step=int(step), frames=asked.frames, patches=patches, seed=asked.seed, progress=progress,
        )  # fmt: skip
    _tell(found, asked)


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
@asked_options
@pass_app
def altitude(
    app: App, reference_m: float, altitudes: tuple[float, ...], pyramid: tuple[float, ...], asked: Asked
) -> None:
    """How stable embeddings stay when the aircraft climbs, and what a pyramid of references buys.

    SOURCE is a reference set cut from an orthophoto, or the orthophoto. All views face north: scale alone differs.
    """
    from search.evaluation.studies.altitude import run_altitude
    from search.evaluation.studies.ground import OrthophotoGround

    bench = _bench(app, asked, turned=False)
    if not isinstance(bench.ground, OrthophotoGround):
        raise InputError(f"{asked.source!r} is pictures: other altitudes can only be seen in an orthophoto")
    with progress_bar("altitude") as progress:
        found = run_altitude(
            app.db, bench.ground, bench.specs, bench.load, bench.environment, frames_from=bench.frames_from,
            reference_m=reference_m, altitudes_m=altitudes, pyramid_m=pyramid, overlap=asked.overlap,
            max_references=asked.most, frames=asked.frames, seed=asked.seed, progress=progress,
        )  # fmt: skip
    _tell(found, asked)


# --- what a laboratory works with ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Bench:
    ground: OrthophotoGround | PictureGround
    frames_from: OrthophotoGround | None  # another orthophoto, cut as the ground is
    specs: Sequence[EmbeddingSpec]
    load: Callable[[EmbeddingSpec], Backbone]
    environment: Mapping[str, Any]


def _bench(app: App, asked: Asked, *, turned: bool = True) -> _Bench:
    from coarseloc.embedding.backbone import resolve_device
    from search.environment import machine
    from search.evaluation.studies.ground import OrthophotoGround, open_ground
    from search.exact_index import backend

    if asked.figures and not asked.file:
        raise InputError("--figures goes with --out: give the report's file too")
    encoders = Encoders(app.settings, asked.device, asked.precision or "fp32", asked.input_px)
    specs = _specs(app, encoders, asked)
    ground = open_ground(
        app.db, asked.source, footprint_m=asked.footprint_m, overlap=asked.overlap, tile_px=asked.tile_px,
        max_places=asked.most, turned=turned,
    )  # fmt: skip
    other = None
    if asked.frames_from and isinstance(ground, OrthophotoGround):
        other = replace(ground, path=asked.frames_from.resolve())
    environment = machine(str(resolve_device(asked.device or app.settings.device)), backend())
    return _Bench(ground, other, specs, encoders.load, environment)


def _specs(app: App, encoders: Encoders, asked: Asked) -> list[EmbeddingSpec]:
    """The encoders asked for, else those a reference set is embedded with, else every one of the six that is here."""
    with app.db.read() as session:
        known = {one.name: one.id for one in references.reference_sets(session)}
        held = embeddings.specs(session, known[asked.source]) if asked.source in known else []
    if asked.backbones or not held:
        return encoders.specs(asked.backbones)
    newest = {one.backbone: one.embedding_spec for one in held}
    return [encoders.spec(name, asked.input_px or spec.input_px, spec.precision) for name, spec in newest.items()]


# --- what came of it ----------------------------------------------------------------------------


def _tell(found: StudyResult, asked: Asked) -> None:
    """The table of ways, and the report where one is asked for."""
    from search.evaluation.studies import limits

    if asked.file:
        from search.evaluation.report.study import write_study

        with progress_bar("report") as progress:
            notices = write_study(
                found, asked.file, language=asked.language, figures=asked.figures, note=asked.note, progress=progress
            )
        for notice in notices:
            err.print(f"[yellow]{notice}[/yellow]")
    facts = {
        "study": found.study.id,
        "kind": found.study.kind,
        "parameters": found.study.parameters,
        "environment": found.study.environment,
        "findings": found.study.findings,
        "limits": limits.sentences(found),
        "curves": [point._asdict() for point in found.points],
    }
    answer(asked.as_json, facts, lambda: _show(found, asked))


def _show(found: StudyResult, asked: Asked) -> None:
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
    for backbone, ways in found.study.findings["ways"].items():
        rows = [
            (
                way["name"],
                recall_text(way),
                ceiling_text(way) or "not recorded",
                gain_text(way),
                "–" if way["gain"] is None else way.get("gain_n", "not recorded"),
                *("–" if way[key] is None else f"{way[key]:.3g}" for key in ("error_m", "heading_error_deg")),
                *(f"{way[key]:.3g}" for key in ("embed_ms", "search_ms")),
                f"{way['index_bytes'] / 1e6:.3g}",
                way["n"],
            )
            for way in ways
        ]
        table(*columns, rows=rows, title=f"\n{backbone}")
    if found.study.kind == "altitude":
        _show_levels(found)
    out.print("gain: points of right places more than the usual way, on the frames that both can reach")
    out.print(
        "ms: of one frame, without decoding, median of single calls after a warm-up; views of a turned frame at once"
    )
    for line in limits.sentences(found):
        out.print(f"[yellow]{line}[/yellow]", highlight=False)
    out.print(f"study {found.study.id}" + (f"; wrote {asked.file}" if asked.file else ""))


def _show_levels(found: StudyResult) -> None:
    """What each level of the pyramid can reach."""
    from search.evaluation.studies.altitude import levels

    limits = found.study.findings.get("limits")
    rows = [
        (
            f"{altitude:g} m",
            count,
            f"{limits['ceilings'][i]:.1%}" if limits else "not recorded",
            f"{limits['floors_m'][i]:.0f}" if limits else "not recorded",
        )
        for i, (altitude, count) in enumerate(levels(found))
    ]
    table("level", "references", "ceiling", "nearest reference m", rows=rows, title="\nlevels")
