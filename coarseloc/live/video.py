"""Frames of a video file, with what the subtitle beside it says. An extra: `video`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from coarseloc.core.errors import InputError
from coarseloc.core.types import Flight, Pose, UInt8
from coarseloc.imagery.arriving import ArrivingFlight
from coarseloc.imagery.subtitles import moment_at, read_subtitle
from coarseloc.live.backlog import Arrival, ArrivalTime, ArrivedFrame, UnreadableFrame
from coarseloc.live.sources import IsStopped

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

_WAIT_S = 0.1  # at a time, so that a stop is noticed


class VideoMoment(NamedTuple):
    """A decoded frame: its number in the stream and its seconds since the first one."""

    number: int
    seconds: float
    frame: VideoFrame


class VideoSource:
    """A frame of a video each so many seconds, upright. Paced, each comes when a camera would have given it."""

    def __init__(self, arriving: ArrivingFlight, path: Path, *, every_s: float, paced: bool) -> None:
        """Raises InputError where the file holds no video, or the extra `video` is not installed."""
        av = video_library()
        self._arriving, self._path, self._every_s, self._paced = arriving, path, every_s, paced
        try:
            self._container = av.open(str(path))
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(f"{path} cannot be read as a video: {error.strerror or error}") from None
        if not self._container.streams.video:
            raise InputError(f"{path} holds no video stream")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self._error = av.error.FFmpegError
        subtitle = next((path.with_suffix(end) for end in (".SRT", ".srt") if path.with_suffix(end).is_file()), None)
        self._moments = read_subtitle(subtitle) if subtitle else []

    @property
    def flight(self) -> Flight:
        """See `FrameSource`."""
        return self._arriving.flight

    def arrivals(self, is_stopped: IsStopped) -> Iterator[Arrival]:
        """See `FrameSource`."""
        began_s = time.monotonic()
        try:
            for number, seconds, frame in video_moments(self._container, self._stream, self._every_s, is_stopped):
                while self._paced and (rest_s := began_s + seconds - time.monotonic()) > 0:
                    if is_stopped():
                        return
                    time.sleep(min(rest_s, _WAIT_S))
                arrived = ArrivalTime.now()
                moment = moment_at(self._moments, frame.time or 0.0)
                pose, taken_at = (moment.pose, moment.time) if moment else (Pose(), None)
                arrived_frame = self._arriving.moment_frame(self._path, number, pose, taken_at)
                yield ArrivedFrame(arrived_frame, upright_pixels(frame), arrived)
        except self._error as error:
            yield UnreadableFrame(f"{self._path} cannot be read on: {error}")
        finally:
            self._container.close()


def video_library() -> ModuleType:
    """PyAV. Raises InputError where the extra `video` is not installed."""
    try:
        import av
    except ModuleNotFoundError:
        raise InputError("a video needs the extra `video`: pip install 'av>=14,<19'") from None
    return av


def video_moments(
    container: InputContainer, stream: VideoStream, every_s: float, is_stopped: IsStopped
) -> Iterator[VideoMoment]:
    """A frame each so many seconds of a stream's own time, until its end or a stop; frames without a time are left out.

    Raises av's FFmpegError where it cannot be read on.
    """
    due_s, first_s = 0.0, None
    for number, frame in enumerate(container.decode(stream)):
        if is_stopped():
            return
        if frame.time is None:
            continue
        first_s = frame.time if first_s is None else first_s
        seconds = frame.time - first_s
        if seconds < due_s - 1e-6:
            continue
        due_s = max(due_s + every_s, seconds)
        yield VideoMoment(number, seconds, frame)


def upright_pixels(frame: VideoFrame) -> UInt8:
    """RGB uint8 [H, W, 3]."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))
