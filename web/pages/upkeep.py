"""Rename and delete flights and reference sets, with what goes along said first."""

from __future__ import annotations

from typing import Literal

from flask import Blueprint, redirect, request, url_for
from pydantic import Field
from werkzeug.wrappers import Response as AnyResponse

from coarseloc.store import embeddings, flights, references, tallies
from coarseloc.vectors import sync
from web.language import _
from web.models import AnswerModel, Url, json_response
from web.pages import page
from web.problems import Problem, accepts_html
from web.selection import stored_flight, stored_set
from web.state import current_state

routes = Blueprint("upkeep", __name__)


class UpkeepPage(AnswerModel):
    """A flight or a reference set, and what is deleted with it. Images stay."""

    kind: Literal["flight", "reference-set"]
    name: str
    source: str = Field(description="its folder or file, which is not touched")
    runs: int | None = Field(description="of a flight; null of a set, whose runs stay")
    hits: int | None
    answers: int | None = Field(description="of a flight, by any method: places, fixes, tracks")
    marked: int | None = Field(description="of a flight: frames with tags or a note")
    embeddings: int | None = Field(description="of a reference set")
    rename_url: str = Url
    delete_url: str = Url


class UpkeepReceipt(AnswerModel):
    """What was done: its name now, null where it is gone."""

    name: str | None
    url: str = Url


@page(routes, "/flights/<flight_id>/edit", "flight_upkeep", template="upkeep")
def flight_upkeep(flight_id: str) -> UpkeepPage:
    """A flight's name, and what would be deleted with it."""
    state = current_state()
    folder = stored_flight(state.database, flight_id, ()).flight.path
    with state.database.read() as session:
        counts = flights.flight_results(session, flight_id)
    return UpkeepPage(
        kind="flight",
        name=flight_id,
        source=folder.name,
        **counts,
        embeddings=None,
        rename_url=url_for("upkeep.rename_flight", flight_id=flight_id),
        delete_url=url_for("upkeep.delete_flight", flight_id=flight_id),
    )


@routes.post("/flights/<flight_id>/rename")
def rename_flight(flight_id: str) -> AnyResponse:
    """Give a flight another name."""
    state, name = current_state(), request.form.get("name", "").strip()
    stored_flight(state.database, flight_id, ())
    state.workspace.rename_flight(flight_id, name)
    return _receipt(name, url_for("flights.flight", flight_id=name))


@routes.post("/flights/<flight_id>/delete")
def delete_flight(flight_id: str) -> AnyResponse:
    """Delete a flight with all answers for it."""
    state = current_state()
    stored_flight(state.database, flight_id, ())
    _check_sure()
    state.workspace.delete_flight(flight_id)
    return _receipt(None, url_for("flights.flights"))


@page(routes, "/references/<name>/edit", "set_upkeep", template="upkeep")
def set_upkeep(name: str) -> UpkeepPage:
    """A reference set's name, and what would be deleted with it."""
    state = current_state()
    stored = stored_set(state.database, name)
    with state.database.read() as session:
        count = sum(tallies.tally(session, stored.id, spec.id).live for spec in embeddings.specs(session, stored.id))
    return UpkeepPage(
        kind="reference-set",
        name=stored.name,
        source=stored.reference_set.source.rpartition("/")[2],
        runs=None,
        hits=None,
        answers=None,
        marked=None,
        embeddings=count,
        rename_url=url_for("upkeep.rename_set", name=stored.name),
        delete_url=url_for("upkeep.delete_set", name=stored.name),
    )


@routes.post("/references/<name>/rename")
def rename_set(name: str) -> AnyResponse:
    """Give a set another name; runs made against it keep the old one."""
    state = current_state()
    stored, new_name = stored_set(state.database, name), request.form.get("name", "").strip()
    with state.workspace.only_ingest(), state.database.write() as session:  # the vector store follows by itself
        references.rename_reference_set(session, stored.name, new_name)
    return _receipt(new_name, url_for("references.references"))


@routes.post("/references/<name>/delete")
def delete_set(name: str) -> AnyResponse:
    """Delete a set with its embeddings; runs made against it stay."""
    state = current_state()
    stored = stored_set(state.database, name)
    _check_sure()
    with state.workspace.only_ingest():
        sync.delete_reference_set(state.database, state.vectors.store(), stored.name)
    return _receipt(None, url_for("references.references"))


def _check_sure() -> None:
    if request.form.get("sure") != "yes":
        raise Problem(400, _("Nothing was deleted: say that you are sure."))


def _receipt(name: str | None, url: str) -> AnyResponse:
    if accepts_html():
        return redirect(url, 303)
    return json_response(UpkeepReceipt(name=name, url=url))
