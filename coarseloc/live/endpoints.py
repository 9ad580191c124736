"""Where bytes go: clients of a TCP server, a UDP address, a serial port. None is ever waited for."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from coarseloc.core.errors import InputError

LOOPBACK = "127.0.0.1"
_CLIENT_BYTES = 16_384  # that the system holds for a client; one that lets more wait is dropped
_FORM = (
    "expected tcp:[HOST:]PORT (a server, on this machine alone without HOST), udp:[HOST:]PORT or serial:DEVICE[:BAUD]"
)

Notice = Callable[[str], None]


class Endpoint(Protocol):
    def send(self, data: bytes) -> None:
        """Send what belongs together, or leave it out."""
        ...

    def close(self) -> None: ...

    def remarks(self) -> list[str]:
        """What its user should know at the end."""
        ...


@dataclass(frozen=True, slots=True)
class EndpointAddress:
    """An endpoint as its user writes it, such as `udp:14550`."""

    kind: Literal["tcp", "udp", "serial"]
    host: str  # the device of a serial port
    number: int  # a port, or a baud rate

    @classmethod
    def parse(cls, text: str) -> EndpointAddress:
        """Raises InputError."""
        match = re.fullmatch(r"(tcp|udp):(?:(\[[0-9a-fA-F:.]+\]|[^:\s]+):)?(\d{1,5})", text)
        if match is not None and int(match[3]) <= 65535:
            host = (match[2] or LOOPBACK).strip("[]")
            return cls("tcp" if match[1] == "tcp" else "udp", host, int(match[3]))
        match = re.fullmatch(r"serial:(.+?)(?::(\d{2,8}))?", text)
        if match is None:
            raise InputError(f"{text!r} is no endpoint: {_FORM}")
        return cls("serial", match[1], int(match[2] or 57_600))

    def open(self, purpose: str, notice: Notice) -> Endpoint:
        """Raises InputError where that cannot be had. purpose: what is sent there, for messages."""
        if self.kind == "serial":
            return SerialPort(self, purpose, notice)
        if not _is_loopback(self.host):
            notice(f"{purpose} goes beyond this machine ({self}): whoever is on that network can read it")
        return TcpClients(self, purpose, notice) if self.kind == "tcp" else UdpAddress(self, purpose, notice)

    def __str__(self) -> str:
        return f"{self.kind}:{f'[{self.host}]' if ':' in self.host else self.host}:{self.number}"


class TcpClients:
    """A TCP server whose clients all get the same. Clients that do not read are dropped; what they send is ignored.

    There is no thread: the system lets clients in, and each `send` looks who has come.
    """

    def __init__(self, address: EndpointAddress, purpose: str, notice: Notice) -> None:
        self._purpose, self._notice = purpose, notice
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        try:
            self._listener = socket.create_server((address.host, address.number), family=family)
        except OSError as error:
            raise InputError(
                f"{purpose} cannot be served at {address}: {error.strerror or error}. Give another port (0 takes a "
                "free one) or an address of this machine"
            ) from None
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        if address.number == 0:
            notice(f"{purpose} is served at tcp:{address.host}:{self.port}")
        self._clients: list[socket.socket] = []
        self._dropped = 0

    def send(self, data: bytes) -> None:
        """See `Endpoint`."""
        self._accept()
        self._clients = [client for client in self._clients if self._send(client, data)]

    def _accept(self) -> None:
        with suppress(BlockingIOError, ConnectionError):
            while True:
                client, _ = self._listener.accept()
                client.setblocking(False)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _CLIENT_BYTES)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._clients.append(client)

    def _send(self, client: socket.socket, data: bytes) -> bool:
        """Whether the client is still there."""
        try:
            if client.send(data) == len(data):
                return True
            raise BlockingIOError  # a part of it: the client would read a broken sentence next
        except BlockingIOError:
            self._dropped += 1
            self._notice(f"a client of {self._purpose} does not keep up and is dropped")
        except OSError:  # it has gone
            pass
        client.close()
        return False

    def close(self) -> None:
        """See `Endpoint`."""
        for client in (*self._clients, self._listener):
            client.close()

    def remarks(self) -> list[str]:
        """See `Endpoint`."""
        return [f"{self._dropped} slow clients of {self._purpose} were dropped"] if self._dropped else []


class UdpAddress:
    """A datagram for each `send`."""

    def __init__(self, address: EndpointAddress, purpose: str, notice: Notice) -> None:
        self._purpose, self._notice, self._lost = purpose, notice, 0
        try:
            family, *_, target = socket.getaddrinfo(address.host, address.number, type=socket.SOCK_DGRAM)[0]
        except OSError as error:
            raise InputError(
                f"{purpose} cannot be sent to {address}: {error.strerror or error}. Correct the host"
            ) from None
        self._target: Any = target
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def send(self, data: bytes) -> None:
        """See `Endpoint`."""
        try:
            self._socket.sendto(data, self._target)
        except OSError as error:  # no route, or a full queue; the next frame may get through
            if not self._lost:
                self._notice(f"{self._purpose} is not sent: {error.strerror or error}; each frame is tried")
            self._lost += 1

    def close(self) -> None:
        """See `Endpoint`."""
        self._socket.close()

    def remarks(self) -> list[str]:
        """See `Endpoint`."""
        return [f"{self._lost} datagrams of {self._purpose} were not sent"] if self._lost else []


class SerialPort:
    """A serial port; what does not fit into its buffer at once is left out. An extra: `serial`."""

    def __init__(self, address: EndpointAddress, purpose: str, notice: Notice) -> None:
        try:
            import serial
        except ModuleNotFoundError:
            raise InputError("a serial port needs the extra `serial`: pip install 'pyserial>=3.5,<4'") from None
        try:
            self._port = serial.Serial(address.host, address.number, write_timeout=0)
        except (OSError, ValueError) as error:  # SerialException is an OSError
            raise InputError(f"{purpose} cannot go to {address}: {error}. Correct the device or its rate") from None
        self._purpose, self._notice, self._lost = purpose, notice, 0

    def send(self, data: bytes) -> None:
        """See `Endpoint`."""
        try:
            # pyserial's own write would try again and again while the buffer is full.
            written = os.write(self._port.fileno(), data) if os.name == "posix" else self._port.write(data)
            reason = "" if written == len(data) else "it does not keep up"
        except OSError as error:
            reason = error.strerror or str(error)
        if reason:
            if not self._lost:
                self._notice(f"{self._purpose} to {self._port.port}: {reason}; each frame is tried")
            self._lost += 1

    def close(self) -> None:
        """See `Endpoint`."""
        self._port.close()

    def remarks(self) -> list[str]:
        """See `Endpoint`."""
        return [f"{self._lost} frames of {self._purpose} were not sent whole"] if self._lost else []


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")
