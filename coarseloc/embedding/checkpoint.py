"""Meta's original `.pth` checkpoints: their tensors under the names that transformers uses, and back.

The mapping is exhaustive: a tensor that is missing, left over or of a wrong shape is an error.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from coarseloc.core.errors import WeightsError
from coarseloc.core.types import Float32
from coarseloc.embedding.specs import REGISTER_TOKENS, ROPE_THETA, BackboneSpec
from coarseloc.embedding.tensor_faults import first_line, list_keys, refuse_infinite

Tensors = Mapping[str, Tensor]

_OUTSIDE = {
    "cls_token": "embeddings.cls_token",
    "mask_token": "embeddings.mask_token",
    "storage_tokens": "embeddings.register_tokens",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.bias",
    "norm.weight": "norm.weight",
    "norm.bias": "norm.bias",
}
_IN_BLOCK = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attn.proj": "attention.o_proj",
    "mlp.fc1": "mlp.up_proj",
    "mlp.fc2": "mlp.down_proj",
    "mlp.w1": "mlp.gate_proj",
    "mlp.w2": "mlp.up_proj",
    "mlp.w3": "mlp.down_proj",
}
_PERIODS = "rope_embed.periods"
_LOCAL_NORM = ("local_cls_norm.weight", "local_cls_norm.bias")  # used in training only


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pth` file as saved, on the CPU. Code inside the file is never run."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"there is no file {path}") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is no plain file of tensors: it is damaged, or holds Python objects that would run code; "
            "use the file as Meta publishes it"
        ) from error
    except Exception as error:  # of damaged bytes the unpickler makes anything: IndexError, KeyError, struct.error …
        raise WeightsError(f"{path} cannot be read ({first_line(error)}): truncated? Copy it again") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        keys = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else type(content).__name__
        raise WeightsError(f"{path} holds {keys}; expected a flat dict of tensors, as Meta publishes it")
    return content


def to_transformers(original: Tensors, spec: BackboneSpec, source: str) -> dict[str, Float32]:
    """Original names → transformers' saved names, float32; every tensor is used or dropped for a stated reason.

    Raises WeightsError naming what is missing, left over, misshapen or not finite.
    """
    expected = original_shapes(spec)
    missing = sorted(expected.keys() - original.keys())
    extra = sorted(original.keys() - expected.keys() - {_PERIODS} - {k for k in original if k.endswith("bias_mask")})
    if missing or extra:
        faults = [list_keys(fault, keys) for fault, keys in (("missing", missing), ("left over", extra)) if keys]
        raise WeightsError(f"{source} is not {spec.name}: {'; '.join(faults)}; expected {len(expected)} tensors")
    shapes = [
        f"{k} {list(original[k].shape)}, expected {list(v)}" for k, v in expected.items() if original[k].shape != v
    ]
    if shapes:
        raise WeightsError(f"{source} is not {spec.name}: {'; '.join(shapes[:3])} ({len(shapes)} in all)")
    _check_periods(original, spec, source)
    mapped: dict[str, Tensor] = {}
    for key in expected.keys() - set(_LOCAL_NORM):
        mapped.update(_to_transformers_names(key, original, source))
    state = {name: tensor.numpy() for name, tensor in mapped.items()}
    refuse_infinite(state, source)
    return state


def _to_transformers_names(key: str, original: Tensors, source: str) -> dict[str, Tensor]:
    """One original tensor as one (or, of qkv, two or three) of transformers."""
    value = original[key].float()
    if key == "mask_token":
        return {_OUTSIDE[key]: value.unsqueeze(0)}
    if key in _OUTSIDE:
        return {_OUTSIDE[key]: value}
    _, layer, *within, kind = key.split(".")  # blocks.<layer>.<part>.<kind>
    part, prefix = ".".join(within), f"layer.{layer}"
    if part in ("ls1", "ls2"):
        return {f"{prefix}.layer_scale{part[-1]}.lambda1": value}
    if part != "attn.qkv":
        return {f"{prefix}.{_IN_BLOCK[part]}.{kind}": value}
    if kind == "bias":
        # The original multiplies the bias by its mask in every forward; we do so once.
        value = value * original.get(f"{key}_mask", torch.ones(())).float()
    parts = dict(zip("qkv", value.chunk(3), strict=True))
    if kind == "bias" and parts.pop("k").any():
        raise WeightsError(f"{source} has a key bias in {key}, which a DINOv3 of this table does not have")
    return {f"{prefix}.attention.{name}_proj.{kind}": part for name, part in parts.items()}


def _check_periods(original: Tensors, spec: BackboneSpec, source: str) -> None:
    """transformers computes the RoPE periods itself (the file's are rounded to bfloat16): they must agree."""
    if _PERIODS not in original:
        return
    head_dim = spec.dim // spec.heads
    expected = ROPE_THETA ** torch.arange(0, 1, 4 / head_dim)
    periods = original[_PERIODS].float()
    if periods.shape != expected.shape or not torch.allclose(periods, expected, rtol=1e-2):
        raise WeightsError(f"{source} has other RoPE periods than {spec.name}: it is another model")


def original_shapes(spec: BackboneSpec) -> dict[str, torch.Size]:
    """Names and shapes that the original checkpoint of a row must have, buffers aside."""
    d, mlp = spec.dim, spec.mlp
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, d),
        "mask_token": (1, d),
        "storage_tokens": (1, REGISTER_TOKENS, d),
        "patch_embed.proj.weight": (d, 3, spec.patch, spec.patch),
        "patch_embed.proj.bias": (d,),
        "norm.weight": (d,),
        "norm.bias": (d,),
    }
    if spec.pretraining == "SAT-493M":  # its presence tells the satellite ViT-L from the other one
        shapes |= dict.fromkeys(_LOCAL_NORM, (d,))
    linear = {"attn.qkv": (3 * d, d), "attn.proj": (d, d)}
    if spec.gated:
        linear |= {"mlp.w1": (mlp, d), "mlp.w2": (mlp, d), "mlp.w3": (d, mlp)}
    else:
        linear |= {"mlp.fc1": (mlp, d), "mlp.fc2": (d, mlp)}
    for i in range(spec.layers):
        for part, (out, into) in linear.items():
            shapes |= {f"blocks.{i}.{part}.weight": (out, into), f"blocks.{i}.{part}.bias": (out,)}
        for norm in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{norm}.weight": (d,), f"blocks.{i}.{norm}.bias": (d,)}
        shapes |= {f"blocks.{i}.ls1.gamma": (d,), f"blocks.{i}.ls2.gamma": (d,)}
    return {key: torch.Size(shape) for key, shape in shapes.items()}
