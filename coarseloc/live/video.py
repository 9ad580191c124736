"""Frames of a video file, with what the subtitle beside it says. An extra: `video`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from coarseloc.core.errors import InputError
from coarseloc.core.types import Flight, Pose, UInt8
from coarseloc.imagery.arriving import ArrivingFlight
from coarseloc.imagery.subtitles import moment_at, read_subtitle
from coarseloc.live.backlog import Arrival, ArrivalTime, ArrivedFrame, UnreadableFrame
from coarseloc.live.sources import IsStopped

_WAIT_S = 0.1  # at a time, so that a stop is noticed


class VideoSource:
    """A frame of a video each so many seconds, upright. Paced, each comes when a camera would have given it."""

    def __init__(self, arriving: ArrivingFlight, path: Path, *, every_s: float, paced: bool) -> None:
        """Raises InputError where the file holds no video, or the extra `video` is not installed."""
        try:
            import av
        except ModuleNotFoundError:
            raise InputError("a video needs the extra `video`: pip install 'av>=14,<19'") from None
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
        began_s, due_s, first_s = time.monotonic(), 0.0, None
        try:
            for number, frame in enumerate(self._container.decode(self._stream)):
                if is_stopped():
                    return
                if frame.time is None:
                    continue
                first_s = frame.time if first_s is None else first_s
                seconds = frame.time - first_s
                if seconds < due_s - 1e-6:
                    continue
                due_s = max(due_s + self._every_s, seconds)
                while self._paced and (rest_s := began_s + seconds - time.monotonic()) > 0:
                    if is_stopped():
                        return
                    time.sleep(min(rest_s, _WAIT_S))
                arrived = ArrivalTime.now()
                pixels: UInt8 = np.ascontiguousarray(
                    np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                )
                moment = moment_at(self._moments, frame.time)
                pose, taken_at = (moment.pose, moment.time) if moment else (Pose(), None)
                yield ArrivedFrame(self._arriving.moment_frame(self._path, number, pose, taken_at), pixels, arrived)
        except self._error as error:
            yield UnreadableFrame(f"{self._path} cannot be read on: {error}")
        finally:
            self._container.close()
