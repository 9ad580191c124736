"""Every frame of a flight and one answer for each, in columns: what a map and a time axis of thousands need."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from flask import Blueprint, request, url_for
from pydantic import Field

from coarseloc.core.types import Floats
from coarseloc.store import columns
from coarseloc.store.localizations import BEST_PLACE, FIX
from search.answer_columns import agreement_columns, answer_columns, find_answer
from web.fix_texts import method_text
from web.language import _
from web.models import AnswerModel
from web.pages import as_json
from web.problems import Problem
from web.selection import chosen_method, selected_runs, stored_flight
from web.state import current_state

routes = Blueprint("flight_columns", __name__)


class FlightColumns(AnswerModel):
    """Every frame of a flight, in columns of equal length."""

    index: list[int] = Field(description="each less the one before it")
    seconds: list[float | None] = Field(description="since the first frame")
    lon: list[int | None] = Field(description="of the truth: 1e-6 degrees, each less the known one before it")
    lat: list[int | None] = Field(description="likewise")
    frame_url: str = Field(description="a path on this server with {index}")
    image_url: str = Field(description="likewise, of a frame's thumbnail")


class EstimateColumns(AnswerModel):
    """One answer for every frame of a flight, in columns of equal length; null where a frame has none."""

    method: str
    model: str | None
    lon: list[int | None] = Field(description="1e-6 degrees, each less the known one before it")
    lat: list[int | None] = Field(description="likewise")
    heading_deg: list[int | None]
    error_m: list[float | None]
    margin: list[int | None] = Field(description="1e-4; negative: at least so much")
    probability: list[int | None] = Field(description="1e-3")
    agreement: list[int | None] | None = Field(
        description="backbones that agree, this one included; null unless ?agreement= asks for it"
    )
    verdict: list[int | None] = Field(description="0 on, 1 near, 2 far of the best tile")
    match: list[int | None] = Field(description="of fixes: 1, 0; null where not verified")
    states: list[str] = Field(description="the texts that `state` counts")
    state: list[int | None]
    ellipse_95: list[list[int]] | None = Field(description="[major dm, minor dm, azimuth in degrees]; [] without one")


@routes.get("/flights/<flight_id>/columns.json")
@as_json
def flight_columns(flight_id: str) -> FlightColumns:
    """Every frame's number, time and true position: what a map and a time axis of thousands need."""
    with current_state().database.read() as session:
        frames = columns.frame_columns(session, flight_id)
    if not len(frames["index"]):
        stored_flight(current_state().database, flight_id)  # says so where there is no such flight
    sample = url_for("frame.frame", flight_id=flight_id, frame=0)
    image = url_for("images.frame", flight_id=flight_id, frame=0)
    return FlightColumns(
        index=_differences(frames["index"], 1),
        seconds=_rounded(frames["seconds"], 2),
        lon=_differences(frames["lon"], 1e6),
        lat=_differences(frames["lat"], 1e6),
        frame_url=f"{sample[:-1]}{{index}}",
        image_url=image.replace("/0.jpg", "/{index}.jpg"),
    )


@routes.get("/flights/<flight_id>/estimates.json")
@as_json
def flight_estimates(flight_id: str) -> EstimateColumns:
    """Every frame's answer by the backbone and method of the address."""
    database = current_state().database
    selection = selected_runs(database, flight_id)
    method, model = chosen_method(), request.args.get("model")
    run = selection.runs.get(model or "") or next(iter(selection.runs.values()), None)
    with database.read() as session:
        frames = columns.frame_columns(session, flight_id)
        localization = find_answer(session, flight_id, run, method)
        if localization is None:
            raise Problem(404, _("This flight has no answer by {method}.", method=method_text(method)))
        answer = answer_columns(session, localization, method, frames)
        agreement = None
        if run and method in (BEST_PLACE, FIX) and "agreement" in request.args:
            agreement = _integers(agreement_columns(session, run, method, frames)[0])
    states = sorted({state for state in answer.states.tolist() if state})
    code = {state: number for number, state in enumerate(states)}
    axes = np.stack([answer.major_m * 10, answer.minor_m * 10, answer.azimuth_deg], axis=1)
    has_ellipse = np.isfinite(answer.major_m)
    return EstimateColumns(
        method=method,
        model=model if run else None,
        lon=_differences(answer.lon, 1e6),
        lat=_differences(answer.lat, 1e6),
        heading_deg=_integers(answer.heading_deg),
        error_m=_rounded(answer.error_m, 3),
        margin=_integers(np.where(answer.margin_at_least, -1, 1) * answer.margin * 1e4),
        probability=_integers(answer.probability * 1e3),
        agreement=agreement,
        verdict=_integers(answer.verdict),
        match=_integers(answer.matches),
        states=states,
        state=[None if state is None else code[state] for state in answer.states.tolist()],
        ellipse_95=[
            [round(value) for value in row] if has_axes else []
            for row, has_axes in zip(axes.tolist(), list(has_ellipse), strict=True)
        ]
        if bool(has_ellipse.any())
        else None,
    )


def _integers(values: Floats) -> list[int | None]:
    return [None if math.isnan(value) else round(value) for value in values.tolist()]


def _rounded(values: Floats, decimals: int) -> list[float | None]:
    return [None if math.isnan(value) else round(value, decimals) for value in values.tolist()]


def _differences(values: Floats, scale: float) -> list[Any]:
    """Each known value, in whole steps of 1/scale, less the known one before it; the first as it is."""
    steps: list[int | None] = []
    before = 0
    for value in _integers(values * scale):
        steps.append(None if value is None else value - before)
        before = before if value is None else value
    return steps
