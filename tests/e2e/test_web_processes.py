"""Several servers over one data folder, and the end of one of them."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from asking import ask, noise, upload, wait_until
from gallery_sample import Shape, add_embedded, make_gallery

FOUND = "model=tiny&reference-set=drawn-200m"


@pytest.fixture(scope="module")
def servers(start_server, tiny_backbone, tmp_path_factory):
    """Two over a folder of their own, the first of which has the vector store."""
    folder = tmp_path_factory.mktemp("shared")
    make_gallery(folder, Shape(columns=3, rows=2, frames=8, dim=16))
    add_embedded(folder, tiny_backbone)
    first = start_server(folder)
    wait_until(lambda: vectors(first)["status"] == "ok", 120)
    second = start_server(folder)
    wait_until(lambda: "detail" in vectors(second), 120)
    return first, second


def vectors(server):
    return json.loads(ask(server, "GET", "/readyz").body)["checks"]["vectors"]


def look_up(server, image, more=""):
    answer = ask(server, "GET", f"/search.json?image={image}&{FOUND}{more}")
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


def test_an_image_sent_to_one_is_found_by_the_other_and_both_answer_alike(servers):
    image = json.loads(upload(servers[0], noise(1)).body)["image"]
    hits = [
        [(hit["tile_id"], hit["angle_deg"], hit["score"]) for hit in look_up(server, image)["answer"]["hits"]]
        for server in servers
    ]
    assert hits[0] == hits[1] and len(hits[0]) == 10


def test_the_one_without_the_vector_store_answers_by_faiss_and_says_who_has_it(servers):
    first, second = servers
    image = json.loads(upload(second, noise(2)).body)["image"]
    there, here = (look_up(server, image, "&angle=90") for server in servers)
    assert there["answer"]["by"] == "qdrant" and there["trouble"] is None
    assert here["answer"]["by"] == "faiss" and here["answer"]["stood_in"]
    assert f"in use by process {first.process.pid}" in here["trouble"]
    assert {hit["angle_deg"] for hit in here["answer"]["hits"]} == {90}
    assert [h["tile_id"] for h in here["answer"]["hits"]] == [h["tile_id"] for h in there["answer"]["hits"]]


def test_reads_uploads_and_searches_at_both_at_once_end_well(servers):
    """The same images at both, whose files, thumbnails and mirrors they make at the same time."""
    shutil.rmtree(servers[0].data_dir / "mirrors")
    shutil.rmtree(servers[0].data_dir / "thumbnails" / "renditions", ignore_errors=True)

    def doings(server, number):
        image = json.loads(upload(server, noise(10 + number)).body)["image"]
        yield ask(server, "GET", f"/search.json?image={image}&{FOUND}&angle={90 * (number % 4)}")
        yield ask(server, "GET", f"/images/uploads/{image}.jpg")
        yield ask(server, "GET", "/flights.json")
        flight = json.loads(ask(server, "GET", "/flights.json").body)["flights"][0]["id"]
        yield ask(server, "GET", f"/images/frames/{flight}/{1 + number}.jpg?size=view")

    with ThreadPoolExecutor(8) as many:
        tasks = [(server, number) for number in range(8) for server in servers]
        answers = [answer for some in many.map(lambda task: list(doings(*task)), tasks) for answer in some]
    assert {answer.status for answer in answers} <= {200, 429}
    assert sum(answer.status == 200 for answer in answers) > len(answers) / 2


def test_one_that_is_told_to_stop_finishes_what_it_holds_and_the_other_takes_the_vector_store_over(servers):
    first, second = servers
    images = [json.loads(upload(first, noise(100 + number)).body)["image"] for number in range(3)]
    there = urlsplit(first.url)
    held = [http.client.HTTPConnection(there.hostname, there.port, timeout=60) for _ in images]
    for connection, image in zip(held, images, strict=True):
        connection.request("GET", f"/search.json?image={image}&{FOUND}")
    first.process.send_signal(signal.SIGTERM)
    pages = [json.loads(connection.getresponse().read()) for connection in held]
    assert [len(page["answer"]["hits"]) for page in pages] == [10, 10, 10]
    assert first.process.wait(90) == 0
    wait_until(lambda: vectors(second) == {"status": "ok", "pending": 0}, 120)
    page = look_up(second, images[0], "&angle=90")
    assert page["answer"]["by"] == "qdrant" and page["trouble"] is None
