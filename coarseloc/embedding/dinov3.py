"""A DINOv3 ViT's tensors and numbers, from a Hugging Face folder or Meta's `.pth`; every failure is one clear
WeightsError.

Read without transformers, whose import takes longer than a small model's, and a folder in float32 without torch. Names
are those that transformers saves; a test holds names, shapes and defaults to its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import safetensors
from pydantic import BaseModel, BeforeValidator, ConfigDict, PositiveFloat, PositiveInt, ValidationError
from safetensors.numpy import load_file

from coarseloc.core.errors import WeightsError
from coarseloc.core.types import Float32
from coarseloc.embedding.specs import LAYER_NORM_EPS, REGISTER_TOKENS, ROPE_THETA, BackboneSpec
from coarseloc.embedding.tensor_faults import first_line, refuse_incomplete, refuse_infinite
from coarseloc.embedding.weights import LocatedWeights, read_json, weight_files

MODEL_TYPE = "dinov3_vit"
_BFLOAT16 = "BF16"
_PREFIXES = ("dinov3_vit.", "model.")  # of tensors that were saved within another model


def _square(value: Any) -> Any:
    """A patch's side, of its height and width."""
    return value[0] if isinstance(value, list | tuple) and len(set(value)) == 1 else value


class VitConfig(BaseModel):
    """What config.json says of the architecture, with transformers' defaults."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    patch_size: Annotated[PositiveInt, BeforeValidator(_square)] = 16
    hidden_size: PositiveInt = 384
    intermediate_size: PositiveInt = 1536
    num_hidden_layers: PositiveInt = 12
    num_attention_heads: PositiveInt = 6
    hidden_act: Literal["gelu", "silu"] = "gelu"
    layer_norm_eps: PositiveFloat = 1e-5
    rope_theta: PositiveFloat = 100.0
    query_bias: bool = True
    key_bias: bool = False
    value_bias: bool = True
    proj_bias: bool = True
    mlp_bias: bool = True
    use_gated_mlp: bool = False
    num_register_tokens: Annotated[int, BeforeValidator(int)] = 0


@dataclass(frozen=True, slots=True)
class VitWeights:
    """`state`: float32, under the names of `tensor_shapes`."""

    state: Mapping[str, Float32]
    config: VitConfig


def is_readable(weights: LocatedWeights) -> bool:
    """Whether `load` reads these: a DINOv3 ViT's. Other models are transformers'."""
    if weights.kind == "pth":
        return True
    stated = read_json(weights.path / "config.json")
    return stated.get("model_type") == MODEL_TYPE and stated.get("hidden_act", "gelu") in ("gelu", "silu")


def load(weights: LocatedWeights) -> VitWeights:
    """Read them, checked tensor by tensor against the row or config.json.

    Raises WeightsError naming what is missing, left over, misshapen, not finite or not to be read.
    """
    spec = weights.spec
    if weights.kind == "pth":
        from coarseloc.embedding import checkpoint  # torch reads them

        state = checkpoint.to_transformers(checkpoint.read(weights.path), spec, str(weights.path))
        return VitWeights(state, VitConfig(**config_values(spec)))
    config = _config(weights)
    expected = tensor_shapes(config)
    state = _tensors(weights)
    # A classification head left over in a laboratory's own folder is harmless; in the six it is another model.
    extra = sorted(state.keys() - expected.keys()) if spec.is_dinov3 else []
    misshapen = sorted(name for name in expected.keys() & state.keys() if state[name].shape != expected[name])
    refuse_incomplete(weights.path, spec.name, sorted(expected.keys() - state.keys()), extra, misshapen)
    state = {name: state[name] for name in expected}
    refuse_infinite(state, str(weights.path))
    return VitWeights(state, config)


def tensor_shapes(config: VitConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors, as transformers saves them."""
    d, mlp, patch = config.hidden_size, config.intermediate_size, config.patch_size
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, d),
        "embeddings.mask_token": (1, 1, d),
        "embeddings.register_tokens": (1, config.num_register_tokens, d),
        "embeddings.patch_embeddings.weight": (d, 3, patch, patch),
        "embeddings.patch_embeddings.bias": (d,),
        "norm.weight": (d,),
        "norm.bias": (d,),
    }
    linear = {
        "attention.q_proj": (d, d, config.query_bias),
        "attention.k_proj": (d, d, config.key_bias),
        "attention.v_proj": (d, d, config.value_bias),
        "attention.o_proj": (d, d, config.proj_bias),
        "mlp.up_proj": (mlp, d, config.mlp_bias),
        "mlp.down_proj": (d, mlp, config.mlp_bias),
    }
    if config.use_gated_mlp:
        linear["mlp.gate_proj"] = (mlp, d, config.mlp_bias)
    for layer in range(config.num_hidden_layers):
        for name, (out, into, bias) in linear.items():
            shapes[f"layer.{layer}.{name}.weight"] = (out, into)
            if bias:
                shapes[f"layer.{layer}.{name}.bias"] = (out,)
        for number in (1, 2):
            shapes |= {f"layer.{layer}.norm{number}.{kind}": (d,) for kind in ("weight", "bias")}
            shapes[f"layer.{layer}.layer_scale{number}.lambda1"] = (d,)
    return shapes


def config_values(spec: BackboneSpec) -> dict[str, Any]:
    """The arguments of transformers' DINOv3ViTConfig for a row of the table."""
    return {
        "patch_size": spec.patch,
        "hidden_size": spec.dim,
        "intermediate_size": spec.mlp,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "use_gated_mlp": spec.gated,
        "hidden_act": "silu" if spec.gated else "gelu",
        "num_register_tokens": REGISTER_TOKENS,
        "layer_norm_eps": LAYER_NORM_EPS,
        "rope_theta": ROPE_THETA,
        "query_bias": True,
        "key_bias": False,
        "value_bias": True,
        "proj_bias": True,
        "mlp_bias": True,
    }


def _config(weights: LocatedWeights) -> VitConfig:
    path = weights.path / "config.json"
    try:
        config = VitConfig.model_validate(read_json(path))
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise WeightsError(f"{path} is not understood: {'; '.join(faults[:3])}") from error
    if config.hidden_size % (4 * config.num_attention_heads):
        raise WeightsError(
            f"{path} has hidden_size {config.hidden_size} and {config.num_attention_heads} heads: expected a multiple "
            "of 4 for each head"
        )
    if weights.spec.is_dinov3:
        conflicts = [
            f"{name} {getattr(config, name)!r}, expected {value!r}"
            for name, value in config_values(weights.spec).items()
            if getattr(config, name) != value
        ]
        if conflicts:
            raise WeightsError(
                f"{weights.path} is another architecture than {weights.spec.name}: config.json has "
                f"{'; '.join(conflicts)}"
            )
    return config


def needs_torch(weights: LocatedWeights) -> bool:
    """Whether torch must read these: Meta's `.pth`, and bfloat16, which numpy has not got."""
    if weights.kind == "pth":
        return True
    return any(_BFLOAT16 in _dtypes(path) for path in weight_files(weights.path))


def _tensors(weights: LocatedWeights) -> dict[str, Float32]:
    """All tensors of a folder's safetensors files, by bare names; copied, since a file may be replaced meanwhile."""
    state: dict[str, Float32] = {}
    for path in weight_files(weights.path):
        read = _read_by_torch if _BFLOAT16 in _dtypes(path) else load_file
        with _readable(path):
            tensors = read(path)
        for name, tensor in tensors.items():
            for prefix in _PREFIXES:
                name = name.removeprefix(prefix)
            state[name] = np.asarray(tensor, np.float32)
    return state


def _read_by_torch(path: Path) -> dict[str, Float32]:
    from safetensors.torch import load_file

    return {name: tensor.float().numpy() for name, tensor in load_file(path).items()}


def _dtypes(path: Path) -> set[str]:
    """The types of a file's tensors, as its header spells them."""
    with _readable(path), safetensors.safe_open(path, "numpy") as file:
        return {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118  # no mapping


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (safetensors.SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is a safetensors file that is truncated or damaged ({first_line(error)}): copy it again"
        ) from error
