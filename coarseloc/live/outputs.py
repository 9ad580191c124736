"""What writes live estimates: records as JSON lines, NMEA sentences. MAVLink is in `mavlink`."""

from __future__ import annotations

import os
from pathlib import Path

from coarseloc.core.errors import InputError
from coarseloc.live.endpoints import Endpoint
from coarseloc.live.session import LiveEstimate
from search.export import nmea
from search.export.mcap import NavSatFixWriter, require_mcap


class JsonLines:
    """A record a line, behind what the file holds: each by one write, so that a file ends with a whole line."""

    utc_purpose: str | None = None

    def __init__(self, path: Path) -> None:
        """Raises InputError where the file cannot be written."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}; give another file") from None

    def write(self, estimate: LiveEstimate) -> None:
        """See `LiveOutput`."""
        line = estimate.record.model_dump_json().encode() + b"\n"
        while line:  # a pipe, or a disk that is full, may take a part
            line = line[os.write(self._descriptor, line) :]

    def close(self) -> None:
        """See `LiveOutput`."""
        os.close(self._descriptor)

    def remarks(self) -> list[str]:
        """See `LiveOutput`."""
        return []


class McapOutput:
    """An MCAP file of a NavSatFix a frame; it is whole when the session has ended."""

    utc_purpose: str | None = "MCAP"

    def __init__(self, path: Path) -> None:
        """Raises InputError where the file cannot be written or is there already, or without the extra `mcap`."""
        require_mcap()
        try:
            self._file = path.open("xb")
        except FileExistsError:
            raise InputError(
                f"{path} is there already, and MCAP files are not appended to: give another name"
            ) from None
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}; give another file") from None
        self._writer = NavSatFixWriter(self._file)

    def write(self, estimate: LiveEstimate) -> None:
        """See `LiveOutput`."""
        if estimate.utc is not None:
            self._writer.write(estimate.tracked, estimate.utc, estimate.record.sequence)

    def close(self) -> None:
        """See `LiveOutput`."""
        self._writer.finish()
        self._file.close()

    def remarks(self) -> list[str]:
        """See `LiveOutput`."""
        return []


class NmeaOutput:
    """Sentences of each frame to an endpoint."""

    utc_purpose: str | None = "NMEA"

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def write(self, estimate: LiveEstimate) -> None:
        """See `LiveOutput`."""
        if estimate.utc is not None:
            self._endpoint.send("".join(nmea.sentences(estimate.tracked, estimate.utc)).encode("ascii"))

    def close(self) -> None:
        """See `LiveOutput`."""
        self._endpoint.close()

    def remarks(self) -> list[str]:
        """See `LiveOutput`."""
        return self._endpoint.remarks()
