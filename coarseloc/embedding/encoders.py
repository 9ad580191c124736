"""From names to encoders, by the settings: which weights are on this machine, the spec they give, the loaded model."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coarseloc.core.config import Settings
from coarseloc.core.errors import WeightsError
from coarseloc.core.types import EmbeddingSpec, Fit
from coarseloc.embedding import specs
from coarseloc.embedding.specs import BackboneSpec
from coarseloc.embedding.weights import LocatedWeights, MissingWeights, find, require, weight_files

if TYPE_CHECKING:
    from coarseloc.embedding.backbone import LoadedBackbone

CACHE = "cache"  # in the data folder: the digests of weight files


class Encoders:
    """The encoders that these settings give. Says what is missing before anything is loaded; keeps no model.

    A precision "auto" is fp32 until `choose_precision` says another, for each backbone.
    """

    def __init__(
        self,
        settings: Settings,
        device: str | None = None,
        precision: str | None = None,
        input_px: int | None = None,
        allow_hub: bool = False,
        fit: Fit | None = None,
    ) -> None:
        self._settings = settings
        self._rows = specs.table(settings.backbones)
        self.device, self.precision = device or settings.device, precision or "fp32"
        self._chosen: dict[str, str] = {}  # {backbone: precision} where that is "auto"
        self._input_px, self._fit = input_px or settings.input_px, fit or settings.fit
        self._allow_hub = allow_hub
        self._weights: dict[str, LocatedWeights] = {}

    def specs(self, names: Sequence[str]) -> list[EmbeddingSpec]:
        """Return the specs of these backbones; without names, of all six whose weights are on this machine."""
        return [self.spec(name) for name in dict.fromkeys(names or self._available_names())]

    def spec(
        self, name: str, input_px: int | None = None, precision: str | None = None, fit: Fit | None = None
    ) -> EmbeddingSpec:
        from coarseloc.embedding import backbone  # PIL, safetensors: of no use to a command that embeds nothing

        weights = self._locate(name)
        return backbone.embedding_spec(
            weights,
            input_px=input_px or self._input_px,
            precision=precision or self._chosen.get(weights.spec.name, _without_auto(self.precision)),
            fit=fit or self._fit,
            cache_dir=self._settings.data_dir / CACHE,
        )

    def choose_precision(self, name: str, precision: str) -> None:
        """Make specs of this backbone in `precision` from now on, where that was "auto"."""
        self._chosen[specs.row(name, self._rows).name] = precision

    def load(self, spec: EmbeddingSpec, pictures: int | None = None) -> LoadedBackbone:
        """Load an encoder; `pictures`, where few will be embedded: see `load_backbone`."""
        from coarseloc.embedding import backbone

        return backbone.load_backbone(
            self._locate(spec.backbone),
            input_px=spec.input_px,
            precision=spec.precision,
            fit=spec.fit,
            device=self.device,
            cache_dir=self._settings.data_dir / CACHE,
            pictures=pictures,
        )

    def load_matching(self, spec: EmbeddingSpec, pictures: int | None = None) -> LoadedBackbone:
        """Load the encoder whose embeddings are stored; raises WeightsError where today's weights are others."""
        today = self.spec(spec.backbone, spec.input_px, spec.precision, spec.fit)
        if today.digest != spec.digest:
            differs = [name for name in spec.__dataclass_fields__ if getattr(today, name) != getattr(spec, name)]
            raise WeightsError(
                f"the references were embedded by {spec.backbone} with other {', '.join(differs)} than today's: "
                "their vectors do not mix. Bring the earlier weights back, or ingest again with these."
            )
        return self.load(spec, pictures)

    def missing(self, name: str) -> MissingWeights | None:
        """Return why a backbone cannot be loaded on this machine and what to do; None where its weights are present."""
        weights = find(specs.row(name, self._rows), self._settings.weights)
        return weights if isinstance(weights, MissingWeights) else None

    def _locate(self, name: str) -> LocatedWeights:
        row = specs.row(name, self._rows)
        if row.name not in self._weights:
            self._weights[row.name] = require(row, self._settings.weights, allow_hub=self._allow_hub)
        return self._weights[row.name]

    def _available_names(self) -> list[str]:
        names = [row.name for row in self._rows.values() if row.name != "demo" and not self.missing(row.name)]
        if not names:
            raise WeightsError(
                f"no backbone's weights are under {self._settings.weights}: `coarseloc backbones` says how to get "
                "them, or try `--backbone demo`, the small model that comes with coarseloc"
            )
        return names


def _without_auto(precision: str) -> str:
    return "fp32" if precision == "auto" else precision


# --- the list of `coarseloc backbones` --------------------------------------------------------------

LICENCE_NOTE = (
    "DINOv3 weights are Meta's, under the DINOv3 License (https://ai.meta.com/resources/models-and-libraries/"
    "dinov3-license/): pass them on only together with that licence; military and ITAR uses are excluded."
)


@dataclass(frozen=True, slots=True)
class BackboneListing:
    """One backbone of the list. `path` is None where its weights are missing; then `remedy` says what to do."""

    name: str
    title: str
    params_m: float  # millions; 0 where it is not known
    dim: int  # likewise
    pretraining: str
    kind: str | None  # "folder", "pth", "hub"
    path: Path | None
    reason: str = ""
    remedy: str = ""


def inventory(rows: Mapping[str, BackboneSpec], weights_dir: Path) -> list[BackboneListing]:
    """List the backbones, in the table's order. Reads file names, config.json and file headers only."""
    return [_listing(spec, weights_dir) for spec in rows.values()]


def _listing(spec: BackboneSpec, weights_dir: Path) -> BackboneListing:
    weights = find(spec, weights_dir)
    if isinstance(weights, MissingWeights):
        facts = (spec.name, spec.title, spec.params_m, spec.dim, spec.pretraining)
        return BackboneListing(*facts, None, None, weights.reason, weights.remedy)
    params_m = spec.params_m or _params_m(weights.path)
    return BackboneListing(
        spec.name, spec.title, params_m, weights.spec.dim, spec.pretraining, weights.kind, weights.path
    )


def _params_m(folder: Path) -> float:
    """Count the numbers in a folder's safetensors files, in millions, from their headers; 0 where one is damaged.

    A safetensors file begins with the header's length (8 bytes, little endian), then the header as JSON.
    """
    total = 0
    for path in weight_files(folder):
        try:
            with path.open("rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        except (OSError, ValueError, OverflowError, MemoryError):
            return 0.0
        total += sum(math.prod(tensor["shape"]) for key, tensor in header.items() if key != "__metadata__")
    return total / 1e6
