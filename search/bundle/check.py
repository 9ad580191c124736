"""Whether a bundle is what was written: every digest, and whose word stands for it. Needs no data and no model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.bundle.archive import BundleFile, DamagedMember, open_archive
from search.bundle.signature import SignatureCheck, check_signature


@dataclass(frozen=True, slots=True)
class BundleCheck:
    """What a bundle holds and whether it can be trusted."""

    file: str
    digest: str  # SHA-256 of its manifest, which states all other digests
    flight_id: str
    runs: int
    members: int
    bytes: int  # unpacked
    damage: tuple[DamagedMember, ...]
    signature: SignatureCheck

    @property
    def is_sound(self) -> bool:
        return not self.damage and not self.signature.is_refused


def check_bundle(path: Path, key_file: Path | None = None) -> BundleCheck:
    """Read every byte of a bundle and check its digests and signature. key_file: whose signature is expected.

    Raises InputError where it is no bundle, or the key no key.
    """
    with open_archive(path) as bundle:
        return _check(bundle, key_file)


def _check(bundle: BundleFile, key_file: Path | None) -> BundleCheck:
    signature = check_signature(bundle.manifest_bytes, bundle.signature_bytes(), key_file)
    manifest = bundle.manifest
    return BundleCheck(
        file=str(bundle.path),
        digest=bundle.digest,
        flight_id=str(manifest.get("flight_id")),
        runs=_count(manifest.get("runs")),
        members=len(bundle.stated),
        bytes=sum(int(facts["bytes"]) for facts in bundle.stated.values()),
        damage=tuple(bundle.damage()),
        signature=signature,
    )


def _count(value: Any) -> int:
    return len(value) if isinstance(value, list) else 0
