"""A bundle's file: every byte is held to its digest, and nothing that a stranger sends is trusted."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coarseloc.core.errors import InputError
from search.bundle import archive
from search.bundle.archive import write_archive
from search.bundle.check import check_bundle
from search.bundle.signature import key_fingerprint, public_key_line, signer

MEMBERS = {"flight.json": b'{"frames": []}\n', "runs/1.json": b"{}\n", "runs/1.jsonl": b'{"a": 1}\n' * 50}
FACTS = {"flight_id": "251124155712", "runs": [1]}


def write(path: Path, members: dict[str, bytes] = MEMBERS, sign: archive.Sign | None = None) -> Path:
    write_archive(path, FACTS, [(name, [content]) for name, content in members.items()], sign)
    return path


def rewritten(path: Path, changed: dict[str, bytes | None]) -> Path:
    """The same zip with other members: sound as a zip, None leaves one out."""
    with zipfile.ZipFile(path) as source:
        contents = {name: source.read(name) for name in source.namelist()} | changed
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in contents.items():
            if content is not None:
                target.writestr(name, content)
    return path


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return write_key(tmp_path / "key", Ed25519PrivateKey.generate())


def write_key(path: Path, private: Ed25519PrivateKey | ec.EllipticCurvePrivateKey, password: bytes = b"") -> Path:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    openssh = serialization.PrivateFormat.OpenSSH
    path.write_bytes(private.private_bytes(serialization.Encoding.PEM, openssh, encryption))
    public = private.public_key()
    path.with_suffix(".pub").write_bytes(
        public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH) + b" me@here\n"
    )
    path.with_suffix(".pem").write_bytes(
        public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return path


def no_passphrase() -> str:
    raise AssertionError("nobody may be asked")


def test_a_bundle_is_sound_as_it_was_written_and_equal_contents_are_equal_bytes(tmp_path: Path):
    first, second = write(tmp_path / "a.zip"), write(tmp_path / "b.zip")
    assert first.read_bytes() == second.read_bytes()
    result = check_bundle(first)
    assert (result.is_sound, result.damage, result.members, result.runs) == (True, (), 3, 1)
    assert result.signature.state == "none" and result.flight_id == "251124155712"


@pytest.mark.parametrize("name", [*MEMBERS, archive.MANIFEST, archive.DIGEST, archive.SIGNATURE])
def test_a_changed_byte_is_named_in_whichever_member_it_is(tmp_path: Path, key: Path, name: str):
    path = write(tmp_path / "a.zip", sign=signer(key, no_passphrase))
    with zipfile.ZipFile(path) as source:
        content = source.read(name)
    try:
        result = check_bundle(rewritten(path, {name: flipped(content)}))
    except InputError as error:
        assert name in str(error)
        return
    assert not result.is_sound
    if name == archive.SIGNATURE:
        assert result.signature.state == "invalid"
    else:
        assert [member.name for member in result.damage] == [archive.MANIFEST if name == archive.DIGEST else name]


def test_a_bit_flipped_anywhere_in_the_file_never_gives_another_content(tmp_path: Path):
    path = write(tmp_path / "a.zip")
    sound = path.read_bytes()
    digest = check_bundle(path).digest
    for at in range(0, len(sound), 7):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 1 << at % 8]) + sound[at + 1 :])
        try:
            result = check_bundle(path)
        except InputError:
            continue
        assert not result.is_sound or result.digest == digest, at  # a date in the zip says nothing


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path):
    path = write(tmp_path / "a.zip")
    sound = path.read_bytes()
    for size in range(0, len(sound), 31):
        path.write_bytes(sound[:size])
        with pytest.raises(InputError):
            check_bundle(path)


def test_members_that_are_missing_or_were_put_in_are_named(tmp_path: Path):
    path = rewritten(write(tmp_path / "a.zip"), {"runs/1.jsonl": None, "runs/2.json": b"{}"})
    assert [member.name for member in check_bundle(path).damage] == ["runs/1.jsonl", "runs/2.json"]


@pytest.mark.parametrize(
    "name",
    ["../../x", "/etc/passwd", "runs\\1.json", "runs/../1.json", "C:/1.json", "", "a\x1b[2J.json", "x/"],
)
def test_a_zip_with_a_hostile_name_is_no_bundle(tmp_path: Path, name: str):
    path = write(tmp_path / "a.zip")
    with zipfile.ZipFile(path, "a") as target:
        target.writestr(zipfile.ZipInfo(name), b"x")
    with pytest.raises(InputError, match="no bundle"):
        check_bundle(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path: Path):
    path = write(tmp_path / "a.zip")
    with zipfile.ZipFile(path, "a") as target:
        target.writestr("runs/1.json", b"{}\n")
    with pytest.raises(InputError, match="no bundle"):
        check_bundle(path)


def test_a_bomb_is_refused_before_anything_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "a.zip", {**MEMBERS, "zeros.json": bytes(30_000_000)})
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(archive, "MOST_BYTES", 20_000_000)
    with pytest.raises(InputError, match=r"unpack to 0\.0 GB"):
        check_bundle(path)


def test_a_table_of_contents_of_a_gigabyte_is_not_read(tmp_path: Path):
    path = write(tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    struct.pack_into("<L", content, len(content) - 10, 1 << 30)
    path.write_bytes(content)
    with pytest.raises(InputError, match="table of contents has 1073741824 bytes"):
        check_bundle(path)


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip at all" * 9])
def test_what_is_no_bundle_is_said_in_one_line(tmp_path: Path, content: bytes):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.zip is no bundle"):
        check_bundle(tmp_path / "a.zip")
    with pytest.raises(InputError, match="cannot be read as a bundle"):
        check_bundle(tmp_path / "none.zip")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as target:
        target.writestr("holiday.jpg", b"x")
    with pytest.raises(InputError, match=r"it has no manifest\.json"):
        check_bundle(tmp_path / "a.zip")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="it is a pipe"):
        check_bundle(tmp_path / "pipe")


def test_a_bundle_of_a_later_version_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archive, "VERSION", 2)
    path = write(tmp_path / "a.zip")
    monkeypatch.undo()
    with pytest.raises(InputError, match="bundle version 2, this coarseloc reads 1"):
        check_bundle(path)


def test_an_error_while_writing_leaves_the_file_that_was_there(tmp_path: Path):
    path = write(tmp_path / "a.zip")
    before = path.read_bytes()

    def pieces() -> Iterator[bytes]:
        yield b"half"
        raise InputError("a frame is gone")

    with pytest.raises(InputError, match="a frame is gone"):
        write_archive(path, FACTS, [("flight.json", pieces())])
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


WRITES_SLOWLY = """
import sys, time
from pathlib import Path
from search.bundle.archive import write_archive
def pieces():
    for number in range(10 ** 6):
        yield bytes(100_000)
        print(number, flush=True)
        time.sleep(0.01)
write_archive(Path(sys.argv[1]), {}, [("flight.json", pieces())])
"""


def test_a_kill_while_writing_leaves_no_half_file(tmp_path: Path):
    path = tmp_path / "a.zip"
    with subprocess.Popen([sys.executable, "-c", WRITES_SLOWLY, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() and process.stdout.readline()
        time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not path.exists()


# --- signatures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["key", "key.pub", "key.pem"])
def test_a_signature_is_valid_by_its_key_in_every_form(tmp_path: Path, key: Path, form: str):
    path = write(tmp_path / "a.zip", sign=signer(key, no_passphrase))
    result = check_bundle(path, tmp_path / form)
    assert result.is_sound and (result.signature.state, result.signature.key_named) == ("valid", True)
    assert result.signature.key_fingerprint == key_fingerprint(public_key_line(key))
    anonymous = check_bundle(path).signature
    assert (anonymous.state, anonymous.key_named) == ("valid", False)


def test_another_key_an_unsigned_bundle_and_a_foreign_signature_are_refused(tmp_path: Path, key: Path):
    other = write_key(tmp_path / "other", Ed25519PrivateKey.generate())
    signed, unsigned = write(tmp_path / "a.zip", sign=signer(other, no_passphrase)), write(tmp_path / "b.zip")
    assert check_bundle(signed, key).signature.state == "other-key" and not check_bundle(signed, key).is_sound
    assert check_bundle(unsigned, key).signature.state == "none" and not check_bundle(unsigned, key).is_sound
    # The signature of one bundle does not serve another one, however sound its digests are.
    with zipfile.ZipFile(signed) as source:
        signature = source.read(archive.SIGNATURE)
    forged = rewritten(write(tmp_path / "c.zip", {**MEMBERS, "runs/1.json": b"[]\n"}), {archive.SIGNATURE: signature})
    result = check_bundle(forged)
    assert result.damage == () and result.signature.state == "invalid" and not result.is_sound


def test_an_encrypted_key_asks_for_its_passphrase(tmp_path: Path):
    key = write_key(tmp_path / "key", Ed25519PrivateKey.generate(), b"secret")
    path = write(tmp_path / "a.zip", sign=signer(key, lambda: "secret"))
    assert check_bundle(path, tmp_path / "key.pub").is_sound
    with pytest.raises(InputError, match="holds no ed25519 private key"):
        signer(key, lambda: "wrong")


@pytest.mark.parametrize("make", [ec.generate_private_key])
def test_a_key_of_another_kind_is_refused(tmp_path: Path, make: Callable[..., ec.EllipticCurvePrivateKey]):
    key = write_key(tmp_path / "key", make(ec.SECP256R1()))
    for use in (lambda: signer(key, no_passphrase), lambda: public_key_line(tmp_path / "key.pub")):
        with pytest.raises(InputError, match="of another kind: ECP"):
            use()
    (tmp_path / "text").write_text("hello")
    with pytest.raises(InputError, match="holds no ed25519 public key"):
        public_key_line(tmp_path / "text")
    with pytest.raises(InputError, match="cannot be read"):
        public_key_line(tmp_path / "none")


def test_without_the_extra_a_signature_is_said_to_be_unverified(
    tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
):
    path = write(tmp_path / "a.zip", sign=signer(key, no_passphrase))
    for name in [name for name in sys.modules if name.split(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    result = check_bundle(path)
    assert result.signature.state == "unverified" and result.signature.key_fingerprint
    with pytest.raises(InputError, match=r"coarseloc\[sign\]"):
        check_bundle(path, key)
