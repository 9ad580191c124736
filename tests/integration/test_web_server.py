"""The server itself, in this process, over small WSGI applications: slow, silent, half-done and many clients."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from urllib.parse import urlsplit

import pytest
import uvicorn

from coarseloc.core.errors import InputError
from web.connection import Connection, Limits
from web.server import serve_wsgi

SOON_S = 30.0  # on a busy machine; what would hold an answer up lasts longer
HELD_S = 300.0
LARGE = 24_000_000  # more than the buffers of both sides take
QUICK = Limits(head_s=0.5, body_s=0.5, body_rate=1e6, write_s=0.7, drain_s=3.0, quiet_s=0.1, body=3_000_000)
HEAD = b"Host: 127.0.0.1\r\n"


class SampleApp:
    """Pages, an export that is written while it is sent, an event stream that never ends by itself."""

    def __init__(self) -> None:
        self.chunks_made = 0
        self.closed = queue.SimpleQueue()
        self.threads_of_pages = set()
        self.events = threading.Event()  # set: each stream's generator goes on
        self.works = 0  # begun
        self.may_end = threading.Event()  # what is at work

    def __call__(self, environ, start_response):
        return getattr(self, environ["PATH_INFO"].strip("/") or "page")(environ, start_response)

    def page(self, environ, start_response):
        self.threads_of_pages.add(threading.current_thread().name)
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
        return [b"hello"]

    def echo(self, environ, start_response):
        body = environ["wsgi.input"].read()
        facts = {
            name: value for name, value in environ.items() if isinstance(value, str) and not name.startswith("SERVER")
        }
        answer = json.dumps({"environ": facts, "length": len(body), "sum": sum(body)}).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
        return [answer]

    def export(self, environ, start_response):
        start_response("200 OK", [("Content-Type", "application/json")])

        def chunks():
            try:
                for _ in range(LARGE // 8000):
                    self.chunks_made += 1
                    yield b"x" * 8000
            finally:
                self.closed.put("export")

        return chunks()

    def download(self, environ, start_response):
        """Takes a second."""
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return (time.sleep(0.02) or b"y" * 1000 for _ in range(50))

    def work(self, environ, start_response):
        self.works += 1
        self.may_end.wait(HELD_S)
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "4")])
        return [b"done"]

    def large(self, environ, start_response):
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(LARGE))])
        return [b"x" * LARGE]

    def broken(self, environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])

        def chunks():
            yield b"z" * 300_000
            raise RuntimeError("broken in the middle")

        return chunks()

    def stream(self, environ, start_response):
        start_response("200 OK", [("Content-Type", "text/event-stream")])

        def events():
            try:
                yield b"data: first\n\n"
                while True:
                    self.events.wait(0.2)
                    yield b": still here\n\n"
            finally:
                self.closed.put("stream")

        return events()

    def silent(self, environ, start_response):
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return iter(lambda: time.sleep(3600), None)


@dataclass
class Running:
    app: SampleApp
    url: str
    stop: threading.Event
    thread: threading.Thread

    @property
    def address(self):
        there = urlsplit(self.url)
        return there.hostname, there.port

    def ask(self, path="/", body=None, timeout=60.0):
        connection = http.client.HTTPConnection(*self.address, timeout=timeout)
        with contextlib.closing(connection):
            connection.request("GET" if body is None else "POST", path, body)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def page_s(self):
        """Seconds until a page is answered."""
        started = time.monotonic()
        assert self.ask()[2] == b"hello"
        return time.monotonic() - started


@pytest.fixture
def start():
    """`start(limits, threads)`: a server of a `SampleApp` in this process."""
    with contextlib.ExitStack() as running:

        def begin(limits=QUICK, threads=4, is_long=lambda path: False, host="127.0.0.1"):
            app, urls, stop = SampleApp(), queue.Queue(), threading.Event()
            thread = threading.Thread(
                target=serve_wsgi, args=(app, host, 0, threads, limits, urls.put, stop, is_long), daemon=True
            )
            thread.start()
            server = Running(app, urls.get(timeout=60), stop, thread)
            running.callback(thread.join, 60)
            running.callback(stop.set)
            running.callback(app.events.set)
            running.callback(app.may_end.set)
            return server

        yield begin


@pytest.fixture
def open_line():
    """`open_line(server, data)`: a connection over which `data` was sent, and nothing is read."""
    with contextlib.ExitStack() as lines:

        def begin(server, data=b"", receive_buffer=None):
            line = lines.enter_context(socket.socket())
            if receive_buffer:
                line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            line.settimeout(60)
            line.connect(server.address)
            line.sendall(data)
            return line

        yield begin


def request(path, more=b""):
    return b"GET %s HTTP/1.1\r\n" % path.encode() + HEAD + more + b"\r\n"


def read_all(line):
    """What comes until the other side closes, and whether it did so in order."""
    data = b""
    try:
        while part := line.recv(65_536):
            data += part
    except ConnectionError:
        return data, False
    return data, True


def read_page(line):
    data = b""
    while not data.endswith(b"hello") and (part := line.recv(4096)):
        data += part
    return data


def wait_until(condition, seconds=60.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.01)


def wait_for_the_loop(server, open_line):
    """Until the server has seen what was opened, sent and closed before, each in a round of its loop: it answers this
    without a thread."""
    for _ in range(10):
        assert b" 400 " in open_line(server, b"nonsense\r\n\r\n").recv(4096)


# --- deadlines ------------------------------------------------------------------------------------


def test_a_client_that_sends_nothing_is_closed_at_the_heads_deadline(start, open_line):
    started = time.monotonic()
    assert read_all(open_line(start())) == (b"", True)
    assert 0.4 < time.monotonic() - started < SOON_S


def test_a_head_that_comes_byte_by_byte_is_answered_408_at_its_deadline(start, open_line):
    line, started = open_line(start(), b"GET / HTTP/1.1\r\nX-Slow: "), time.monotonic()
    line.setblocking(False)
    data = b""
    while time.monotonic() - started < SOON_S:
        with contextlib.suppress(BlockingIOError):
            try:
                part = line.recv(4096)
            except ConnectionError:  # what was sent after the answer
                break
            if not part:
                break
            data += part
        with contextlib.suppress(OSError):
            line.send(b"a")
        time.sleep(0.05)
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert int(re.search(rb"Content-Length: (\d+)", head)[1]) == len(body)


def test_a_second_head_over_a_kept_connection_has_a_deadline_too(start, open_line):
    line = open_line(start(), request("/"))
    assert read_page(line)
    time.sleep(0.7)  # kept open meanwhile: the deadline begins with the first byte
    line.sendall(b"GET /")
    data, in_order = read_all(line)
    assert data.startswith(b"HTTP/1.1 408 ") and in_order


def test_a_body_that_does_not_come_is_answered_408(start, open_line):
    started = time.monotonic()
    line = open_line(start(), b"POST /echo HTTP/1.1\r\n" + HEAD + b"Content-Length: 1000\r\n\r\nabc")
    data, _ = read_all(line)
    assert data.startswith(b"HTTP/1.1 408 ") and b"application/problem+json" in data
    assert 0.4 < time.monotonic() - started < SOON_S


def test_a_body_that_comes_fast_enough_is_waited_for_beyond_the_first_deadline(start, open_line):
    head = b"POST /echo HTTP/1.1\r\n" + HEAD + b"Content-Length: 1600000\r\nConnection: close\r\n\r\n"
    part = b"\1" * 200_000  # puts the deadline off by ten seconds
    line = open_line(start(replace(QUICK, body_rate=2e4)), head + part)
    for _ in range(7):
        time.sleep(0.12)
        line.sendall(part)
    data, _ = read_all(line)
    assert json.loads(data.partition(b"\r\n\r\n")[2])["sum"] == 1_600_000


def test_a_client_that_does_not_read_is_dropped_and_its_answer_closed(start, open_line):
    server, started = start(), time.monotonic()
    line = open_line(server, request("/export"), receive_buffer=4096)
    assert server.app.closed.get(timeout=60) == "export"
    assert 0.6 < time.monotonic() - started < SOON_S
    assert server.app.chunks_made < LARGE // 8000  # made as it is taken
    data, _ = read_all(line)
    assert not data.endswith(b"0\r\n\r\n")


def test_a_client_that_does_not_read_the_end_of_its_answer_is_dropped(open_line):
    """The last bytes wait in the server after the application is done: fewer than asyncio calls a full buffer."""

    async def answer(scope, receive, send):
        with scope["state"]["connection"].answering():
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"60000")]})
            await send({"type": "http.response.body", "body": bytes(60_000)})

    async def hold(listener):
        connections, config = set(), uvicorn.Config(answer, lifespan="off", log_config=None)
        new = partial(Connection, QUICK, connections, {}, config=config, server_state=uvicorn.server.ServerState())
        loop = asyncio.get_running_loop()
        line = await asyncio.to_thread(open_line, Running(None, url, None, None), request("/"), 2048)
        accepted, _ = listener.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        transport, _ = await loop.connect_accepted_socket(new, accepted)
        await asyncio.sleep(0.3)
        waiting = transport.get_write_buffer_size()
        await asyncio.sleep(QUICK.write_s)
        return waiting, len(connections), await asyncio.to_thread(read_all, line)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        with ThreadPoolExecutor(1) as thread:  # this one may have a loop already: that of other tests' browser
            waiting, connections, (data, _) = thread.submit(asyncio.run, hold(listener)).result()
    assert 0 < waiting < 65_536
    assert connections == 0 and len(data) < 60_000


def test_a_slow_reader_that_does_read_gets_all(start, open_line):
    limits = replace(QUICK, write_s=2.0)
    line = open_line(start(limits), request("/export", b"Connection: close\r\n"), receive_buffer=65_536)
    data = b""
    started = time.monotonic()
    while part := line.recv(1_000_000):
        data += part
        time.sleep(0.02 if time.monotonic() - started < 2.5 else 0)
    assert data.count(b"x") == LARGE and data.endswith(b"0\r\n\r\n")
    assert time.monotonic() - started > limits.write_s


# --- nobody holds up the others ---------------------------------------------------------------------


def test_pages_answer_while_more_clients_than_threads_do_not_read(start, open_line):
    server = start(Limits(write_s=HELD_S), threads=2)
    lines = [open_line(server, request("/export"), receive_buffer=4096) for _ in range(12)]
    wait_until(lambda: server.app.chunks_made > 12 * 32)
    assert max(server.page_s() for _ in range(20)) < SOON_S
    made = server.app.chunks_made
    time.sleep(0.3)
    assert server.app.chunks_made - made < 12 * 40  # they wait for their clients
    assert len(lines) * LARGE // 8000 > server.app.chunks_made


def test_pages_answer_while_more_answers_than_threads_take_long_to_make(start, open_line):
    server = start(Limits(long_threads=2), threads=1, is_long=lambda path: path == "/work")
    lines = [open_line(server, request("/work", b"Connection: close\r\n")) for _ in range(4)]
    wait_until(lambda: server.app.works == 2)
    assert max(server.page_s() for _ in range(20)) < SOON_S
    assert server.app.works == 2
    server.app.may_end.set()
    assert all(read_all(line)[0].endswith(b"done") for line in lines)


def test_pages_answer_while_99_heads_and_99_bodies_are_half_sent(start, open_line):
    server = start(Limits(head_s=HELD_S, body_s=HELD_S), threads=2)
    for _ in range(99):
        open_line(server, b"GET / HTTP/1.1\r\nHost: 127")
        open_line(server, b"POST /echo HTTP/1.1\r\n" + HEAD + b"Content-Length: 90000\r\n\r\nabc")
    assert max(server.page_s() for _ in range(20)) < SOON_S


def test_a_thousand_connections_are_held_and_answered(start, open_line):
    server = start(Limits(), threads=2)
    lines = [open_line(server, request("/")) for _ in range(1000)]
    assert all(b"200 OK" in read_page(line) for line in lines)
    for line in lines[::50]:  # each is still there for the next
        line.sendall(request("/"))
        assert b"200 OK" in read_page(line)
    assert server.page_s() < SOON_S


def test_pages_answer_beside_50_event_streams_which_have_threads_of_their_own(start, open_line):
    server = start(Limits(), threads=2)
    lines = [open_line(server, request("/stream")) for _ in range(50)]
    heads = [line.recv(4096) for line in lines]
    assert all(b"text/event-stream" in head for head in heads)
    for line, head in zip(lines, heads, strict=True):
        while b"still here" not in head:  # goes on
            head += line.recv(4096)
        assert b"data: first" in head
    assert max(server.page_s() for _ in range(20)) < SOON_S
    assert server.app.threads_of_pages == {"coarseloc-page-0", "coarseloc-page-1"}


def test_streams_beyond_the_budget_are_told_to_come_back_and_one_that_ends_makes_room(start, open_line):
    server = start(Limits(streams=2))
    lines = [open_line(server, request("/stream")) for _ in range(2)]
    assert all(b"200 OK" in line.recv(4096) for line in lines)
    status, headers, body = server.ask("/stream")
    assert status == 503 and int(headers["Retry-After"]) > 0 and "event streams" in json.loads(body)["detail"]
    lines[0].close()
    assert server.app.closed.get(timeout=60) == "stream"  # its client has gone
    wait_until(lambda: b"200 OK" in open_line(server, request("/stream")).recv(4096))


def test_connections_beyond_the_limit_are_answered_503(start, open_line):
    server = start(Limits(connections=20))
    for _ in range(20):
        open_line(server)
    wait_until(lambda: server.ask()[0] == 503)


def test_requests_that_would_wait_too_long_for_a_thread_are_told_to_come_back(start, open_line):
    server = start(Limits(waiting=2), threads=1)
    lines = [open_line(server, request("/work"))]
    wait_until(lambda: server.app.works == 1)
    lines += [open_line(server, request("/work")) for _ in range(5)]
    wait_for_the_loop(server, open_line)
    server.app.may_end.set()
    answers = [line.recv(4096) for line in lines]
    refused = [answer for answer in answers if b" 503 " in answer]
    assert len(refused) == 3 and all(b"Retry-After: " in answer for answer in refused)
    assert sum(b" 200 " in answer for answer in answers) == 3


def test_a_request_whose_client_went_while_it_waited_is_not_worked_on(start, open_line):
    server = start(threads=1)
    open_line(server, request("/work"))
    wait_until(lambda: server.app.works == 1)
    for line in [open_line(server, request("/work")) for _ in range(20)]:
        line.close()
    wait_for_the_loop(server, open_line)
    server.app.may_end.set()
    assert server.page_s() < SOON_S and server.app.works == 1


def test_large_answers_beyond_what_memory_may_hold_are_told_to_come_back_and_pages_answer(start, open_line):
    server = start(Limits(answers=2 * LARGE, write_s=HELD_S))
    for _ in range(2):
        open_line(server, request("/large"), receive_buffer=4096).recv(1000)
    status, headers, _body = server.ask("/large")
    assert status == 503 and int(headers["Retry-After"]) > 0
    assert server.page_s() < SOON_S


# --- requests and answers ---------------------------------------------------------------------------


def test_bodies_arrive_whole_whether_their_length_is_announced_or_not(start):
    server = start()
    body = bytes(range(256)) * 4000  # spooled to disk
    for sent in (body, iter([body[:1000], body[1000:]])):
        status, _headers, answer = server.ask("/echo", sent)
        facts = json.loads(answer)
        assert status == 200 and facts["length"] == len(body) and facts["sum"] == sum(body)
        assert facts["environ"]["CONTENT_LENGTH"] == str(len(body))
        assert "HTTP_TRANSFER_ENCODING" not in facts["environ"]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_beyond_the_limit_is_refused_and_the_sender_reads_why(start, chunked):
    body = bytes(4_000_000)
    status, headers, answer = start().ask("/echo", iter([body]) if chunked else body)
    assert status == 413 and headers["Content-Type"] == "application/problem+json"
    assert "3,000,000 bytes" in json.loads(answer)["detail"]


def test_the_environment_is_as_wsgi_wants_it(start, open_line):
    line = open_line(
        start(),
        b"GET /echo?a=%C3%A9&b HTTP/1.1\r\n" + HEAD + b"Cookie: a=1\r\nCookie: b=2\r\nX-Two: 1\r\nX-Two: 2\r\n"
        b"X_Forged: 1\r\nX-Forwarded-For: 10.0.0.1\r\nConnection: close\r\n\r\n",
    )
    data, _ = read_all(line)
    environ = json.loads(data.partition(b"\r\n\r\n")[2])["environ"]
    assert environ["QUERY_STRING"] == "a=%C3%A9&b" and environ["PATH_INFO"] == "/echo"
    assert environ["HTTP_COOKIE"] == "a=1; b=2" and environ["HTTP_X_TWO"] == "1, 2"
    assert "HTTP_X_FORGED" not in environ and environ["REMOTE_ADDR"] == "127.0.0.1"
    assert environ["wsgi.url_scheme"] == "http" and "CONTENT_LENGTH" not in environ


def test_requests_sent_together_are_answered_in_order(start, open_line):
    line = open_line(start(), request("/") + request("/echo") + request("/", b"Connection: close\r\n"))
    data, _ = read_all(line)
    assert [data.count(b"HTTP/1.1 200 "), data.count(b"hello")] == [3, 2]
    assert data.index(b"hello") < data.index(b"PATH_INFO") < data.rindex(b"hello")


def test_answers_over_a_kept_connection_do_not_wait_for_acknowledgements(start):
    connection = http.client.HTTPConnection(*start().address, timeout=60)
    took = []
    for _ in range(30):
        started = time.monotonic()
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"hello"
        took.append(time.monotonic() - started)
    connection.close()
    assert sorted(took)[5] < 0.03  # Nagle's algorithm with delayed acknowledgements: 0.04 for all but the first


def test_an_answer_that_breaks_in_the_middle_is_not_passed_for_whole(start):
    server = start()
    with pytest.raises(http.client.IncompleteRead):
        server.ask("/broken")
    assert server.page_s() < SOON_S


def test_a_request_that_cannot_be_read_is_answered_400(start, open_line):
    server = start()
    assert read_all(open_line(server, b"\x16\x03\x01 nonsense\r\n\r\n"))[0].startswith(b"HTTP/1.1 400 ")
    assert server.page_s() < SOON_S


# --- the end ----------------------------------------------------------------------------------------


def test_told_to_stop_it_finishes_a_download_and_says_so_on_later_answers(start, open_line):
    server = start(Limits(quiet_s=3.0))
    download, kept = open_line(server, request("/download")), open_line(server, request("/"))
    assert b"connection: close" not in read_page(kept)
    server.stop.set()
    wait_until(lambda: socket.socket().connect_ex(server.address) != 0)  # the port is closed at once
    kept.sendall(request("/"))
    data, in_order = read_all(kept)
    assert data.endswith(b"hello") and b"connection: close" in data and in_order
    data, in_order = read_all(download)
    assert data.count(b"y" * 1000) == 50 and data.endswith(b"0\r\n\r\n") and in_order
    server.thread.join(60)
    assert not server.thread.is_alive()


def test_told_to_stop_it_ends_event_streams_even_those_that_wait(start, open_line):
    server = start()
    lines = [open_line(server, request(path)) for path in ("/stream", "/silent")]
    assert all(b"200 OK" in line.recv(4096) for line in lines)
    server.stop.set()
    for line in lines:
        data, in_order = read_all(line)
        assert data.endswith(b"0\r\n\r\n") and in_order
    server.thread.join(60)
    assert not server.thread.is_alive()


def test_told_to_stop_it_does_not_wait_longer_than_it_may(start, open_line):
    server = start(Limits(drain_s=1, quiet_s=0.1, write_s=HELD_S))
    open_line(server, request("/export"), receive_buffer=4096).recv(1000)
    started = time.monotonic()
    server.stop.set()
    server.thread.join(60)
    assert not server.thread.is_alive() and time.monotonic() - started < SOON_S
    assert server.app.closed.get(timeout=60) == "export"


PROCESS = """
import sys, time
from web.server import serve_wsgi
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return (time.sleep(0.02) or b"y" * 1000 for _ in range(40))
serve_wsgi(app, port=0, ready=lambda url: print(url, flush=True))
print("ended in order", "with torch" if "torch" in sys.modules else "without torch")  # it takes a second to import
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_with_0_after_what_is_under_way(open_line, number):
    process = subprocess.Popen([sys.executable, "-c", PROCESS], stdout=subprocess.PIPE, text=True)
    with process, contextlib.ExitStack() as cleanup:
        cleanup.callback(process.kill)
        server = Running(SampleApp(), process.stdout.readline().strip(), threading.Event(), threading.Thread())
        line = open_line(server, request("/"))
        assert b"200 OK" in line.recv(4096)
        process.send_signal(number)
        data, in_order = read_all(line)
        assert data.endswith(b"0\r\n\r\n") and in_order
        assert process.wait(60) == 0 and process.stdout.read() == "ended in order without torch\n"


@pytest.mark.parametrize("host", ["localhost", "0.0.0.0", "::1", "::"])
def test_the_address_that_is_told_answers(start, host):
    if ":" in host and not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    assert start(host=host).page_s() < SOON_S


def _has_ipv6():
    with socket.socket(socket.AF_INET6) as line, contextlib.suppress(OSError):
        line.bind(("::1", 0))
        return True
    return False


def test_a_taken_port_is_said_with_what_to_do(start):
    _host, port = start().address
    with pytest.raises(InputError, match=f"cannot listen on 127.0.0.1:{port}.*--port"):
        serve_wsgi(SampleApp(), port=port)
