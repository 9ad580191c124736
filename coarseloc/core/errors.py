"""One tree of errors. A message says what was found, what was expected and what to do.

Everything under `CoarselocError` is the user's to mend: the command line prints it and exits with 2.
"""

from __future__ import annotations

import re

_IN_URL = re.compile(r"(?P<before>[A-Za-z][\w+.-]*://[^\s/@:'\"]*:)[^\s/'\"]*(?=@)")
_IN_QUERY = re.compile(r"(?P<before>[?&;](?:\w*password|passwd|pwd|passfile|\w*api[-_]?key|token)=)[^&;\s'\"]*", re.I)


def without_passwords(text: str) -> str:
    """A text with the passwords of the URLs in it replaced by three stars."""
    return _IN_QUERY.sub(r"\g<before>***", _IN_URL.sub(r"\g<before>***", text))


class CoarselocError(Exception):
    """Base of every error that a user can act on. Its text holds no password, whatever URLs it names."""

    def __str__(self) -> str:
        return without_passwords(super().__str__())


class ConfigError(CoarselocError):
    """A setting or the configuration file is wrong."""


class InputError(CoarselocError):
    """A file, folder, name or option given by the user is wrong."""


class ImageryError(InputError):
    """One image or label cannot be used; `kind` is its row in the failures table."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class WeightsError(CoarselocError):
    """A backbone's weights are missing, incomplete or of another architecture."""


class BackboneError(CoarselocError):
    """A backbone is unknown, or was asked for something it cannot do."""


class StoreError(CoarselocError):
    """The SQL database cannot be used, or does not hold what was asked for."""


class VectorStoreError(CoarselocError):
    """The vector store refused or lost something."""


class VectorStoreUnavailable(VectorStoreError):
    """The vector store cannot be reached at all; exact search does not need it."""


class LockedError(CoarselocError):
    """Another process holds what this one needs."""


class StaleMirror(CoarselocError):
    """A mirror on disk does not match the database."""
