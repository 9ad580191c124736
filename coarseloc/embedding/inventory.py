"""What `coarseloc backbones` shows: every row, and where its weights are or what to do to have them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coarseloc.embedding.specs import BackboneSpec
from coarseloc.embedding.weights import LocatedWeights, find, weight_files

LICENCE_NOTE = (
    "DINOv3 weights are Meta's, under the DINOv3 License (https://ai.meta.com/resources/models-and-libraries/"
    "dinov3-license/): pass them on only together with that licence; military and ITAR uses are excluded."
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One backbone of the list. `path` is None where it is not here; then `remedy` says what to do."""

    name: str
    title: str
    params_m: float  # millions; 0 where it is not known
    dim: int  # likewise
    pretraining: str
    kind: str | None  # "folder", "pth", "hub"
    path: Path | None
    reason: str = ""
    remedy: str = ""


def inventory(rows: Mapping[str, BackboneSpec], weights_dir: Path) -> list[Entry]:
    """One Entry per row, in the table's order. Reads file names, config.json and file headers only."""
    return [_entry(spec, weights_dir) for spec in rows.values()]


def _entry(spec: BackboneSpec, weights_dir: Path) -> Entry:
    found = find(spec, weights_dir)
    if not isinstance(found, LocatedWeights):
        facts = (spec.name, spec.title, spec.params_m, spec.dim, spec.pretraining)
        return Entry(*facts, None, None, found.reason, found.remedy)
    params_m = spec.params_m or _params_m(found.path)
    return Entry(spec.name, spec.title, params_m, found.spec.dim, spec.pretraining, found.kind, found.path)


def _params_m(folder: Path) -> float:
    """Millions of numbers in a folder's safetensors files, from their headers; 0 where one is damaged.

    A safetensors file begins with the header's length (8 bytes, little endian), then the header as JSON.
    """
    total = 0
    for path in weight_files(folder):
        try:
            with path.open("rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        except (OSError, ValueError, OverflowError, MemoryError):
            return 0.0
        total += sum(math.prod(entry["shape"]) for key, entry in header.items() if key != "__metadata__")
    return total / 1e6
