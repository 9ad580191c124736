"""The JSON API against its own description: whatever is asked, by it or against it, the answer is a described one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from gallery_sample import Shape, make_gallery, record_rotation
from hostile import fuzzed, survives
from hypothesis import strategies as st

from web import create_app
from web.openapi import OPERATIONS

SHAPE = Shape(columns=3, rows=2, frames=3, flights=("251124155712",), dim=16)
KNOWN = {  # ids that are there: made-up ones would be answered by 404 alone
    "flight_id": ("251124155712",),
    "frame": (1, 3),
    "run": (1, 6),
    "rotated_tile": (1, 48),
    "snapshot": (1, 10),
    "name": ("gangnam-300m", "coarse-localization-info.v1.schema.json"),
    **{"zoom": (17,), "x": (111759, 111760), "y": (50690, 50691), "form": ("webp", "png")},
    "suffix": ("json", "geojson", "kml", "csv"),
    **{"job": (1, 2), "wish": ("pause", "stop", "resume")},
}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    settings = make_gallery(tmp_path_factory.mktemp("gallery"), SHAPE)
    record_rotation(settings)
    app = create_app(settings)
    yield app
    app.extensions["coarseloc"].close()


@pytest.fixture(scope="module")
def api(app: Flask) -> Any:
    import schemathesis  # a second to import: not while other tests are collected

    return schemathesis.openapi.from_wsgi("/api/openapi.json", app)


@pytest.fixture(scope="module")
def checks() -> list[Any]:
    from schemathesis import checks
    from schemathesis.specs.openapi import checks as of_openapi

    return [
        checks.not_a_server_error,
        of_openapi.status_code_conformance,
        of_openapi.content_type_conformance,
        of_openapi.response_headers_conformance,
        of_openapi.response_schema_conformance,
    ]


@pytest.mark.parametrize("name", sorted(OPERATIONS.keys() - {"openapi.document"}))
@fuzzed(few=4, data=st.data())
def test_every_answer_is_as_described(api, checks, name, data):
    import schemathesis

    operation = api.find_operation_by_id(name)
    how = data.draw(st.sampled_from([schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]))
    case = data.draw(operation.as_strategy(generation_mode=how))
    for parameter in case.path_parameters or {}:
        if data.draw(st.booleans()):
            case.path_parameters[parameter] = data.draw(st.sampled_from(KNOWN[parameter]))
    with survives():  # its WSGI client asks for gzip and does not unpack it
        case.call_and_validate(checks=checks, headers={"Accept-Encoding": "identity"})
