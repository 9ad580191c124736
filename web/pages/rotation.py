"""The rotation laboratory's answers: how alike a place stays to itself when the view turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, g, render_template, request, url_for

from coarseloc.store import gallery, references, studies
from coarseloc.store.studies import CurvePoint, StoredStudy
from web.language import _
from web.pages import figures as charts
from web.pages import page
from web.pages.images import tile_url
from web.problems import Problem
from web.state import Gallery, the_gallery

if TYPE_CHECKING:
    from search.evaluation.report.page import Section

routes = Blueprint("rotation", __name__)
# The curves of the dial, what a place is compared with, and over which tokens.
_CURVES = ("cosine", "cosine_other", "patch_aligned", "patch_pooled", "patch_unaligned", "patch_other")


@page(routes, "/rotation", "rotation")
def rotation_page() -> dict[str, Any]:
    here = the_gallery()
    with here.database.read() as session:
        known = studies.studies(session, "rotation")
    study = _chosen(known)
    values: dict[str, Any] = {
        "studies": [_about(one) for one in known],
        "study": study and _about(study),
        "turn": request.args.get("turn", 45, int) % 360,
        "curves": {},
        "tile": None,
        "figures": None,
    }
    if study:
        with here.database.read() as session:
            points = studies.curves(session, study.id)
        values["curves"] = _curves(points)
        values["tile"] = _tile(here, study)
        values["figures"] = url_for("rotation.figures", study=study.id, words=g.language)
    return values


def _chosen(known: Sequence[StoredStudy]) -> StoredStudy | None:
    wanted = request.args.get("study", None, int)
    return next((one for one in known if one.id == wanted), known[0] if known else None)


def _about(study: StoredStudy) -> dict[str, Any]:
    asked, on, found = study.parameters, study.environment, study.findings
    ground = asked.get("ground", {})
    source = str(ground.get("source", "")).rstrip("/").rsplit("/", 1)[-1]
    return {
        "id": study.id,
        "source": source or _("{n} pictures", n=len(ground.get("pictures", ()))),
        "step": asked.get("step"),
        "frames": found.get("frames"),
        "references": found.get("references"),
        "backbones": list(asked.get("backbones", {})),
        "device": on.get("device"),
        "finished_at": study.finished_at.strftime("%Y-%m-%d %H:%M") if study.finished_at else None,
    }


def _curves(points: Sequence[CurvePoint]) -> dict[str, dict[str, list[list[float | None]]]]:
    """{curve: {backbone: [[turn, value, low, high], …]}}, of the curves that the dial shows."""
    found: dict[str, dict[str, list[list[float | None]]]] = {}
    for one in points:
        if one.curve in _CURVES:
            found.setdefault(one.curve, {}).setdefault(one.backbone, []).append([one.x, one.y, one.low, one.high])
    return found


def _tile(here: Gallery, study: StoredStudy) -> str | None:
    """A picture for the dial to turn: a tile of the set that was studied, else of any."""
    with here.database.read() as session:
        sets = references.reference_sets(session)
        source = study.parameters.get("ground", {}).get("source")
        sets.sort(key=lambda one: (source not in (one.name, one.reference_set.source), one.id))
        for one in sets:
            ground = gallery.tiles_at_heading(session, one.id, 0)
            if ground:
                middle = ground[len(ground) // 2]
                return tile_url(middle.rotated_tile, middle.content_digest, "full")
    return None


@routes.get("/rotation/<int:study>/figures")
def figures(study: int) -> str:
    """What the study found, in words, figures and numbers, to be put into the page."""
    sections, paragraphs, _mark = _sections(study)
    shown = charts.as_json(
        list(sections.values()),
        lambda key, suffix: url_for("rotation.figure", study=study, key=key, suffix=suffix, words=g.language),
    )
    back = url_for("rotation.rotation", study=study)
    return render_template("figures.html", page="rotation", sections=shown, findings=paragraphs, back=back)


@routes.get("/rotation/<int:study>/figures/<key>.<suffix>")
def figure(study: int, key: str, suffix: str) -> Response:
    sections, _findings, mark = _sections(study)
    return charts.file(sections, mark, key, suffix)


def _sections(study: int) -> tuple[dict[str, Section], list[str], object]:
    here = the_gallery()
    with here.database.read() as session:
        found = next((one for one in studies.studies(session, "rotation") if one.id == study), None)
    if found is None:
        raise Problem(404, _("There is no finished rotation study {n}.", n=study))
    mark = ("rotation", study, found.finished_at, g.language)

    def make() -> tuple[dict[str, Section], list[str]]:
        from coarseloc.i18n import translator
        from search.evaluation.report import rotation
        from search.evaluation.studies import limits
        from search.evaluation.studies.study import load_result

        say, answer = translator(g.language), load_result(here.database, study)
        found = [*limits.sentences(answer, say), *rotation.write_findings(answer, say)]
        return {one.key: one for one in rotation.make_sections(answer, say, say)}, found

    sections, paragraphs = here.memory.recall(mark, make)
    return sections, paragraphs, mark
