"""What a study's figures cannot show, told from its own data: pixels that frames and references share, and steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from coarseloc.core import geo
from coarseloc.core.rotation import HEADINGS
from search.evaluation.studies.study import Answer

Say = Callable[[str], str]
_ONE = 0.9995  # a cosine above is of a view with itself, but for rounding
_CURVES = ("cosine", "patch_aligned")


def sentences(found: Answer, say: Say = str) -> list[str]:
    """What a reader of this study must know, each one only where its data says so; `say` translates."""
    lines = [*_pixels(found, say), *_itself(found, say)]
    lines += _headings(found, say) if found.study.kind == "rotation" else _altitudes(found, say)
    return lines + _floor(found, say)


def _pixels(found: Answer, say: Say) -> list[str]:
    frames = found.study.findings["frames"]
    limits = found.study.findings.get("limits") or _limits_of_parameters(found)
    if limits is None:
        return [say("Whether frames share the references' pixels was not recorded by this older study.")]
    lines = []
    if own := limits["own_pixels"]:
        lines.append(
            say(
                "{n} of {frames} frames are cut from the references' own pixels: the same picture of the same day. "
                "Read what a turn or a climb costs, not how well places are found; a flight finds less."
            ).format(n=own, frames=frames)
        )
    if matched := limits["matched"]:
        lines.append(
            say("{n} of {frames} frames match themselves: each is also a reference, pixel for pixel.").format(
                n=matched, frames=frames
            )
        )
    return lines


def _limits_of_parameters(found: Answer) -> Mapping[str, Any] | None:
    """What the question alone tells of an older study, which has not compared pixels."""
    asked, frames = found.study.parameters, found.study.findings["frames"]
    eyes = asked.get("frames_from")
    if "pictures" in asked["ground"]:
        return {"own_pixels": frames, "matched": frames}
    if eyes is None or (eyes["source"], eyes["stamp"]) == (asked["ground"]["source"], asked["ground"]["stamp"]):
        return {"own_pixels": frames, "matched": 0}
    return None


def _itself(found: Answer, say: Say) -> list[str]:
    """Points of similarity curves that compare a view with itself."""
    ends = {p.x for p in found.points if p.curve in _CURVES and p.y is not None and p.y >= _ONE}
    start = 0.0 if found.study.kind == "rotation" else float(found.study.parameters["reference_m"])
    if start not in ends:
        return []
    unit = "°" if found.study.kind == "rotation" else " m"
    return [
        say("At {x} the similarity curves compare a view with itself: 1 there is no finding.").format(
            x=f"{start:g}{unit}"
        )
    ]


def _headings(found: Answer, say: Say) -> list[str]:
    step = int(found.study.parameters["step"])
    furthest = max(min(geo.heading_difference(turn, one) for one in HEADINGS) for turn in range(0, 360, step))
    return [
        say(
            "Frames are turned in steps of {step}°: none lies further than {off}° from one of the eight headings, "
            "where a flight's may lie {half}°. Heading errors and the worst angle are known to that step only."
        ).format(step=step, off=f"{furthest:g}", half=f"{360 / len(HEADINGS) / 2:g}")
    ]


def _altitudes(found: Answer, say: Say) -> list[str]:
    altitudes = sorted(found.study.parameters["altitudes_m"])
    return [
        say(
            "Frames are seen from {altitudes} m alone: what lies between two of them is not known, and a range that "
            "ends at {low} or {high} m may reach further."
        ).format(altitudes=", ".join(f"{a:g}" for a in altitudes), low=f"{altitudes[0]:g}", high=f"{altitudes[-1]:g}")
    ]


def _floor(found: Answer, say: Say) -> list[str]:
    floor_m = (found.study.findings.get("limits") or {}).get("floor_m")
    if not floor_m or math.isnan(floor_m):
        return []
    return [
        say(
            "References lie {stride} m apart: the nearest is {floor} m from a frame in the median, and no median error "
            "can be less."
        ).format(stride=f"{found.study.parameters['ground'].get('stride_m', math.nan):g}", floor=f"{floor_m:.0f}")
    ]
