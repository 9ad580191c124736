"""timm's own DINOv3, on a machine without torchvision.

timm imports torchvision for its data sets and transforms; its ViTs use nothing of it. A torchvision from PyPI beside
a CPU torch breaks transformers, so while timm is imported, and no longer, hollow modules stand for it.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch

from benchmarks.rounds import Skipped

_NAMES = {"vits16": "vit_small_patch16_dinov3", "vitb16": "vit_base_patch16_dinov3"}


def timm_dinov3(backbone: str, side: int) -> torch.nn.Module | Skipped:
    """The architecture with random weights; [B, 3, side, side] → [B, D]."""
    if find_spec("timm") is None:
        return Skipped("timm is not installed (pip install --no-deps timm)")
    try:
        with _without_torchvision():
            import timm
        model: torch.nn.Module = timm.create_model(_NAMES[backbone], pretrained=False, num_classes=0, img_size=side)
    except (ImportError, AttributeError, RuntimeError, TypeError) as error:
        return Skipped(f"this timm cannot be imported without torchvision: {error}")
    return model.eval()


class _Hollow(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds every torchvision module, and finds it hollow."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> Any:
        if name.partition(".")[0] != "torchvision":
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: Any) -> types.ModuleType:
        return _HollowModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None: ...


class _HollowModule(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Names(name, (), {})


class _Names(type):
    """A class whose attributes are their own names: timm reads constants such as InterpolationMode.NEAREST."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return f"{cls.__name__}.{name}"


@contextmanager
def _without_torchvision() -> Iterator[None]:
    if find_spec("torchvision") is not None:
        yield
        return
    finder = _Hollow()
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
