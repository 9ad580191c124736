"""One tree of errors. A message says what was found, what was expected and what to do.

Everything under `CoarselocError` is the user's to mend: the command line prints it and exits with 2.
"""


class CoarselocError(Exception):
    """Base of every error that a user can act on."""


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
