"""What a hostile or careless sender tries on the real server, and that the server is alive afterwards."""

from __future__ import annotations

import json
import socket
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from asking import BOUNDARY, ask, noise, png, upload


@pytest.fixture(autouse=True)
def alive_afterwards(server):
    yield
    status, _headers, body = ask(server, "GET", "/healthz")
    assert status == 200 and json.loads(body) == {"status": "ok"}


def png_bomb(side):
    """A PNG of side x side grey pixels in a few kilobytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compressobj(9)
    data = rows.compress(b"\0" * (side + 1) * 1000) + rows.flush()  # cut short: the header alone must be enough
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_a_200_mb_upload_is_refused_by_its_announced_length(server):
    there = urlsplit(server.url)
    with socket.create_connection((there.hostname, there.port), timeout=60) as line:
        line.sendall(
            f"POST /search HTTP/1.1\r\nHost: {there.netloc}\r\nContent-Length: 200000000\r\n"
            f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n".encode()
        )
        answer = line.recv(200)
    assert b" 413 " in answer.splitlines()[0] + b" "


def test_a_file_just_over_the_limit_is_refused_with_an_explanation(server):
    status, headers, body = upload(server, b"\xff\xd8\xff" + bytes(33_000_000))
    assert status == 413 and headers["Content-Type"] == "application/problem+json"
    assert "32 MB" in json.loads(body)["detail"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"just some text\n" * 100, 415),
        (b"", 400),
        (b"\xff\xd8\xff\xe0" + bytes(300), 415),
        (png()[:60], 415),
        (b"GIF89a" + bytes(100), 415),
        (b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>', 415),
        (b"%!PS-Adobe-3.0 EPSF\n%%BoundingBox: 0 0 9 9\n", 415),
    ],
    ids=["text", "nothing", "a broken JPEG", "a cut PNG", "a GIF", "an SVG", "a PostScript"],
)
def test_what_is_no_image_is_refused_whatever_it_is_named(server, data, status):
    found, headers, body = upload(server, data)
    assert found == status and headers["Content-Type"] == "application/problem+json"
    assert json.loads(body)["request_id"] == headers["X-Request-Id"]


def test_a_decompression_bomb_is_refused_by_its_header(server):
    status, _headers, body = upload(server, png_bomb(60_000))  # decoded it would be a broken picture: 415
    assert status == 413 and "million" in json.loads(body)["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "/static/../../coarseloc.db",
        "/static/%2e%2e/%2e%2e/coarseloc.db",
        "/static/..%5c..%5ccoarseloc.db",
        "//etc/passwd",
        "/images/tiles/../../coarseloc.db",
        "/images/uploads/../coarseloc.db.jpg",
        "/images/uploads/..%2f..%2fcoarseloc.db.jpg",
        "/images/frames/..%2f..%2f..%2fetc/1.jpg",
        "/references/..%2f..%2f/ground.json",
        "/schemas/%2e%2e%2fcoarseloc.toml",
        "/search.json?image=../coarseloc.db",
        "/search.json?image=%2fetc%2fpasswd",
    ],
)
def test_no_path_leads_out(server, path):
    status, _headers, body = ask(server, "GET", path)
    assert status in (400, 404) and b"SQLite" not in body and b"root:" not in body


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}],
)
def test_an_upload_from_another_site_is_refused(server, headers):
    assert upload(server, png(), **headers)[0] == 403


def test_a_foreign_host_name_is_refused(server):
    status, _headers, body = ask(server, "GET", "/", headers={"Host": "evil.example"})
    assert status == 400 and "COARSELOC_TRUSTED_HOSTS" in json.loads(body)["detail"]


def test_a_backbone_is_never_taken_from_a_request(server):
    image = json.loads(upload(server, png())[2])["image"]
    status, _headers, body = ask(
        server, "GET", f"/search.json?image={image}&model=../../weights&reference-set=drawn-200m"
    )
    assert status == 200 and json.loads(body)["model"] == "tiny"


@pytest.mark.parametrize(
    "query",
    [
        "angle=x",
        "bbox=1,2,3",
        "bbox=nan,0,1,1",
        "altitude=9:1",
        "overlap=1,2",
        "angle=1e999",
        "bbox=0,5,1,4",
        "near=180.001,0,9",
        "nead=127,37,9",
        "overlap=50&overlap=80",
    ],
)
def test_filters_that_make_no_sense_are_named(server, query):
    status, _headers, body = ask(server, "GET", f"/search.json?{query}")
    assert status == 400 and json.loads(body)["detail"]


def test_a_burst_of_uploads_is_queued_shortly_and_the_rest_told_when_to_come_back(server):
    upload(server, png())  # the model is loaded before the burst: loading is not what is tried here

    def search(number):
        image = json.loads(upload(server, noise(number)).body)["image"]
        return ask(server, "GET", f"/search.json?image={image}&model=tiny&reference-set=drawn-200m")

    with ThreadPoolExecutor(16) as many:
        answers = list(many.map(search, range(16)))
    assert {status for status, _headers, _body in answers} <= {200, 429}
    assert all(int(headers["Retry-After"]) > 0 for status, headers, _body in answers if status == 429)
    assert any(status == 200 for status, _headers, _body in answers)


def test_beyond_this_machine_writes_need_the_token_and_reads_do_not(start_server, gallery_dir, server):
    second = start_server(gallery_dir, "--host", "0.0.0.0", COARSELOC_TOKEN="s3cret-of-16-char")
    assert ask(second, "GET", "/flights.json")[0] == 200
    assert upload(second, png())[0] == 401
    assert upload(second, png(), Authorization="Bearer wrong")[0] == 401
    assert upload(second, png(), Authorization="Bearer s3cret-of-16-char")[0] == 201
    assert upload(second, png(), Cookie="coarseloc_token=s3cret-of-16-char")[0] == 201
