"""Show a rotation study: the cosine of a place with itself at each turn of the view, per backbone."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from flask import Blueprint, Response, g, render_template, request, url_for
from pydantic import Field

from coarseloc.store import gallery, references, studies
from coarseloc.store.studies import CurvePoint, StoredStudy
from web.language import _
from web.models import AnswerModel, Url
from web.pages import page
from web.pages.figures import figure_file, section_views
from web.pages.images import tile_url
from web.problems import Problem
from web.state import WebState, current_state

if TYPE_CHECKING:
    from search.evaluation.report.page import Section

routes = Blueprint("rotation", __name__)
# The curves of the dial, what a place is compared with, and over which tokens.
_CURVES = ("cosine", "cosine_other", "patch_aligned", "patch_pooled", "patch_unaligned", "patch_other")


class StudySummary(AnswerModel):
    id: int
    source: str
    step: int | float | None
    frames: int | None
    references: int | None
    backbones: list[str]
    device: str | None
    finished_at: str | None


Curves = dict[str, dict[str, list[tuple[float, float | None, float | None, float | None]]]]


class RotationPage(AnswerModel):
    """How alike a place stays to itself when the view turns."""

    studies: list[StudySummary]
    study: StudySummary | None
    turn: int = Field(ge=0, lt=360)
    curves: Curves = Field(description="by curve and backbone: turn in degrees, value, and the interval's ends")
    tile: str | None = Url
    figures: str | None = Url


@page(routes, "/rotation", "rotation")
def rotation_page() -> RotationPage:
    state = current_state()
    with state.database.read() as session:
        finished = studies.studies(session, "rotation")
        number = request.args.get("study", None, int)
        study = next((study for study in finished if study.id == number), finished[0] if finished else None)
        points = studies.curves(session, study.id) if study else []
    return RotationPage(
        studies=[_summary(study) for study in finished],
        study=_summary(study) if study else None,
        turn=request.args.get("turn", 45, int) % 360,
        curves=_curves(points),
        tile=_tile(state, study) if study else None,
        figures=url_for("rotation.figures", study=study.id, words=g.language) if study else None,
    )


def _summary(study: StoredStudy) -> StudySummary:
    parameters = study.parameters
    ground = parameters.get("ground", {})
    source = str(ground.get("source", "")).rstrip("/").rsplit("/", 1)[-1]
    return StudySummary(
        id=study.id,
        source=source or _("{n} pictures", n=len(ground.get("pictures", ()))),
        step=parameters.get("step"),
        frames=study.findings.get("frames"),
        references=study.findings.get("references"),
        backbones=list(parameters.get("backbones", {})),
        device=study.environment.get("device"),
        finished_at=study.finished_at.strftime("%Y-%m-%d %H:%M") if study.finished_at else None,
    )


def _curves(points: Sequence[CurvePoint]) -> Curves:
    """Those that the dial shows."""
    curves: Curves = {}
    for point in points:
        if point.curve in _CURVES:
            curve = curves.setdefault(point.curve, {}).setdefault(point.backbone, [])
            curve.append((point.x, point.y, point.low, point.high))
    return curves


def _tile(state: WebState, study: StoredStudy) -> str | None:
    """A picture for the dial to turn: a tile of the set that was studied, else of any."""
    source = study.parameters.get("ground", {}).get("source")
    with state.database.read() as session:
        sets = references.reference_sets(session)
        sets.sort(key=lambda stored: (source not in (stored.name, stored.reference_set.source), stored.id))
        for stored in sets:
            ground = gallery.tiles_at_heading(session, stored.id, 0)
            if ground:
                middle = ground[len(ground) // 2]
                return tile_url(middle.rotated_tile, middle.content_digest, "full")
    return None


@routes.get("/rotation/<int:study>/figures")
def figures(study: int) -> str:
    """What the study found, in words, figures and numbers, to be put into the page."""
    sections, paragraphs, _cache_key = _sections(study)
    views = section_views(
        list(sections.values()),
        lambda key, suffix: url_for("rotation.figure", study=study, key=key, suffix=suffix, words=g.language),
    )
    back = url_for("rotation.rotation", study=study)
    return render_template("figures.html", page="rotation", sections=views, findings=paragraphs, back=back)


@routes.get("/rotation/<int:study>/figures/<key>.<suffix>")
def figure(study: int, key: str, suffix: str) -> Response:
    sections, _paragraphs, cache_key = _sections(study)
    return figure_file(sections, cache_key, key, suffix)


def _sections(study: int) -> tuple[dict[str, Section], list[str], Hashable]:
    """The report's sections of a study and what it found in sentences, made once; their name in memory."""
    state = current_state()
    with state.database.read() as session:
        finished = {stored.id: stored for stored in studies.studies(session, "rotation")}
    if study not in finished:
        raise Problem(404, _("There is no finished rotation study {n}.", n=study))
    cache_key = ("rotation", study, finished[study].finished_at, g.language)

    def make() -> tuple[dict[str, Section], list[str]]:
        from coarseloc.i18n import translator
        from search.evaluation.report import rotation
        from search.evaluation.studies import limits
        from search.evaluation.studies.study import load_result

        say, result = translator(g.language), load_result(state.database, study)
        paragraphs = [*limits.sentences(result, say), *rotation.write_findings(result, say)]
        return {section.key: section for section in rotation.make_sections(result, say, say)}, paragraphs

    sections, paragraphs = state.memory.recall(cache_key, make)
    return sections, paragraphs, cache_key
