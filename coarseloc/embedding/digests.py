"""The digest of a backbone's weights: what makes an embedding's spec differ when the bytes differ."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from coarseloc.embedding.weights import LocatedWeights, weight_files


def weights_digest(found: LocatedWeights, cache_dir: Path | None = None) -> str:
    """SHA-256 over the bytes that decide the numbers: the .pth, or config.json and the safetensors files.

    Per-file digests are remembered in `cache_dir` by (path, size, mtime_ns), so that gigabytes are read once.
    """
    if found.kind == "pth":
        return _file_digest(found.path, cache_dir)
    files = [found.path / "config.json", *weight_files(found.path)]
    return hashlib.sha256("".join(_file_digest(path, cache_dir) for path in files).encode()).hexdigest()


def _file_digest(path: Path, cache_dir: Path | None) -> str:
    stat = path.stat()
    key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    memory = None if cache_dir is None else cache_dir / "weights-digests.json"
    known = _known_digests(memory)
    if key not in known:
        with path.open("rb") as file:
            known[key] = hashlib.file_digest(file, "sha256").hexdigest()
        if memory is not None:
            memory.parent.mkdir(parents=True, exist_ok=True)
            partial = memory.with_suffix(f".{os.getpid()}.partial")
            partial.write_text(json.dumps(known, indent=1), encoding="utf-8")
            partial.replace(memory)
    return known[key]


def _known_digests(memory: Path | None) -> dict[str, str]:
    if memory is None or not memory.is_file():
        return {}
    try:
        return dict(json.loads(memory.read_text(encoding="utf-8")))
    except (OSError, ValueError):  # a cache: what cannot be read is computed again
        return {}
