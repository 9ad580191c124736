"""Requests as nobody's browser would send them: no answer of 5xx, none that takes seconds."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import quote, urlencode

import numpy as np
import pytest
from flask import Flask
from gallery_sample import Shape, make_gallery
from hostile import fuzzed, mutated, survives
from hypothesis import strategies as st
from PIL import Image
from werkzeug.test import TestResponse

from web import create_app

SHAPE = Shape(columns=3, rows=2, frames=3, flights=("251124155712",), dim=16)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    app = create_app(make_gallery(tmp_path_factory.mktemp("gallery"), SHAPE))
    yield app
    app.extensions["coarseloc"].close()


ODD = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ["..", "%2e%2e/%2e%2e/etc/passwd", "\0", "'; DROP TABLE tiles; --", "<script>", "9" * 40, "-1", "1e999", "nan", "٣"]
)
KNOWN = st.sampled_from(["251124155712", "1", "2", "vits16", "full", "view", "json", "CoarseLocalizationInfo"])
QUERY_NAMES = st.sampled_from(
    ["model", "set", "asked", "size", "v", "lang", "theme", "image", "flight", "frame", "by", "angle", "angles", "bbox",
     "near", "altitude", "overlap", "k", "q", "page", "sort", "a", "b", "west", "south", "east", "north", "side",
     "session"]
)  # fmt: skip
QUERIES = st.lists(st.tuples(QUERY_NAMES | ODD, ODD | KNOWN), max_size=4)


@st.composite
def addresses(draw: st.DrawFn, app: Flask) -> str:
    """One of the application's own addresses with odd values in it, or none at all."""
    rules = sorted((rule for rule in app.url_map.iter_rules() if "GET" in (rule.methods or ())), key=lambda r: r.rule)
    rule = draw(st.sampled_from(rules))
    parts = [
        (f"{quote(draw(ODD | KNOWN), safe='/' if draw(st.booleans()) else '')}" if variable else text)
        for variable, text in rule._trace
        if text != "|"
    ]
    path = draw(st.just("".join(parts)) | ODD.map(lambda text: "/" + quote(text)))
    return f"/{path.lstrip('/')}?{urlencode(draw(QUERIES))}"


def _content(answer: TestResponse) -> bytes:
    """An answer's body; of a stream of events, which has no end, its first part."""
    if answer.mimetype != "text/event-stream":
        return answer.data
    with closing(answer):
        return next(answer.iter_encoded())


@fuzzed(data=st.data(), html=st.booleans())
def test_addresses_and_queries(app, data, html):
    address = data.draw(addresses(app))
    with survives():
        answer = app.test_client().get(address, headers={"Accept": "text/html" if html else "application/json"})
        content = _content(answer)
        assert answer.status_code < 500 or answer.status_code == 503, f"{address}: {content[:500]!r}"
        assert b"Traceback" not in content


@fuzzed(data=st.data())
def test_bodies_of_posts(app, data):
    rules = sorted({rule.rule for rule in app.url_map.iter_rules() if "POST" in (rule.methods or ())})
    path = data.draw(st.sampled_from(rules))
    path = path.replace("<name>", "x").replace("<flight_id>", "251124155712").replace("<int:run>", "1")
    values = st.recursive(
        st.none() | st.floats() | st.integers() | ODD,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD, inner, max_size=3),
    )
    body, kind = data.draw(
        values.map(lambda value: (json.dumps(value).encode(), "application/json"))
        | st.binary(max_size=300).map(lambda raw: (raw, "application/json"))
        | QUERIES.map(lambda query: (urlencode(query).encode(), "application/x-www-form-urlencoded"))
        | st.binary(max_size=300).map(lambda raw: (raw, "multipart/form-data; boundary=x"))
        | st.tuples(st.binary(max_size=40), ODD.filter(lambda t: "\n" not in t and "\r" not in t))
    )
    with survives():
        try:
            answer = app.test_client().post(path, data=body, headers={"Content-Type": kind})
        except UnicodeEncodeError:  # a header that no client can send
            return
        assert answer.status_code < 500 or answer.status_code == 503, f"{path}: {answer.text[:500]}"


@fuzzed(data=st.data())
def test_uploads(app, data):
    file = io.BytesIO()
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(file, data.draw(st.sampled_from(["JPEG", "PNG", "WEBP"])))
    sent = data.draw(mutated(file.getvalue()) | st.binary(max_size=60))
    name = data.draw(ODD.map(lambda text: text.replace("\r", "").replace("\n", "").replace("\0", "") or "x"))
    with survives():
        answer = app.test_client().post("/search", data={"image": (io.BytesIO(sent), name)})
        assert answer.status_code in (201, 303, 400, 413, 415), answer.text[:500]
