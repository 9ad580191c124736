"""A backbone's transformers model from its located weights, every failure mapped to one clear WeightsError.

transformers initialises missing tensors at random and only logs it; here that is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from coarseloc.core.errors import WeightsError
from coarseloc.embedding import checkpoint
from coarseloc.embedding.specs import BackboneSpec
from coarseloc.embedding.weights import LocatedWeights, read_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_model(weights: LocatedWeights) -> PreTrainedModel:
    """Load the model in float32 on the CPU, in evaluation mode, checked tensor by tensor against the row."""
    model, report = _from_pth(weights) if weights.kind == "pth" else _from_folder(weights)
    _check_complete(report, weights)
    model.requires_grad_(False)
    model.eval()
    return model


def _from_pth(weights: LocatedWeights) -> tuple[PreTrainedModel, dict[str, Any]]:
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    original = checkpoint.read(weights.path)
    state = checkpoint.to_transformers(original, weights.spec, str(weights.path))
    config = DINOv3ViTConfig(**checkpoint.config_values(weights.spec))
    return _from_pretrained(DINOv3ViTModel, None, config=config, state_dict=state)


def _from_folder(weights: LocatedWeights) -> tuple[PreTrainedModel, dict[str, Any]]:
    from transformers import AutoConfig, AutoModel

    _check_normalisation(weights)
    try:
        config = AutoConfig.from_pretrained(weights.path, local_files_only=True)
    except Exception as error:  # it checks each field by classes of its own
        raise WeightsError(
            f"{weights.path}/config.json is not understood by transformers: {checkpoint.first_line(error)}"
        ) from error
    if weights.spec.is_dinov3:
        _check_config(config, weights)
    try:
        return _from_pretrained(AutoModel, weights.path, config=config)
    except Exception as error:  # a config.json may ask for any shape, and safetensors has a class of its own
        if type(error).__name__ != "SafetensorError":
            raise WeightsError(f"{weights.path} cannot be loaded: {checkpoint.first_line(error)}") from error
        raise WeightsError(
            f"{weights.path} holds a safetensors file that is truncated or damaged ({checkpoint.first_line(error)}): "
            "copy it again"
        ) from error


def _from_pretrained(model_class: Any, source: Any, **arguments: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Call `from_pretrained` without its progress bar and warnings; returns (model, report of its tensors)."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        loaded: tuple[PreTrainedModel, dict[str, Any]] = model_class.from_pretrained(
            source,
            local_files_only=True,
            dtype=torch.float32,
            attn_implementation="sdpa",
            ignore_mismatched_sizes=True,  # so that the report names them; they are refused below
            output_loading_info=True,
            **arguments,
        )
        return loaded
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def _check_complete(report: dict[str, Any], weights: LocatedWeights) -> None:
    missing = sorted(report["missing_keys"])
    if weights.spec.pooling != "pooler":  # an unused head may be absent: many ViT folders have no pooler
        missing = [key for key in missing if not key.startswith("pooler.")]
    # A classification head left over in a laboratory's own folder is harmless; in the six it is another model.
    extra = sorted(report["unexpected_keys"]) if weights.spec.is_dinov3 else []
    misshapen = sorted(key[0] if isinstance(key, tuple) else key for key in report["mismatched_keys"])
    faults = [
        checkpoint.list_keys(fault, keys)
        for fault, keys in (("missing", missing), ("left over", extra), ("of another shape", misshapen))
        if keys
    ]
    faults += [checkpoint.first_line(text) for text in report.get("error_msgs") or []]
    if faults:
        raise WeightsError(
            f"{weights.path} does not hold all of {weights.spec.name}: {'; '.join(faults)}. Copy it again"
        )


def _check_config(config: Any, weights: LocatedWeights) -> None:
    conflicts = [
        f"{key} {getattr(config, key, None)!r}, expected {value!r}"
        for key, value in checkpoint.config_values(weights.spec).items()
        if getattr(config, key, None) != value
    ]
    if conflicts:
        raise WeightsError(
            f"{weights.path} is another architecture than {weights.spec.name}: config.json has {'; '.join(conflicts)}"
        )


def _check_normalisation(weights: LocatedWeights) -> None:
    """Raise WeightsError where the folder states another mean or std than the row: that error would be silent."""
    path = weights.path / "preprocessor_config.json"
    if weights.spec.is_dinov3 or not path.is_file():
        return
    stated = read_json(path)
    for key, ours in (("image_mean", weights.spec.mean), ("image_std", weights.spec.std)):
        theirs = stated.get(key)
        if theirs is not None and not _is_close(theirs, ours):
            raise WeightsError(
                f"{path} states {key} {theirs}, the [[backbones]] row of {weights.spec.name} has {list(ours)}: "
                f"correct {key.removeprefix('image_')} in the row"
            )


def _is_close(theirs: Any, ours: tuple[float, float, float]) -> bool:
    return len(theirs) == 3 and all(abs(a - b) < 1e-3 for a, b in zip(theirs, ours, strict=True))


def build_empty(spec: BackboneSpec) -> PreTrainedModel:
    """Build a row's architecture on the meta device: names and shapes without numbers."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    with torch.device("meta"):
        return DINOv3ViTModel(DINOv3ViTConfig(**checkpoint.config_values(spec)))
