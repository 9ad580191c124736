"""True architectures with random weights: as fast as the real ones, and of no use for anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from coarseloc.embedding import dinov3
from coarseloc.embedding.specs import BackboneSpec


def write_random_weights(row: BackboneSpec, folder: Path, seed: int = 0, layers: int | None = None) -> None:
    """Write one of the six as a Hugging Face folder, whole or with its first `layers` only."""
    values = dinov3.config_values(row) | ({} if layers is None else {"num_hidden_layers": layers})
    write_random_model(values, folder, seed)


def write_random_model(values: dict[str, Any], folder: Path, seed: int = 0) -> None:
    """Write a DINOv3 of these configuration values as a Hugging Face folder.

    Matrices keep the scale of what passes through them, norms, biases and layer scales are random too: at their
    initial zeros and ones, every image would have nearly the same embedding.
    """
    from transformers import DINOv3ViTConfig, DINOv3ViTModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    with torch.device("meta"):
        model = DINOv3ViTModel(DINOv3ViTConfig(**values))
    model = model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            matrix = tensor.ndim > 1 and "token" not in name
            middle = 1.0 if "norm" in name and name.endswith("weight") else 0.5 if "lambda1" in name else 0.0
            tensor.normal_(middle, tensor[0].numel() ** -0.5 if matrix else 0.1, generator=generator)
    model.save_pretrained(folder)
