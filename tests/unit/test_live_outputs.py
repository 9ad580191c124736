"""Where live estimates go, and who is not waited for."""

from __future__ import annotations

import socket

import pytest

from coarseloc.core.errors import InputError
from coarseloc.live.endpoints import EndpointAddress, TcpClients


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tcp:10110", EndpointAddress("tcp", "127.0.0.1", 10110)),
        ("udp:0.0.0.0:14550", EndpointAddress("udp", "0.0.0.0", 14550)),
        ("udp:[::1]:14550", EndpointAddress("udp", "::1", 14550)),
        ("serial:/dev/ttyUSB0:115200", EndpointAddress("serial", "/dev/ttyUSB0", 115200)),
        ("serial:/dev/ttyUSB0", EndpointAddress("serial", "/dev/ttyUSB0", 57600)),
    ],
)
def test_an_endpoint_is_on_this_machine_unless_a_host_is_given(text: str, address: EndpointAddress):
    assert EndpointAddress.parse(text) == address


@pytest.mark.parametrize("text", ["10110", "tcp:", "tcp:host", "udp:127.0.0.1:70000", "http:80", "tcp:a b:80"])
def test_what_is_no_endpoint_is_refused_with_the_form(text: str):
    with pytest.raises(InputError, match=r"tcp:\[HOST:\]PORT"):
        EndpointAddress.parse(text)


def test_a_client_that_does_not_read_is_dropped_and_the_others_get_every_byte():
    notices: list[str] = []
    server = EndpointAddress.parse("tcp:0").open("NMEA", notices.append)
    assert isinstance(server, TcpClients)
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect(("127.0.0.1", server.port))
    with slow, socket.create_connection(("127.0.0.1", server.port)) as reading:
        gone = socket.create_connection(("127.0.0.1", server.port))
        received, sent = b"", b""
        for number in range(400):
            data = f"{number:03d}".encode() * 100
            server.send(data)
            if number == 0:
                gone.close()
            sent += data
            while len(received) < len(sent):
                received += reading.recv(65536)
        assert received == sent
    server.close()
    assert server.remarks() == ["1 slow clients of NMEA were dropped"]
    assert len([text for text in notices if "does not keep up" in text]) == 1


def test_a_taken_port_is_refused_and_a_host_beyond_this_machine_is_said():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(InputError, match="cannot be served"):
            EndpointAddress.parse(f"tcp:{port}").open("NMEA", lambda _: None)
    notices: list[str] = []
    EndpointAddress.parse("udp:192.0.2.1:14550").open("MAVLink", notices.append).close()
    assert "beyond this machine" in notices[0]
