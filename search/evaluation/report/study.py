"""The report of a study: what was looked at, what came of it in words, and its laboratory's sections."""

from __future__ import annotations

from pathlib import Path

from coarseloc.core.types import Progress
from coarseloc.i18n import Translator, translator
from search.evaluation.report import altitude, rotation
from search.evaluation.report.page import Page, figures_say, write
from search.evaluation.report.texts import stand_ins, threads_of
from search.evaluation.studies import limits
from search.evaluation.studies.study import StudyResult

_LABORATORIES = {"rotation": rotation, "altitude": altitude}


def write_study(
    found: StudyResult,
    out: Path,
    *,
    language: str = "en",
    figures: Path | None = None,
    note: str | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """A study as one HTML file; returns notices for who asked."""
    kind = _LABORATORIES[found.study.kind]
    say = translator(language)
    drawn, notices = figures_say(language, figures)
    page = Page(
        title=say(kind.TITLE),
        lead=kind.findings(found, say),
        facts=_facts(found, say),
        sections=kind.sections(found, say, drawn),
        warnings=_warnings(found, note, say),
        language=language,
        say=say,
    )
    write(page, out, figures, progress)
    return notices


def _warnings(found: StudyResult, note: str | None, say: Translator) -> list[str]:
    warnings = [note] if note else []
    return [*warnings, *stand_ins(found.backbones, say), *limits.sentences(found, say)]


def _facts(found: StudyResult, say: Translator) -> list[tuple[str, str]]:
    asked, environment, findings = found.study.parameters, found.study.environment, found.study.findings
    ground = asked["ground"]
    if "pictures" in ground:
        source = say("{n} pictures, each seen through its central square").format(n=len(ground["pictures"]))
    else:
        source = say("{source}, views of {side} m, references {stride} m apart").format(
            source=Path(ground["source"]).name, side=f"{ground['footprint_m']:g}", stride=f"{ground['stride_m']:g}"
        )
    rows = [
        (say("Ground"), source),
        (say("Frames"), str(findings["frames"])),
        (say("References"), str(findings["references"])),
        (say("Device"), " · ".join(str(environment.get(key, "?")) for key in ("device", "cpu", "backend"))),
        (say("Threads"), threads_of(environment.get("threads"), say)),
        (say("Times"), say("of one frame, embedding and search apart, without decoding; the views of a turned frame at once; medians of single calls after {n} warm-up calls, the device synchronised").format(
            n=environment.get("warm_up", "?"))),
        (say("Versions"), ", ".join(f"{name} {value}" for name, value in environment.get("versions", {}).items())),
        (say("spec digest"), ", ".join(f"{name} {digest[:12]}" for name, digest in asked["backbones"].items())),
    ]  # fmt: skip
    if asked.get("frames_from"):
        rows.insert(1, (say("Frames from"), Path(asked["frames_from"]["source"]).name))
    return rows
