"""Files that are there whole or not at all, and locks between processes."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from coarseloc.core.errors import LockedError

RESERVE_BYTES = 128 * 2**20  # free on the disk of the data: below, what writes much is refused
PARTIAL = ".part"  # how the names of files that are being written end


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a new, empty file beside `path` to write to, renamed to `path` at the end; after an error it is deleted.

    Its name cannot be foretold and nothing of that name was there before: in a folder that others may write to, nobody
    can lay a link in its place. durable: both the content and the rename survive a power cut.
    """
    partial = path.with_name(f".{secrets.token_hex(8)}{PARTIAL}")  # unique: threads may write the same file
    try:
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield partial
        if durable:
            sync(partial)
        partial.replace(path)
        if durable:
            sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes | memoryview, *, durable: bool = False) -> None:
    """Replace a file's content in one step; see `replacing`."""
    with replacing(path, durable=durable) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Replace a file's content in one step by UTF-8 text; see `replacing`."""
    write_bytes(path, text.encode(), durable=durable)


def refuse_special(path: Path) -> None:
    """Raise OSError where a path is a pipe, a socket or a device: reading it may never end."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device, no file", str(path))


def sync(path: Path) -> None:
    """Return when a file's content, or the renames in a folder, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_private_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for this user alone (0700); those there stay as they are."""
    for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(exist_ok=True)  # where a file is in its place: FileExistsError


def hold_lock(path: Path, message: Callable[[], str], timeout_s: float = 0.0) -> BaseFileLock:
    """Lock `path` for this process until the lock is released or the process dies.

    Raises LockedError with `message` where another process holds it for longer than `timeout_s`.
    """
    lock = FileLock(path, timeout=timeout_s, thread_local=False)  # the process owns it, not the thread that took it
    try:
        lock.acquire()
    except Timeout:
        raise LockedError(message()) from None
    return lock


@contextmanager
def locked(path: Path, message: str, timeout_s: float = 0.0) -> Iterator[None]:
    """Hold the lock `path` inside the `with`; see `hold_lock`."""
    lock = hold_lock(path, lambda: message, timeout_s)
    try:
        yield
    finally:
        lock.release()
