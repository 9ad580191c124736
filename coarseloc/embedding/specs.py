"""The backbones as rows of one frozen table. No torch here: the command line's help reads this.

Figures of the six rows are those of the DINOv3 release; a test builds each architecture and compares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from coarseloc.core import ids
from coarseloc.core.errors import BackboneError, ConfigError

if TYPE_CHECKING:  # a machine that only embeds has no pydantic
    from coarseloc.core.config import CustomBackbone

Triple = tuple[float, float, float]

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
SAT_MEAN: Triple = (0.430, 0.411, 0.296)
SAT_STD: Triple = (0.213, 0.156, 0.143)

REGISTER_TOKENS = 4  # of every DINOv3 ViT; transformers' own default is 0
LAYER_NORM_EPS = 1e-5
ROPE_THETA = 100.0


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """Frozen facts about an encoder. A number that is 0 is read from the folder's config.json once that is found."""

    name: str
    title: str
    params_m: float  # millions
    dim: int
    layers: int
    heads: int
    mlp: int  # width of the hidden layer
    gated: bool  # SwiGLU in place of GELU
    pretraining: str
    mean: Triple  # of RGB in [0, 1]
    std: Triple
    hub_id: str | None = None
    pth_name: str | None = None
    folder: Path | None = None  # a fixed Hugging Face folder: the demonstration model, a laboratory's own
    pooling: str = "cls"  # "cls", "mean" (of the patch tokens) or "pooler"
    patch: int = 16

    @property
    def slug(self) -> str:
        """The name as folders spell it: `vits16+` is `vits16plus`."""
        return ids.slug(self.name)

    @property
    def is_dinov3(self) -> bool:
        """One of Meta's six, whose figures this table fixes."""
        return self.hub_id is not None


def _lvd_row(
    name: str, title: str, params_m: float, width: tuple[int, int, int, int], gated: bool, sha: str
) -> BackboneSpec:
    slug = ids.slug(name)
    return BackboneSpec(
        name, title, params_m, *width, gated, "LVD-1689M", IMAGENET_MEAN, IMAGENET_STD,
        hub_id=f"facebook/dinov3-{slug}-pretrain-lvd1689m",
        pth_name=f"dinov3_{slug}_pretrain_lvd1689m-{sha}.pth",
    )  # fmt: skip


_ROWS = (
    #     name       title                 params M      dim layers heads mlp    gated
    _lvd_row("vits16", "DINOv3 ViT-S/16", 21.597, (384, 12, 6, 1536), False, "08c60483"),
    _lvd_row("vits16+", "DINOv3 ViT-S+/16", 28.693, (384, 12, 6, 1536), True, "4057cbaa"),
    _lvd_row("vitb16", "DINOv3 ViT-B/16", 85.660, (768, 12, 12, 3072), False, "73cec8be"),
    _lvd_row("vitl16", "DINOv3 ViT-L/16", 303.130, (1024, 24, 16, 4096), False, "8aa4cbdd"),
    BackboneSpec(
        "vitl16sat", "DINOv3 ViT-L/16, satellite", 303.130, 1024, 24, 16, 4096, False, "SAT-493M", SAT_MEAN, SAT_STD,
        hub_id="facebook/dinov3-vitl16-pretrain-sat493m", pth_name="dinov3_vitl16_pretrain_sat493m-eadcf0ff.pth",
    ),
    _lvd_row("vith16+", "DINOv3 ViT-H+/16", 840.593, (1280, 32, 20, 5120), True, "7c1da9a5"),
    BackboneSpec(
        "demo", "Small DINOv3-like model of the demonstration", 0, 0, 0, 0, 0, False,
        "synthetic aerial views", IMAGENET_MEAN, IMAGENET_STD, folder=Path(__file__).parent / "demo_weights",
    ),
)  # fmt: skip

BACKBONES: Mapping[str, BackboneSpec] = MappingProxyType({row.name: row for row in _ROWS})
"""The six DINOv3 backbones of the study, and the small model shipped for the demonstration."""


def table(custom: Sequence[CustomBackbone] = ()) -> Mapping[str, BackboneSpec]:
    """Return `BACKBONES` and the rows of the configuration's `[[backbones]]`.

    Raises ConfigError where a name is taken; names that differ in spelling only are the same name.
    """
    rows = dict(BACKBONES)
    names_by_slug = {row.slug: row.name for row in rows.values()}
    for entry in custom:
        row = _custom_row(entry)
        if row.slug in names_by_slug:
            raise ConfigError(
                f"[[backbones]] name {entry.name!r} is already taken by {names_by_slug[row.slug]!r}: "
                "choose another name"
            )
        names_by_slug[row.slug] = row.name
        rows[row.name] = row
    return MappingProxyType(rows)


def _custom_row(entry: CustomBackbone) -> BackboneSpec:
    return BackboneSpec(
        entry.name, entry.name, 0, 0, 0, 0, 0, False, "custom", entry.mean, entry.std,
        folder=entry.path.expanduser(), pooling=entry.pooling,
    )  # fmt: skip


def row(name: str, rows: Mapping[str, BackboneSpec] = BACKBONES) -> BackboneSpec:
    """Find the row called `name`, in its own spelling or as a slug; raises BackboneError listing the known names."""
    for spec in rows.values():
        if name in (spec.name, spec.slug):
            return spec
    raise BackboneError(
        f"unknown backbone {name!r}: known are {', '.join(rows)} "
        "(a model of your own is registered in coarseloc.toml under [[backbones]])"
    )
