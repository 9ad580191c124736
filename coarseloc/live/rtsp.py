"""Frames of a camera that is asked for by RTSP (RFC 2326). An extra: `video`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from coarseloc.core.errors import InputError
from coarseloc.core.types import Flight, Pose
from coarseloc.imagery.arriving import ArrivingFlight
from coarseloc.live.backlog import Arrival, ArrivalTime, ArrivedFrame
from coarseloc.live.sources import IsStopped
from coarseloc.live.video import upright_pixels, video_library, video_moments

if TYPE_CHECKING:
    from av.container import InputContainer

OPEN_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 5.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0  # between two tries to connect
_WAIT_S = 0.1  # at a time, so that a stop is noticed
_SCHEMES = ("rtsp://", "rtsps://")


def is_rtsp(source: str) -> bool:
    return source.lower().startswith(_SCHEMES)


def shown_address(source: str) -> str:
    """An address without what may be secret in it: user, password and query."""
    parts = urlsplit(source)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def stream_name(source: str) -> str:
    """A name for the stream's frames: the last part of its path, else its host."""
    parts = urlsplit(source)
    last = parts.path.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^\w.-]+", "-", last or parts.hostname or "").strip("-.") or "rtsp"


class RtspSource:
    """A frame each so many seconds of a camera's stream, which is connected to again whenever it is lost.

    RTP comes on the connection itself (TCP): firewalls let it through, and no packet is missing within a picture.
    Frames have no times of their own: the camera's clock is seldom told, and only after the first seconds.
    """

    def __init__(
        self,
        arriving: ArrivingFlight,
        address: str,
        *,
        every_s: float,
        notice: Callable[[str], None],
        idle_stop_s: float | None = None,
        open_timeout_s: float = OPEN_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        """notice: told of losses, from the thread that receives. idle_stop_s: end once nothing came for so long.

        Raises InputError where the camera does not answer, or the extra `video` is not installed.
        """
        self._av = video_library()
        self._arriving, self._address, self._every_s = arriving, address, every_s
        self._notice, self._idle_stop_s = notice, idle_stop_s
        self._timeouts_s = open_timeout_s, read_timeout_s
        self.shown, self._name = shown_address(address), Path(stream_name(address))
        try:
            self._container: InputContainer | None = self._connect()
        except self._av.error.FFmpegError as error:
            raise InputError(f"{self.shown} cannot be read: {self._reason(error)}") from None

    @property
    def flight(self) -> Flight:
        """See `FrameSource`."""
        return self._arriving.flight

    def arrivals(self, is_stopped: IsStopped) -> Iterator[Arrival]:
        """See `FrameSource`."""
        latest_s, lost_s, pause_s = time.monotonic(), None, FIRST_PAUSE_S
        first_number, last_number = 0, -1  # of this connection's frames, of the latest
        while not is_stopped():
            reason = "it ended the stream"
            try:
                container, self._container = self._container or self._connect(), None
                with container:
                    for number, _, frame in video_moments(
                        container, container.streams.video[0], self._every_s, is_stopped
                    ):
                        arrived = ArrivalTime.now()
                        if lost_s is not None:
                            self._notice(f"{self.shown} is there again after {arrived.monotonic_s - lost_s:.1f} s")
                        lost_s, pause_s = None, FIRST_PAUSE_S
                        last_number = first_number + number
                        yield ArrivedFrame(
                            self._arriving.moment_frame(self._name, last_number, Pose(), None),
                            upright_pixels(frame),
                            arrived,
                        )
                        latest_s = time.monotonic()  # the taker may have let it wait
            except (self._av.error.FFmpegError, InputError) as error:
                reason = self._reason(error)
            first_number = last_number + 1
            now_s = time.monotonic()
            if is_stopped() or (self._idle_stop_s is not None and now_s - latest_s > self._idle_stop_s):
                return
            if lost_s is None:
                lost_s = now_s
                self._notice(f"{self.shown} is lost: {reason}. It is connected to again until it answers")
            self._pause(pause_s, is_stopped)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _connect(self) -> InputContainer:
        options = {"rtsp_transport": "tcp", "fpsprobesize": "0"}  # no second of frames is gathered to tell their rate
        container: InputContainer = self._av.open(self._address, options=options, timeout=self._timeouts_s)
        if not container.streams.video:
            container.close()
            raise InputError(f"{self.shown} sends no video")
        return container

    def _reason(self, error: Exception) -> str:
        """In words, without the address, which FFmpeg's own message repeats with the password."""
        if isinstance(error, self._av.error.ExitError):
            return f"nothing came for {self._timeouts_s[1]:g} s"
        if isinstance(error, self._av.error.InvalidDataError):
            return f"nothing that is RTSP answers within {self._timeouts_s[0]:g} s"
        if isinstance(error, InputError):
            return "it sends no video"
        return str(getattr(error, "strerror", None) or type(error).__name__)

    @staticmethod
    def _pause(seconds: float, is_stopped: IsStopped) -> None:
        due_s = time.monotonic() + seconds
        while (rest_s := due_s - time.monotonic()) > 0 and not is_stopped():
            time.sleep(min(rest_s, _WAIT_S))
