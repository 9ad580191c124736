"""A camera that is asked for by RTSP (RFC 2326) and sends H.264 as RTP (RFC 6184) on the same TCP connection."""

from __future__ import annotations

import base64
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction

import av
import numpy as np

_PAYLOAD_BYTES = 1_200
_CLOCK_HZ = 90_000


def encoded(pictures: Sequence[np.ndarray]) -> list[list[bytes]]:
    """NAL units of each picture, uint8 [H, W, 3]; every one is a key frame."""
    height, width = pictures[0].shape[:2]
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = width, height, "yuv420p", Fraction(1, 10)
    encoder.options = {"g": "1", "tune": "zerolatency", "crf": "12", "x264-params": "repeat-headers=1:sliced-threads=0"}
    frames = [av.VideoFrame.from_ndarray(picture, format="rgb24") for picture in pictures]
    packets = [packet for frame in [*frames, None] for packet in encoder.encode(frame)]
    return [
        [unit for unit in bytes(packet).replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if unit] for packet in packets
    ]


class RtspCamera:
    """Serves pictures to one client at a time, then hangs up: the next client gets the next ones.

    batches: of pictures a second apart, one a connection; the first picture of each is read before its time is known
    (the way of FFmpeg), and left out. Beyond them nobody is let in. silent: after its first picture it sends no other.
    user_password: asked for as Basic authentication (RFC 7617).
    """

    def __init__(
        self, batches: Sequence[Sequence[np.ndarray]], *, user_password: str | None = None, silent: bool = False
    ) -> None:
        self._batches = [encoded(batch) for batch in batches]
        self._credentials = user_password and base64.b64encode(user_password.encode()).decode()
        self._silent = silent
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.requests: list[str] = []
        self.has_sent_all = False
        self._closed = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        self._listener.close()

    def _serve(self) -> None:
        for batch in self._batches:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, suppress(ConnectionError):  # a client may hang up first
                self._converse(client, batch)
        self._listener.close()
        self.has_sent_all = True

    def _converse(self, client: socket.socket, batch: Sequence[Sequence[bytes]]) -> None:
        stream = client.makefile("rb")
        while request := stream.readline().decode().strip():
            headers = dict(line.split(": ", 1) for line in iter(lambda: stream.readline().decode().strip(), ""))
            self.requests.append(request)
            method = request.split()[0]
            number = headers["CSeq"]
            if self._credentials and headers.get("Authorization") != f"Basic {self._credentials}":
                client.sendall(_answer(number, "401 Unauthorized", 'WWW-Authenticate: Basic realm="camera"'))
                continue
            if method == "DESCRIBE":
                client.sendall(_answer(number, "200 OK", "Content-Type: application/sdp", body=_description(batch)))
            elif method == "SETUP":
                client.sendall(
                    _answer(number, "200 OK", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 7")
                )
            elif method == "PLAY":
                position = f"RTP-Info: url={request.split()[1].rstrip('/')}/video;seq=0;rtptime=0"
                client.sendall(_answer(number, "200 OK", "Session: 7", position))
                for packet in _packets(batch[:1] if self._silent else batch):
                    client.sendall(b"$\0" + struct.pack(">H", len(packet)) + packet)
                if self._silent:
                    self._closed.wait()
                return
            else:
                client.sendall(_answer(number, "200 OK", "Public: OPTIONS, DESCRIBE, SETUP, PLAY"))


def _answer(number: str, status: str, *headers: str, body: str = "") -> bytes:
    lines = [f"RTSP/1.0 {status}", f"CSeq: {number}", *headers, f"Content-Length: {len(body)}", "", body]
    return "\r\n".join(lines).encode()


def _description(batch: Sequence[Sequence[bytes]]) -> str:
    parameters = ",".join(base64.b64encode(unit).decode() for unit in batch[0] if unit[0] & 31 in (7, 8))
    lines = (
        "v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=camera", "c=IN IP4 127.0.0.1", "t=0 0", "m=video 0 RTP/AVP 96",
        "a=rtpmap:96 H264/90000", f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={parameters}",
        "a=control:video",
    )  # fmt: skip
    return "\r\n".join((*lines, ""))


def _packets(batch: Sequence[Sequence[bytes]]) -> Iterator[bytes]:
    """RTP packets of pictures a second apart."""
    sequence = 0
    for picture, units in enumerate(batch):
        payloads = [payload for unit in units for payload in _payloads(unit)]
        for number, payload in enumerate(payloads, start=1):
            marker = 0x80 if number == len(payloads) else 0
            yield struct.pack(">BBHII", 0x80, 96 | marker, sequence, picture * _CLOCK_HZ, 1) + payload
            sequence += 1


def _payloads(unit: bytes) -> Iterator[bytes]:
    """A unit as it is, or in fragments (FU-A)."""
    if len(unit) <= _PAYLOAD_BYTES:
        yield unit
        return
    pieces = [unit[start : start + _PAYLOAD_BYTES] for start in range(1, len(unit), _PAYLOAD_BYTES)]
    for number, piece in enumerate(pieces):
        ends = 0x80 if number == 0 else 0x40 if number == len(pieces) - 1 else 0
        yield bytes([unit[0] & 0x60 | 28, ends | unit[0] & 31]) + piece
