"""Describe the JSON API for programs: OpenAPI 3.1 at `/api/openapi.json`.

Addresses, methods and the types of their ids are those of the application itself, and what an answer holds is the
model that its view returns. Here stands what neither knows: what an address is for, which query it takes, how it can
fail.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from flask import Blueprint, Flask, Response, current_app, jsonify
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from werkzeug.routing import Rule

from coarseloc import __version__, i18n
from coarseloc.core.filters import KEYS
from search.answered_frames import NAMES, NUMBERS
from search.export.files import FORMATS, TRACK_FORMATS
from search.export.records import SCHEMAS, CoarseLocalizationInfo, FlightLocalizations, PublishedSchema
from web.monitoring import Readiness
from web.pages.export import TRACK_MEDIA
from web.pages.export_files import GeoJsonFeatures
from web.pages.ground import GroundPlaces, MapGrid
from web.pages.images import SIZES
from web.pages.jobs import JobReceipt
from web.pages.localizability import LocalizabilityLayer
from web.pages.localize import ImageLocalization
from web.pages.marks import ACTIONS, FrameMarksView, MarksReceipt
from web.pages.search import UploadReceipt
from web.pages.upkeep import UpkeepReceipt
from web.problems import ProblemDetails
from web.state import current_state

routes = Blueprint("openapi", __name__)

Schema = Mapping[str, Any]
Answers = Mapping[str, type[BaseModel] | None]  # by media type; None for bytes that are no JSON
_REF = "#/components/schemas/{model}"
_TEXT: Schema = {"type": "string"}
_TEXTS: Schema = {"type": "array", "items": _TEXT}  # the name given several times
_PICTURE = {"image/jpeg": None}
_MAP_TILE = {"image/webp": None, "image/png": None}

_PROBLEMS = {
    400: "The request cannot be read, or asks for what cannot be.",
    401: "A server that listens beyond its own machine wants its token first.",
    403: "Another site sent this request.",
    404: "Nothing of this name is known.",
    409: "The server has not what that takes.",
    413: "The image is too large.",
    415: "This is not an image that is read here.",
    422: "The image file is damaged.",
    429: "Too many images are being embedded or wait for it, or too many wrong tokens were given.",
    503: "The database cannot be used just now.",
}
_QUERY: dict[str, tuple[str, Schema]] = {
    "agreement": ("Whether to count the backbones that agree.", {"enum": ["yes"]}),
    "a": ("One of a flight's answers, by its key.", {"type": "integer"}),
    "b": ("The answer that is held against `a`, by its key.", {"type": "integer"}),
    "show": ("Which frames: those that changed, or all.", {"enum": ["changed", "all"]}),
    "after": ("Where to go on: as `next` of the page before says it.", _TEXT),
    "asked": ("Of searches that asked differently, the one of this key.", _TEXT),
    "by": ("Who answers; by default Qdrant where there are filters.", {"enum": ["auto", "faiss", "qdrant"]}),
    "crs": ("A projected CRS, such as EPSG:32652, that positions are given in too.", _TEXT),
    "flight": ("A flight's id.", _TEXT),
    "frame": ("A frame of `flight`, to be looked for.", {"type": "integer"}),
    "image": ("The id of an image that was sent, to be looked for.", _TEXT),
    "lang": ("The language of labels and problems; kept by a cookie.", {"enum": list(i18n.LANGUAGES)}),
    "track": ("The key of one of a flight's tracks; by default the newest without options.", {"type": "integer"}),
    "method": ("The method whose answers are shown.", {"type": "string", "default": "best-place"}),
    "model": ("The backbone, by its key.", _TEXT),
    "tag": ("A tag of the frames that are shown; may be given several times.", _TEXTS),
    "pick": ("A row of the gallery by its `key`; may be given several times.", _TEXTS),
    "sort": ("A column of numbers to sort by, with - the largest first.", _TEXT),
    "state": ("A state of an answer, such as on, far, match, no-match, lost.", _TEXT),
    "page": ("Which page, from 1.", {"type": "integer", "default": 1}),
    "rank": ("The hit of `model` that is compared with the query; none by default.", {"type": "integer"}),
    "session": ("A live session's name; by default the newest.", _TEXT),
    "set": ("A reference set's name.", _TEXT),
    "size": ("How large a picture: " + ", ".join(f"{n} {px} px" for n, px in SIZES.items()), {"enum": list(SIZES)}),
    "study": ("A rotation study's number; the newest by default.", {"type": "integer"}),
    "turn": ("Degrees that the dial is turned by.", {"type": "integer", "default": 45}),
    "view": ("How it is shown: side, blink or blend two pictures; grid or table for rows.", _TEXT),
    "within": ("Metres within which estimates agree; 1.05 strides of the references by default.", {"type": "number"}),
    **{
        f"{name}-{end}": (f"{'Least' if end == 'from' else 'Most'} of the column {name}.", {"type": "number"})
        for name in NUMBERS
        for end in ("from", "to")
    },
    **{key.name: (f"{key.help} {key.form}, such as {key.example}.", _TEXTS) for key in KEYS.values()},
}
_FACETS = (*KEYS, "model", "by")
_SEARCHES = ("set", "asked", "method")
_ROWS = (*NAMES, "tag", *(f"{name}-{end}" for name in NUMBERS for end in ("from", "to")), "sort")
_IDS: dict[tuple[str, str], Schema] = {  # where the application's rule is wider than its answer
    ("export.whole", "suffix"): {"enum": list(FORMATS)},
    ("jobs.ask", "wish"): {"enum": ["pause", "stop", "resume"]},
    ("gallery_export.gallery_rows", "suffix"): {"enum": list(FORMATS)},
    ("export.tracks", "suffix"): {"enum": list(TRACK_FORMATS)},
    ("export.schema", "name"): {"enum": list(SCHEMAS)},
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One address and method: what it is for, what may be asked of it, what it answers."""

    summary: str
    query: Sequence[str] = ()
    problems: Sequence[int] = ()  # beside those that any request may meet
    # The JSON's model, or models by media type, None for other bytes; where the view is not annotated with its model.
    answer: type[BaseModel] | Mapping[str, type[BaseModel] | None] | None = None


OPERATIONS: dict[str, Operation] = {
    "flights.flights_json": Operation("Flights, newest first", ("page", "lang")),
    "flights.flight_json": Operation("One flight and all its frames", (*_SEARCHES, "model", "track", "lang"), (404,)),
    "flight_columns.flight_columns": Operation("Every frame of a flight, in columns", (), (404,)),
    "flight_columns.flight_estimates": Operation(
        "One answer for every frame of a flight, in columns", (*_SEARCHES, "model", "agreement", "lang"), (404,)
    ),
    "flights.frame_brief": Operation("One frame by one backbone", (*_SEARCHES, "model", "lang"), (404,)),
    "frame.frame_json": Operation(
        "One frame under every backbone", (*_SEARCHES, "model", "rank", "view", "within", "lang"), (404,)
    ),
    "gallery.gallery_json": Operation(
        "Frames of all flights by what their answers are", (*_ROWS, "after", "size", "view", "lang")
    ),
    "gallery.pairs_json": Operation(
        "Two answers for a flight frame by frame", ("flight", "a", "b", "within", "show", "page", "lang"), (404,)
    ),
    "gallery_export.gallery_rows": Operation(
        "The gallery's rows as one file, or an archive of one for each flight and method",
        (*_ROWS, "pick"),
        (404,),
        {
            "application/json": FlightLocalizations,
            "application/geo+json": GeoJsonFeatures,
            "application/vnd.google-earth.kml+xml": None,
            "text/csv": None,
            "application/zip": None,
        },
    ),
    "gallery_export.gallery_report": Operation(
        "The gallery's rows as one page to read, with pictures inside",
        (*_ROWS, "pick", "lang"),
        (404,),
        {"text/html": None},
    ),
    "live.live_json": Operation("A flight that is tracked while it is flown", ("session", "lang"), (404,)),
    "compare.compare_json": Operation("Backbones beside each other", ("flight", *_SEARCHES, "lang"), (404,)),
    "rotation.rotation_json": Operation("A rotation study", ("study", "turn", "lang")),
    "references.references_json": Operation("Reference sets", ("lang",)),
    "upkeep.flight_upkeep_json": Operation("What goes with a flight", ("lang",), (404,)),
    "upkeep.rename_flight": Operation("Rename a flight", ("lang",), (401, 403, 404), UpkeepReceipt),
    "upkeep.delete_flight": Operation("Delete a flight with its answers", ("lang",), (401, 403, 404), UpkeepReceipt),
    "upkeep.set_upkeep_json": Operation("What goes with a reference set", ("lang",), (404,)),
    "upkeep.rename_set": Operation("Rename a reference set", ("lang",), (401, 403, 404), UpkeepReceipt),
    "upkeep.delete_set": Operation("Delete a reference set", ("lang",), (401, 403, 404), UpkeepReceipt),
    "ground.tiles": Operation("The places of a reference set", (), (404,), GroundPlaces),
    "ground.picture": Operation("A reference set's ground, north up", (), (404,), _PICTURE),
    "ground.grid": Operation("A reference set's projected coordinates", (), (404,), MapGrid),
    "localizability.places": Operation("What a set's places come to", (), (404,), LocalizabilityLayer),
    "ground.map_tile": Operation("A map tile of a reference set's ground", (), (404,), _MAP_TILE),
    "ground.base_tile": Operation("A map tile of the server's base map", (), (404,), _MAP_TILE | {"image/jpeg": None}),
    "jobs.jobs_json": Operation("Long work: what runs, how far it is, how it ended", ("lang",)),
    "marks.mark_rows": Operation(
        "Tag the frames of picked rows of the gallery, or write their note", (), (401, 403, 413), MarksReceipt
    ),
    "marks.mark_frame": Operation("Write a frame's tags and note anew", (), (401, 403, 404, 413), FrameMarksView),
    "jobs.start": Operation("Start a job", (), (401, 403, 404, 413), JobReceipt),
    "jobs.ask": Operation("Pause, stop or resume a job", (), (401, 403, 404, 413), JobReceipt),
    "search.send": Operation("Send an image to be looked for", (), (401, 403, 413, 415), UploadReceipt),
    "localize.localize": Operation(
        "Where an image was taken", (*_FACETS, "lang"), (401, 403, 404, 409, 413, 415, 429), ImageLocalization
    ),
    "search.search_json": Operation(
        "Look for an image among the references", ("image", "flight", "frame", *_FACETS, "lang"), (404, 429)
    ),
    "export.export_json": Operation("The files of a flight's searches and tracks", (*_SEARCHES, "lang"), (404,)),
    "export.whole": Operation(
        "A flight's searches as one file",
        (*_SEARCHES, "crs"),
        (404,),
        {
            "application/json": FlightLocalizations,
            "application/geo+json": GeoJsonFeatures,
            "application/vnd.google-earth.kml+xml": None,
            "text/csv": None,
        },
    ),
    "export.tracks": Operation(
        "A flight's stored tracks in one format", ("method", "lang"), (404,), dict.fromkeys(TRACK_MEDIA.values())
    ),
    "export.record": Operation("One frame under one backbone", (), (404,), CoarseLocalizationInfo),
    "export.schema": Operation("A record's JSON Schema", (), (404,), {"application/schema+json": None}),
    "images.tile": Operation("A reference tile at its heading", ("size",), (404, 422), _PICTURE),
    "images.result": Operation("A reference tile as a search saw it", ("size",), (404, 422), _PICTURE),
    "images.frame": Operation("A frame of a flight", ("size",), (404, 422), _PICTURE),
    "images.upload": Operation("An image that was sent", ("size",), (404, 422), _PICTURE),
    "health.healthz": Operation("The process answers"),
    "health.readyz": Operation("What the server stands on, part by part", answer=Readiness),
    "metrics": Operation("Counts and times for Prometheus", answer={"text/plain": None}),
    "openapi.document": Operation("This description", answer={"application/json": None}),
}


@routes.get("/api/openapi.json")
def document() -> Response:
    return jsonify(current_state().memory.recall("openapi", lambda: describe(current_app)))


def describe(app: Flask) -> dict[str, Any]:
    """The OpenAPI document of those addresses that are an operation's."""
    paths: dict[str, dict[str, Any]] = {}
    answers = {name: _answers(app.view_functions[name], operation) for name, operation in OPERATIONS.items()}
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        if operation := OPERATIONS.get(rule.endpoint):
            path = re.sub(r"<(?:[^<>:]+:)?(\w+)>", r"{\1}", rule.rule)
            (method,) = (rule.methods or set()) - {"HEAD", "OPTIONS"}
            paths.setdefault(path, {})[method.lower()] = _operation(rule, operation, answers[rule.endpoint])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "coarseloc",
            "version": __version__,
            "description": "Every page has a twin that ends in .json; addresses in answers are paths on this server. "
            "A problem is application/problem+json. Readers pass over keys that they do not know.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": _schemas(answers.values()),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "COARSELOC_TOKEN"}},
        },
    }


def _answers(view: Callable[..., Any], operation: Operation) -> Answers:
    """The models of a view's answers by media type; the model of its JSON is what the view returns."""
    answer = operation.answer or get_type_hints(view)["return"]
    return answer if isinstance(answer, Mapping) else {"application/json": answer}


def _operation(rule: Rule, operation: Operation, answers: Answers) -> dict[str, Any]:
    parameters = [*_path_parameters(rule), *(_query_parameter(name) for name in operation.query)]
    description: dict[str, Any] = {"operationId": rule.endpoint, "summary": operation.summary, "parameters": parameters}
    problems = (400, *operation.problems, 503)
    responses = {str(status): _problem(status) for status in problems}
    success = {"description": operation.summary, "headers": _headers(), "content": _content(answers)}
    if rule.endpoint == "search.send":
        description |= {"requestBody": _upload(), "security": [{}, {"token": []}]}
        to_page = _headers("Location")
        responses |= {
            "201": success | {"description": "Taken in", "headers": to_page},
            "303": {"description": "Taken in; the page that looks for it, for readers of HTML", "headers": to_page},
        }
    else:
        responses["200"] = success
    if body := _BODIES.get(rule.endpoint):
        description |= {"requestBody": body, "security": [{}, {"token": []}]}
    if rule.endpoint in _BODIES and rule.endpoint.startswith(("upkeep.", "jobs.")):
        responses["303"] = {"description": "Done; the page that shows it, for readers of HTML", "headers": _headers()}
    if rule.endpoint in ("ground.tiles", "ground.map_tile", "ground.base_tile"):
        responses["304"] = {"description": "As the sender of If-None-Match has it", "headers": _headers()}
    if rule.endpoint == "health.readyz":
        responses["503"] = success | {"description": "The database cannot be used"}
    return description | {"responses": dict(sorted(responses.items()))}


def _path_parameters(rule: Rule) -> Iterator[dict[str, Any]]:
    for converter, name in re.findall(r"<(?:([^<>:]+):)?(\w+)>", rule.rule):
        schema = {"type": "integer", "minimum": 0} if converter == "int" else {"type": "string", "minLength": 1}
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "schema": _IDS.get((rule.endpoint, name), schema),
        }


def _query_parameter(name: str) -> dict[str, Any]:
    description, schema = _QUERY[name]
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _content(answers: Answers) -> dict[str, Any]:
    return {media: {"schema": _schema_of(media, model)} for media, model in answers.items()}


def _schema_of(media: str, model: type[BaseModel] | None) -> Schema:
    if model is not None:
        return {"$ref": _REF.format(model=model.__name__)}
    return {"type": "object"} if media.endswith("json") else {} if media.startswith("image/") else _TEXT


def _problem(status: int) -> dict[str, Any]:
    return {
        "description": _PROBLEMS[status],
        "headers": _headers("Retry-After") if status == 429 else _headers(),
        "content": {"application/problem+json": {"schema": {"$ref": _REF.format(model="ProblemDetails")}}},
    }


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"required": True, "schema": _TEXT} for name in ("X-Request-Id", *names)}


def _upload() -> dict[str, Any]:
    """The image, and the facets that the page is to keep."""
    fields = {name: {"type": "string", "description": _QUERY[name][0]} for name in _FACETS}
    image = {"type": "string", "format": "binary", "description": "JPEG, PNG, TIFF or WebP"}
    schema = {"type": "object", "required": ["image"], "properties": {"image": image, **fields}}
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}


def _form(field: str, schema: Schema, media: str = "application/x-www-form-urlencoded") -> dict[str, Any]:
    form = {"type": "object", "required": [field], "properties": {field: schema}}
    return {"required": True, "content": {media: {"schema": form}}}


_BINARY = {"type": "string", "format": "binary"}
_IMAGE_ALONE = {media: {"schema": _BINARY} for media in ("image/jpeg", "image/png")}
_RENAME, _DELETE = _form("name", {"type": "string", "minLength": 1, "maxLength": 200}), _form("sure", {"enum": ["yes"]})
_START = {
    "required": True,
    "content": {
        "application/x-www-form-urlencoded": {
            "schema": {
                "type": "object",
                "required": ["kind"],
                "properties": {
                    "kind": {"enum": ["captures", "orthophoto", "search", "track", "rotation", "altitude"]},
                    **dict.fromkeys(("source", "flight", "reference_set", "backbone"), _TEXT),
                    **{name: {"type": "number"} for name in ("footprint_m", "overlap")},
                    "check": {"enum": ["yes", "no"], "description": "whether preflight comes first"},
                },
            }
        }
    },
}
_FORM = "application/x-www-form-urlencoded"
_MARKS = {
    "tags": {"type": "string", "description": "with spaces or commas between them"},
    "note": {"type": "string", "description": "empty to take it off"},
}
_MARK_FIELDS = {"pick": {"type": "array", "items": _TEXT}, "do": {"enum": list(ACTIONS)}, **_MARKS}
_MARK_ROWS = {
    "required": True,
    "content": {_FORM: {"schema": {"type": "object", "required": ["pick", "do"], "properties": _MARK_FIELDS}}},
}
_BODIES: dict[str, dict[str, Any]] = {  # of what is posted
    "localize.localize": {
        "required": True,
        "content": _form("image", _BINARY, "multipart/form-data")["content"] | _IMAGE_ALONE,
    },
    "jobs.start": _START,
    "marks.mark_rows": _MARK_ROWS,
    "marks.mark_frame": {"content": {_FORM: {"schema": {"type": "object", "properties": _MARKS}}}},
    "jobs.ask": {"content": {"application/x-www-form-urlencoded": {"schema": {"type": "object"}}}},
    "upkeep.rename_flight": _RENAME,
    "upkeep.delete_flight": _DELETE,
    "upkeep.rename_set": _RENAME,
    "upkeep.delete_set": _DELETE,
}


def _schemas(answers: Iterable[Answers]) -> dict[str, Any]:
    """Of every answer and of what it is made of, by name."""
    models: list[type[BaseModel]] = [ProblemDetails]
    for by_media in answers:
        models += [model for model in by_media.values() if model]
    _names, document = models_json_schema(
        [(model, "validation") for model in models], ref_template=_REF, schema_generator=PublishedSchema
    )
    return dict(document["$defs"])
