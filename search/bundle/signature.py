"""An ed25519 signature of a bundle's manifest, by a key of the user's own: PEM or OpenSSH, as `ssh-keygen` makes them.

The manifest states the digest of every member, so one signature vouches for all of the bundle. It says which key, and
only whoever knows whose key that is knows more: a check names the key that it expects.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from coarseloc.core import files
from coarseloc.core.errors import InputError
from search.bundle.archive import MANIFEST

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ALGORITHM = "ed25519"
_PURPOSE = b"coarseloc-bundle-manifest-v1\n"  # a signature of anything else is none of a bundle
_MOST_KEY_BYTES = 1 << 16

SignatureState = Literal["none", "valid", "invalid", "other-key", "unverified"]


@dataclass(frozen=True, slots=True)
class SignatureCheck:
    """What a bundle's signature is worth. "valid": of the key stated inside the bundle, and where `key_named` of the
    one that was asked for. "unverified": the extra `sign` is not installed here."""

    state: SignatureState
    key_fingerprint: str | None = None  # SHA256:…, as `ssh-keygen -l` shows it
    key_named: bool = False

    @property
    def is_refused(self) -> bool:
        return self.state in ("invalid", "other-key") or (self.key_named and self.state != "valid")


def signer(key_file: Path, passphrase: Callable[[], str]) -> Callable[[bytes], dict[str, Any]]:
    """A function from a manifest's bytes to the facts of their signature by a private key. passphrase: asked for where
    the key is encrypted. Raises InputError where the file holds no ed25519 private key."""
    key = _private_key(key_file, passphrase)
    public = _openssh(key.public_key())

    def sign(manifest: bytes) -> dict[str, Any]:
        signature = base64.b64encode(key.sign(_PURPOSE + manifest)).decode()
        return {"algorithm": ALGORITHM, "public_key": public, "signature": signature, "signs": MANIFEST}

    return sign


def check_signature(manifest: bytes, content: bytes | None, key_file: Path | None = None) -> SignatureCheck:
    """Check signature.json against a manifest's bytes. key_file: the public key that is expected (or the private one).

    Raises InputError where the key cannot be read.
    """
    expected = None if key_file is None else public_key_line(key_file)
    named = key_file is not None
    if content is None:
        return SignatureCheck("none", key_named=named)
    try:
        facts = json.loads(content)
        public, signature = str(facts["public_key"]), base64.b64decode(facts["signature"], validate=True)
        fingerprint = key_fingerprint(public)
        if facts["algorithm"] != ALGORITHM or facts["signs"] != MANIFEST:
            return SignatureCheck("invalid", fingerprint, named)
    except (ValueError, KeyError, TypeError, RecursionError):
        return SignatureCheck("invalid", key_named=named)
    try:
        is_valid = _is_valid(public, _PURPOSE + manifest, signature)
    except ModuleNotFoundError:
        return SignatureCheck("unverified", fingerprint, named)
    if not is_valid:
        return SignatureCheck("invalid", fingerprint, named)
    if expected is not None and expected.split()[:2] != public.split()[:2]:
        return SignatureCheck("other-key", fingerprint, named)
    return SignatureCheck("valid", fingerprint, named)


def key_fingerprint(public_key: str) -> str:
    """SHA256:… of an OpenSSH public key, as `ssh-keygen -l` shows it. Raises ValueError where it is none."""
    words = public_key.split()
    if len(words) < 2 or words[0] != "ssh-ed25519":
        raise ValueError(f"{public_key[:40]!r} is no OpenSSH ed25519 public key")
    blob = base64.b64decode(words[1], validate=True)
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def public_key_line(key_file: Path) -> str:
    """The public key of a file, `ssh-ed25519 …`: an OpenSSH or PEM public key, or a private key's without a passphrase.

    Raises InputError where it holds none.
    """
    content = _read_key(key_file)
    serialization = _serialization()
    if b"PRIVATE KEY" in content:
        return _openssh(_private_key(key_file, lambda: "").public_key())
    try:
        load = serialization.load_pem_public_key if b"BEGIN" in content else serialization.load_ssh_public_key
        return _openssh(load(content.strip()))
    except (ValueError, _unsupported()) as error:
        raise _no_key(key_file, "public", str(error)) from None


# --- keys ---------------------------------------------------------------------------------------


def _private_key(key_file: Path, passphrase: Callable[[], str]) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    serialization = _serialization()
    content = _read_key(key_file)
    load = serialization.load_ssh_private_key if b"OPENSSH" in content else serialization.load_pem_private_key
    try:
        try:
            key = load(content, None)
        except TypeError:  # it is encrypted
            key = load(content, passphrase().encode())
    except (ValueError, TypeError, _unsupported()) as error:
        raise _no_key(key_file, "private", str(error)) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(key_file, "private", f"it is of another kind: {type(key).__name__.lstrip('_')}")
    return key


def _openssh(key: Any) -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"it is of another kind: {type(key).__name__.lstrip('_')}")
    serialization = _serialization()
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def _is_valid(public_key: str, message: bytes, signature: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    try:
        key: Ed25519PublicKey = load_ssh_public_key(public_key.encode())  # type: ignore[assignment]
        _openssh(key)
        key.verify(signature, message)
    except (InvalidSignature, ValueError, _unsupported()):
        return False
    return True


def _read_key(key_file: Path) -> bytes:
    try:
        files.refuse_special(key_file)
        with key_file.open("rb") as file:
            return file.read(_MOST_KEY_BYTES)
    except OSError as error:
        raise InputError(f"the key {key_file} cannot be read: {error.strerror}") from None


def _no_key(key_file: Path, kind: str, reason: str) -> InputError:
    return InputError(
        f"{key_file} holds no ed25519 {kind} key that can be used ({reason or 'unknown'}): expected PEM or OpenSSH, as "
        "`ssh-keygen -t ed25519 -f KEY` makes it"
    )


def _serialization() -> Any:
    try:
        from cryptography.hazmat.primitives import serialization
    except ModuleNotFoundError:
        raise InputError("signatures need the extra sign: `pip install 'coarseloc[sign]'`") from None
    return serialization


def _unsupported() -> type[Exception]:
    from cryptography.exceptions import UnsupportedAlgorithm

    return UnsupportedAlgorithm
