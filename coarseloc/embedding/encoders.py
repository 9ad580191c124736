"""From names to encoders, by the settings: which weights are here, the spec they give, the loaded model."""

from __future__ import annotations

from collections.abc import Sequence

from coarseloc.core.config import Settings
from coarseloc.core.errors import WeightsError
from coarseloc.core.types import Backbone, EmbeddingSpec
from coarseloc.embedding import specs, weights

CACHE = "cache"  # in the data folder: the digests of weight files


class Encoders:
    """The encoders that these settings give. Says what is missing before anything is loaded; keeps no model."""

    def __init__(
        self,
        settings: Settings,
        device: str | None = None,
        precision: str | None = None,
        input_px: int | None = None,
        allow_hub: bool = False,
    ) -> None:
        self._settings = settings
        self._rows = specs.table(settings.backbones)
        self._device, self._precision = device or settings.device, precision or "fp32"
        self._input_px = input_px or settings.input_px
        self._allow_hub = allow_hub
        self._found: dict[str, weights.LocatedWeights] = {}

    def specs(self, names: Sequence[str]) -> list[EmbeddingSpec]:
        """The specs of these backbones, or of every one of the six whose weights are here."""
        return [self.spec(name) for name in dict.fromkeys(names or self._available())]

    def spec(self, name: str, input_px: int | None = None, precision: str | None = None) -> EmbeddingSpec:
        from coarseloc.embedding import backbone  # torch: seconds that `--help` should not cost

        found = self._find(name)
        return backbone.embedding_spec(
            found,
            input_px=input_px or self._input_px,
            precision=precision or self._precision,
            cache_dir=self._settings.data_dir / CACHE,
        )

    def load(self, spec: EmbeddingSpec) -> Backbone:
        from coarseloc.embedding import backbone

        return backbone.load_backbone(
            self._find(spec.backbone),
            input_px=spec.input_px,
            precision=spec.precision,
            device=self._device,
            cache_dir=self._settings.data_dir / CACHE,
        )

    def load_matching(self, spec: EmbeddingSpec) -> Backbone:
        """Load the encoder whose embeddings are stored; raises WeightsError where today's weights are others."""
        today = self.spec(spec.backbone, spec.input_px, spec.precision)
        if today.digest != spec.digest:
            differs = [name for name in spec.__dataclass_fields__ if getattr(today, name) != getattr(spec, name)]
            raise WeightsError(
                f"the references were embedded by {spec.backbone} with other {', '.join(differs)} than today's: "
                "their vectors do not mix. Bring the earlier weights back, or ingest again with these."
            )
        return self.load(spec)

    def missing(self, name: str) -> weights.MissingWeights | None:
        """Why a backbone cannot be loaded here and what to do about it; None where its weights are."""
        found = weights.find(specs.row(name, self._rows), self._settings.weights)
        return found if isinstance(found, weights.MissingWeights) else None

    def _find(self, name: str) -> weights.LocatedWeights:
        row = specs.row(name, self._rows)
        if row.name not in self._found:
            self._found[row.name] = weights.require(row, self._settings.weights, allow_hub=self._allow_hub)
        return self._found[row.name]

    def _available(self) -> list[str]:
        here = [row.name for row in self._rows.values() if row.name != "demo" and not self.missing(row.name)]
        if not here:
            raise WeightsError(
                f"no backbone's weights are under {self._settings.weights}: `coarseloc backbones` says how to get "
                "them, or try `--backbone demo`, the small model that comes with coarseloc"
            )
        return here
