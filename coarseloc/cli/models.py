"""From backbone names on the command line to specs and loaded encoders."""

from __future__ import annotations

from collections.abc import Sequence

from coarseloc.cli.app import App
from coarseloc.config import Settings
from coarseloc.embedding import specs, weights
from coarseloc.errors import InputError, WeightsError
from coarseloc.store import embeddings
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.references import StoredReferenceSet
from coarseloc.types import Backbone, EmbeddingSpec

CACHE = "cache"


class Encoders:
    """The encoders of one command: found at once, loaded when first asked for."""

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
        self._found: dict[str, weights.Found] = {}

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

    def _find(self, name: str) -> weights.Found:
        row = specs.row(name, self._rows)
        if row.name not in self._found:
            self._found[row.name] = weights.require(row, self._settings.weights, allow_hub=self._allow_hub)
        return self._found[row.name]

    def _available(self) -> list[str]:
        here = [
            row.name
            for row in self._rows.values()
            if row.name != "demo" and isinstance(weights.find(row, self._settings.weights), weights.Found)
        ]
        if not here:
            raise WeightsError(
                f"no backbone's weights are under {self._settings.weights}: `coarseloc backbones` says how to get "
                "them, or try `--backbone demo`, the small model that comes with coarseloc"
            )
        return here


def stored_specs(
    app: App,
    reference_set: StoredReferenceSet | None,
    names: Sequence[str],
    input_px: int | None,
    precision: str | None,
) -> list[StoredSpec]:
    """The specs a reference set (or any) is embedded with, narrowed to what was asked for.

    Raises InputError listing what there is where a backbone has none, or several and nothing says which.
    """
    with app.db.read() as session:
        here = embeddings.specs(session, reference_set.id if reference_set else None)
    where = f"reference set {reference_set.name!r}" if reference_set else "the database"
    rows = specs.table(app.settings.backbones)
    asked = dict.fromkeys(specs.row(name, rows).name for name in names) or dict.fromkeys(s.spec.backbone for s in here)
    if not here:
        raise InputError(f"{where} has no embeddings yet: run `coarseloc ingest` first")
    return [_the_one(where, name, here, input_px, precision) for name in asked]


def _the_one(
    where: str, name: str, here: Sequence[StoredSpec], input_px: int | None, precision: str | None
) -> StoredSpec:
    alike = [s for s in here if s.spec.backbone == name]
    fitting = [
        s
        for s in alike
        if (input_px is None or s.spec.input_px == input_px) and (precision is None or s.spec.precision == precision)
    ]
    held = ", ".join(f"{s.spec.backbone} at {s.spec.input_px} px {s.spec.precision}" for s in (alike or here))
    if not fitting:
        raise InputError(
            f"{where} is not embedded with {name} as asked; it holds {held}. "
            f"Ingest with `--backbone {name}` first, or ask for what is there."
        )
    if len({(s.spec.input_px, s.spec.precision) for s in fitting}) > 1:
        raise InputError(f"{where} holds {held}: say which with --input-px or --precision")
    return fitting[-1]  # of two weights under one name and size, those ingested last


def load_matching(encoders: Encoders, stored: StoredSpec) -> Backbone:
    """Load the encoder whose embeddings are stored; raises WeightsError where today's weights are others."""
    spec = stored.spec
    today = encoders.spec(spec.backbone, spec.input_px, spec.precision)
    if today.digest != spec.digest:
        differs = [name for name in spec.__dataclass_fields__ if getattr(today, name) != getattr(spec, name)]
        raise WeightsError(
            f"the references were embedded by {spec.backbone} with other {', '.join(differs)} than today's: "
            "their vectors do not mix. Bring the earlier weights back, or ingest again with these."
        )
    return encoders.load(spec)
