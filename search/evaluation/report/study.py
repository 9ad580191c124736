"""The report of a study: its ground and environment, its findings as text, and the sections of its kind."""

from __future__ import annotations

from pathlib import Path

from coarseloc.core.types import Progress
from coarseloc.i18n import Translator, translator
from search.evaluation.report import altitude, rotation
from search.evaluation.report.page import Page, figures_translator, stand_in_warnings, threads_text, write_page
from search.evaluation.studies import limits
from search.evaluation.studies.study import StudyResult

_REPORTS_BY_KIND = {"rotation": rotation, "altitude": altitude}


def write_study(
    result: StudyResult,
    out: Path,
    *,
    language: str = "en",
    figures: Path | None = None,
    note: str | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Write a study as one HTML file; returns notices for the user."""
    report = _REPORTS_BY_KIND[result.study.kind]
    translate = translator(language)
    translate_figure, notices = figures_translator(language, figures)
    page = Page(
        title=translate(report.TITLE),
        lead=report.write_findings(result, translate),
        facts=_facts(result, translate),
        sections=report.make_sections(result, translate, translate_figure),
        warnings=_warnings(result, note, translate),
        language=language,
        translate=translate,
    )
    write_page(page, out, figures, progress)
    return notices


def _warnings(result: StudyResult, note: str | None, translate: Translator) -> list[str]:
    warnings = [note] if note else []
    return [*warnings, *stand_in_warnings(result.backbones, translate), *limits.sentences(result, translate)]


def _facts(result: StudyResult, translate: Translator) -> list[tuple[str, str]]:
    parameters, environment, findings = result.study.parameters, result.study.environment, result.study.findings
    ground = parameters["ground"]
    if "pictures" in ground:
        source = translate("{n} pictures, each seen through its central square").format(n=len(ground["pictures"]))
    else:
        source = translate("{source}, views of {side} m, references {stride} m apart").format(
            source=Path(ground["source"]).name, side=f"{ground['footprint_m']:g}", stride=f"{ground['stride_m']:g}"
        )
    rows = [
        (translate("Ground"), source),
        (translate("Frames"), str(findings["frames"])),
        (translate("References"), str(findings["references"])),
        (translate("Device"), " · ".join(str(environment.get(key, "?")) for key in ("device", "cpu", "backend"))),
        (translate("Threads"), threads_text(environment.get("threads"), translate)),
        (translate("Times"), translate("of one frame, embedding and search apart, without decoding; the views of a turned frame at once; medians of single calls after {n} warm-up calls, the device synchronised").format(
            n=environment.get("warm_up", "?"))),
        (translate("Versions"), ", ".join(f"{name} {value}" for name, value in environment.get("versions", {}).items())),
        (translate("spec digest"), ", ".join(f"{name} {digest[:12]}" for name, digest in parameters["backbones"].items())),
    ]  # fmt: skip
    if parameters.get("frames_from"):
        rows.insert(1, (translate("Frames from"), Path(parameters["frames_from"]["source"]).name))
    return rows
