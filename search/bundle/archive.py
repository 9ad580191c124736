"""The bundle's file: a zip whose members are held to the digests that its manifest states.

    manifest.json      which bundle this is, and the size and SHA-256 of every other member
    manifest.sha256    the SHA-256 of manifest.json: the bundle's own digest
    signature.json     perhaps: a key's signature of manifest.json, see `signature`

Equal members give equal bytes, with one version of zlib. Reading trusts nothing: names, counts and sizes are looked at
before anything is unpacked, and nothing is ever written to disk.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from coarseloc.core import files
from coarseloc.core.errors import InputError

FORMAT = "coarseloc-bundle"
VERSION = 1
MANIFEST, DIGEST, SIGNATURE = "manifest.json", "manifest.sha256", "signature.json"

MOST_MEMBERS = 10_000
MOST_BYTES = 4 * 2**30  # of all members, unpacked
MOST_JSON_BYTES = 256 * 2**20  # of a member that is read as a whole
MOST_LINE_BYTES = 16 * 2**20
_MOST_DIRECTORY_BYTES = 2 * 2**20  # of the zip's table of contents, which is read as a whole
_END = struct.Struct("<4s4H2LH")  # the end of a zip without a comment
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*(/[a-z0-9][a-z0-9_-]*)*\.[a-z0-9]+", re.ASCII)
_PIECE = 1 << 20
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)

Members = Iterable[tuple[str, Iterable[bytes]]]
"""(name, its content in pieces), in order."""

Sign = Callable[[bytes], Mapping[str, Any]]
"""A manifest's bytes → the facts of their signature."""


@dataclass(frozen=True, slots=True)
class DamagedMember:
    """A member that is not as the manifest states, and how."""

    name: str
    problem: str


# --- writing ------------------------------------------------------------------------------------


def write_archive(path: Path, facts: Mapping[str, Any], members: Members, sign: Sign | None = None) -> str:
    """Write a bundle whole or not at all; returns its digest.

    facts: of the manifest, beside its members. sign: a function from the manifest's bytes to the facts of a signature.
    Raises InputError where the folder cannot be written to, or where the members would be too large to be read again.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path, durable=True) as partial, zipfile.ZipFile(partial, "w") as archive:
            stated = {name: _write(archive, name, pieces) for name, pieces in members}
            if (total := sum(member["bytes"] for member in stated.values())) > MOST_BYTES:
                raise InputError(
                    f"this bundle would hold {total / 1e9:.1f} GB, expected at most {MOST_BYTES / 1e9:.1f}: choose "
                    "fewer runs with --backbone"
                )
            manifest = json_bytes({"format": FORMAT, "version": VERSION, **facts, "members": stated})
            digest = hashlib.sha256(manifest).hexdigest()
            _write(archive, MANIFEST, [manifest])
            _write(archive, DIGEST, [f"{digest}\n".encode()])
            if sign is not None:
                _write(archive, SIGNATURE, [json_bytes(sign(manifest))])
        return digest
    except (NotADirectoryError, FileExistsError, IsADirectoryError) as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; give another --out") from None


def json_bytes(facts: Any) -> bytes:
    """Plain values as JSON for people and programs, keys in order. Raises ValueError for NaN and infinity."""
    text = json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def line_bytes(facts: Any) -> bytes:
    """Plain values as one line of JSON."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"{text}\n".encode()


def _write(archive: zipfile.ZipFile, name: str, pieces: Iterable[bytes]) -> dict[str, Any]:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type, info.create_system, info.external_attr = zipfile.ZIP_DEFLATED, 3, 0o100644 << 16
    state, size = hashlib.sha256(), 0
    with archive.open(info, "w") as member:
        for piece in pieces:
            member.write(piece)
            state.update(piece)
            size += len(piece)
    return {"sha256": state.hexdigest(), "bytes": size}


# --- reading ------------------------------------------------------------------------------------


class BundleFile:
    """An open bundle. What is read of it is only to be used after `damage` has said nothing."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        """Raises InputError where it is no bundle, or one of a later version."""
        self.path, self._archive = path, archive
        self._infos = {info.filename: info for info in archive.infolist()}
        _refuse_hostile(path, archive.infolist())
        self.manifest_bytes = self._whole(MANIFEST)
        self.digest = hashlib.sha256(self.manifest_bytes).hexdigest()
        self.manifest = _manifest(path, self.manifest_bytes)
        self.stated: dict[str, dict[str, Any]] = self.manifest["members"]

    @property
    def names(self) -> list[str]:
        """The members that the manifest states, in order."""
        return list(self.stated)

    def signature_bytes(self) -> bytes | None:
        """The signature's member; None where the bundle is not signed."""
        return self._whole(SIGNATURE) if SIGNATURE in self._infos else None

    def damage(self) -> list[DamagedMember]:
        """Read every byte; list the members that are missing, unstated or not as the manifest says."""
        members = [self._manifest_damage(), *(self._member_damage(*stated) for stated in self.stated.items())]
        unstated = self._infos.keys() - self.stated.keys() - {MANIFEST, DIGEST, SIGNATURE}
        members += [DamagedMember(name, "the manifest does not state it") for name in sorted(unstated)]
        return [member for member in members if member is not None]

    def json(self, name: str) -> Any:
        """A member's JSON. Raises InputError where it is none."""
        try:
            return json.loads(self._whole(name))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{self.path}: {name} is no JSON ({error})") from None

    def lines(self, name: str) -> Iterator[Any]:
        """A member's JSON lines, one at a time. Raises InputError where one is no JSON."""
        with self._archive.open(self._info(name)) as member:
            for number, line in enumerate(iter(lambda: member.readline(MOST_LINE_BYTES), b""), 1):
                try:
                    yield json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise InputError(f"{self.path}: line {number} of {name} is no JSON ({error})") from None

    def rows(self, name: str) -> Iterator[dict[str, str]]:
        """A member's CSV rows, one at a time. Raises InputError where it is no CSV."""
        with self._archive.open(self._info(name)) as member:
            try:
                yield from csv.DictReader(io.TextIOWrapper(member, encoding="utf-8", newline=""))
            except (ValueError, csv.Error) as error:
                raise InputError(f"{self.path}: {name} is no CSV ({error})") from None

    def _info(self, name: str) -> zipfile.ZipInfo:
        if name not in self._infos:
            raise InputError(f"{self.path} is no bundle: it has no {name}")
        return self._infos[name]

    def _whole(self, name: str) -> bytes:
        info = self._info(name)
        if info.file_size > MOST_JSON_BYTES:
            raise InputError(
                f"{self.path}: {name} has {info.file_size} bytes, more than the {MOST_JSON_BYTES} that are read"
            )
        try:
            return self._archive.read(info)
        except _UNREADABLE as error:
            raise InputError(f"{self.path} is damaged: {name} cannot be read ({error})") from None

    def _member_damage(self, name: str, facts: Mapping[str, Any]) -> DamagedMember | None:
        info = self._infos.get(name)
        if info is None:
            return DamagedMember(name, "it is missing")
        if info.file_size != facts["bytes"]:
            return DamagedMember(name, f"it has {info.file_size} bytes, the manifest states {facts['bytes']}")
        try:
            with self._archive.open(info) as member:
                digest = _digest(member)
        except _UNREADABLE as error:
            return DamagedMember(name, f"it cannot be read ({error})")
        if digest != facts["sha256"]:
            return DamagedMember(name, f"its SHA-256 is {digest[:12]}…, the manifest states {facts['sha256'][:12]}…")
        return None

    def _manifest_damage(self) -> DamagedMember | None:
        try:
            stated = self._whole(DIGEST).decode("ascii", "replace").strip()
        except InputError as error:
            return DamagedMember(DIGEST, str(error))
        if stated != self.digest:
            return DamagedMember(MANIFEST, f"its SHA-256 is {self.digest[:12]}…, {DIGEST} states {stated[:12]}…")
        return None


@contextmanager
def open_archive(path: Path) -> Iterator[BundleFile]:
    """Open a bundle; it is read from the one open file until the end. Raises InputError where it is none."""
    with ExitStack() as stack:
        try:
            files.refuse_special(path)
            file = stack.enter_context(path.open("rb"))
            _refuse_large_directory(path, file)
            bundle = BundleFile(path, stack.enter_context(zipfile.ZipFile(file)))
        except (*_UNREADABLE, IndexError, struct.error) as error:
            if isinstance(error, OSError) and error.strerror:
                error = error.strerror  # type: ignore[assignment]
            raise InputError(
                f"{path} cannot be read as a bundle ({error}): expected a file that `coarseloc bundle create` wrote"
            ) from None
        yield bundle


def _refuse_large_directory(path: Path, file: IO[bytes]) -> None:
    """zipfile reads a zip's table of contents as a whole, however long it says that it is."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END.size))
    end = file.read(_END.size)
    file.seek(0)
    if len(end) < _END.size or not end.startswith(b"PK\x05\x06"):
        raise InputError(f"{path} is no bundle: it does not end as a zip of `coarseloc bundle create` does")
    directory_bytes = _END.unpack(end)[5]
    if directory_bytes > _MOST_DIRECTORY_BYTES:
        raise InputError(f"{path} is no bundle: its table of contents has {directory_bytes} bytes")


def _refuse_hostile(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    """Raise InputError for names, kinds, counts and sizes that no bundle has."""
    names = [info.filename for info in infos]
    strange = [name for name in names if not _NAME.fullmatch(name)]
    strange += [name for name, count in Counter(names).items() if count > 1]
    strange += [
        info.filename
        for info in infos
        if info.flag_bits & 0x1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    ]
    if strange:
        raise InputError(f"{path} is no bundle: it holds {strange[0]!r}, which no bundle holds, or twice")
    if len(infos) > MOST_MEMBERS:
        raise InputError(f"{path} is no bundle: it holds {len(infos)} members, more than {MOST_MEMBERS}")
    total = sum(info.file_size for info in infos)
    if total > MOST_BYTES:
        raise InputError(f"{path} would unpack to {total / 1e9:.1f} GB, more than {MOST_BYTES / 1e9:.1f} GB: not read")


def _manifest(path: Path, content: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(content)
        if manifest["format"] != FORMAT:
            raise InputError(f"{path} is no bundle: its manifest is of format {manifest['format']!r}")
        if manifest["version"] != VERSION:
            raise InputError(
                f"{path} is of bundle version {manifest['version']!r}, this coarseloc reads {VERSION}: "
                "check it with the version that wrote it, or a newer one"
            )
        for facts in manifest["members"].values():
            int(facts["bytes"]), bytes.fromhex(facts["sha256"])
        return dict(manifest)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {MANIFEST} cannot be read ({error!r})") from None


def _digest(member: IO[bytes]) -> str:
    state = hashlib.sha256()
    while piece := member.read(_PIECE):
        state.update(piece)
    return state.hexdigest()
