"""Limits of a study's results, derived from its own data: pixels that frames and references share, and steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from coarseloc.core import geo
from coarseloc.core.rotation import HEADINGS
from coarseloc.i18n import Translator
from search.evaluation.studies.study import StudyResult

_SELF_COSINE = 0.9995  # a higher cosine is of a view with itself, apart from rounding
_CURVES = ("cosine", "patch_aligned")


def sentences(result: StudyResult, translate: Translator = str) -> list[str]:
    """Sentences on the limits of a study, each one only where its data says so."""
    lines = [*_shared_pixels(result, translate), *_self_comparison(result, translate)]
    lines += (
        _heading_steps(result, translate) if result.study.kind == "rotation" else _altitude_steps(result, translate)
    )
    return lines + _distance_floor(result, translate)


def _shared_pixels(result: StudyResult, translate: Translator) -> list[str]:
    frames = result.study.findings["frames"]
    limits = result.study.findings.get("limits") or _limits_of_parameters(result)
    if limits is None:
        return [translate("Whether frames share the references' pixels was not recorded by this older study.")]
    lines = []
    if own_pixels := limits["own_pixels"]:
        lines.append(
            translate(
                "{n} of {frames} frames are cut from the references' own pixels: the same picture of the same day. "
                "Read what a turn or a climb costs, not how well places are found; a flight finds less."
            ).format(n=own_pixels, frames=frames)
        )
    if matched := limits["matched"]:
        lines.append(
            translate("{n} of {frames} frames match themselves: each is also a reference, pixel for pixel.").format(
                n=matched, frames=frames
            )
        )
    return lines


def _limits_of_parameters(result: StudyResult) -> Mapping[str, Any] | None:
    """The limits that follow from the parameters of an older study, which has not compared pixels."""
    parameters, frames = result.study.parameters, result.study.findings["frames"]
    frames_from = parameters.get("frames_from")
    if "pictures" in parameters["ground"]:
        return {"own_pixels": frames, "matched": frames}
    if frames_from is None or (frames_from["source"], frames_from["stamp"]) == (
        parameters["ground"]["source"],
        parameters["ground"]["stamp"],
    ):
        return {"own_pixels": frames, "matched": 0}
    return None


def _self_comparison(result: StudyResult, translate: Translator) -> list[str]:
    """Points of similarity curves that compare a view with itself."""
    self_compared = {p.x for p in result.points if p.curve in _CURVES and p.y is not None and p.y >= _SELF_COSINE}
    start = 0.0 if result.study.kind == "rotation" else float(result.study.parameters["reference_m"])
    if start not in self_compared:
        return []
    unit = "°" if result.study.kind == "rotation" else " m"
    return [
        translate("At {x} the similarity curves compare a view with itself: 1 there is no finding.").format(
            x=f"{start:g}{unit}"
        )
    ]


def _heading_steps(result: StudyResult, translate: Translator) -> list[str]:
    step = int(result.study.parameters["step"])
    furthest_deg = max(
        min(geo.heading_difference(turn, heading) for heading in HEADINGS) for turn in range(0, 360, step)
    )
    return [
        translate(
            "Frames are turned in steps of {step}°: none lies further than {off}° from one of the eight headings, "
            "where a flight's may lie {half}°. Heading errors and the worst angle are known to that step only."
        ).format(step=step, off=f"{furthest_deg:g}", half=f"{360 / len(HEADINGS) / 2:g}")
    ]


def _altitude_steps(result: StudyResult, translate: Translator) -> list[str]:
    altitudes = sorted(result.study.parameters["altitudes_m"])
    return [
        translate(
            "Frames are seen from {altitudes} m alone: what lies between two of them is not known, and a range that "
            "ends at {low} or {high} m may reach further."
        ).format(altitudes=", ".join(f"{a:g}" for a in altitudes), low=f"{altitudes[0]:g}", high=f"{altitudes[-1]:g}")
    ]


def _distance_floor(result: StudyResult, translate: Translator) -> list[str]:
    floor_m = (result.study.findings.get("limits") or {}).get("floor_m")
    if not floor_m or math.isnan(floor_m):
        return []
    return [
        translate(
            "References lie {stride} m apart: the nearest is {floor} m from a frame in the median, and no median error "
            "of a tile's centre can be less."
        ).format(stride=f"{result.study.parameters['ground'].get('stride_m', math.nan):g}", floor=f"{floor_m:.0f}")
    ]
