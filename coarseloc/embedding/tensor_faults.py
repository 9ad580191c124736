"""Tensors that are not those of a model: what is wrong with them, as one WeightsError."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from coarseloc.core.errors import WeightsError
from coarseloc.core.types import Float32


def refuse_incomplete(path: Path, name: str, missing: list[str], extra: list[str], misshapen: list[str]) -> None:
    """Raise WeightsError where a folder's tensors are not those of the model of this name."""
    faults = [
        list_keys(fault, keys)
        for fault, keys in (("missing", missing), ("left over", extra), ("of another shape", misshapen))
        if keys
    ]
    if faults:
        raise WeightsError(f"{path} does not hold all of {name}: {'; '.join(faults)}. Copy it again")


def refuse_infinite(tensors: Mapping[str, Float32], source: str) -> None:
    """Raise WeightsError where a number is infinite or none."""
    not_finite = sorted(key for key, tensor in tensors.items() if not np.isfinite(tensor).all())
    if not_finite:
        raise WeightsError(f"{source} holds numbers that are not finite in {', '.join(not_finite[:3])}: copy it again")


def list_keys(fault: str, keys: list[str]) -> str:
    """The fault and the first three of its tensors' names."""
    rest = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return f"{fault} {', '.join(keys[:3])}{rest}"


def first_line(error: object) -> str:
    """The first line of an error's text, at most 200 characters of it; its class where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
