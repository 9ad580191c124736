"""A laboratory's own model that is no DINOv3, by transformers; every failure mapped to one clear WeightsError.

transformers initialises missing tensors at random and only logs it; here that is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from coarseloc.core.errors import WeightsError
from coarseloc.embedding.tensor_faults import first_line, refuse_incomplete
from coarseloc.embedding.weights import LocatedWeights

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_model(weights: LocatedWeights) -> PreTrainedModel:
    """Load a folder's model in float32 on the CPU, in evaluation mode, checked tensor by tensor."""
    model, report = _from_folder(weights)
    _check_complete(report, weights)
    model.requires_grad_(False)
    model.eval()
    return model


def _from_folder(weights: LocatedWeights) -> tuple[PreTrainedModel, dict[str, Any]]:
    from transformers import AutoConfig, AutoModel

    try:
        config = AutoConfig.from_pretrained(weights.path, local_files_only=True)
    except Exception as error:  # it checks each field by classes of its own
        raise WeightsError(
            f"{weights.path}/config.json is not understood by transformers: {first_line(error)}"
        ) from error
    try:
        return _from_pretrained(AutoModel, weights.path, config)
    except Exception as error:  # a config.json may ask for any shape, and safetensors has a class of its own
        if type(error).__name__ != "SafetensorError":
            raise WeightsError(f"{weights.path} cannot be loaded: {first_line(error)}") from error
        raise WeightsError(
            f"{weights.path} holds a safetensors file that is truncated or damaged ({first_line(error)}): copy it again"
        ) from error


def _from_pretrained(model_class: Any, folder: Path, config: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Call `from_pretrained` without its progress bar and warnings; returns (model, report of its tensors)."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        loaded: tuple[PreTrainedModel, dict[str, Any]] = model_class.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            dtype=torch.float32,
            attn_implementation="sdpa",
            ignore_mismatched_sizes=True,  # so that the report names them; they are refused below
            output_loading_info=True,
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
    # A classification head left over is harmless.
    misshapen = sorted(key[0] if isinstance(key, tuple) else key for key in report["mismatched_keys"])
    refuse_incomplete(weights.path, weights.spec.name, missing, [], misshapen)
    if errors := report.get("error_msgs"):
        raise WeightsError(f"{weights.path} cannot be loaded: {first_line(errors[0])}")
