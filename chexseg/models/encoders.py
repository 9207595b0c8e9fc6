"""Encoders by name, the input normalisation each initialisation was trained with, and reading and writing of weights.

segmentation-models-pytorch is imported where an encoder of it is built or named: it brings timm and torchvision, whose
import takes longer than PyTorch's, and weights and pixels need neither.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from chexseg.errors import DamagedArtifactError, UserError, nearest
from chexseg.store import manifest

#: init -> (mean, std) of pixels in [0, 1]. ImageNet's weights want ImageNet's; all others CheXpert's (settings table).
CHEXPERT_NORMALISATION = ((0.5020,) * 3, (0.085585,) * 3)
IMAGENET_NORMALISATION = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def normalisation(init: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean_C, std_C) of the pixels in [0, 1] that an initialisation expects."""
    return IMAGENET_NORMALISATION if init == "imagenet" else CHEXPERT_NORMALISATION


def prepare(pixels_NHW: torch.Tensor, init: str) -> torch.Tensor:
    """Grey uint8 pixels -> normalised float images_NCHW of three equal channels, channels last in memory."""
    mean, std = (
        torch.tensor(values, device=pixels_NHW.device)[None, :, None, None]
        for values in normalisation(init)
    )
    images_NCHW = (pixels_NHW[:, None].float() / 255 - mean) / std
    return images_NCHW.contiguous(memory_format=torch.channels_last)


def check(architecture: str, field: str = "encoder.architecture") -> None:
    """Raises `UserError`, naming the field, for what is no encoder of segmentation-models-pytorch."""
    from segmentation_models_pytorch import encoders

    names = encoders.get_encoder_names()
    if architecture not in names:
        raise UserError(
            f"{field}: found {architecture!r}{nearest(architecture, names)}; allowed: {len(names)}"
            " encoders of segmentation-models-pytorch, resnet18, resnet34, resnet50 among them"
        )


def published_settings(architecture: str) -> Mapping[str, str] | None:
    """Where segmentation-models-pytorch has ImageNet weights: ``repo_id`` and ``revision``; None where it names none."""
    from segmentation_models_pytorch import encoders

    description = encoders.encoders.get(architecture, {})
    return description.get("pretrained_settings", {}).get("imagenet")


def torchvision_cache(architecture: str) -> Path | None:
    """The ImageNet weights that torchvision has downloaded to this machine before; None where there are none."""
    import torchvision

    try:
        weights = torchvision.models.get_model_weights(architecture)
    except ValueError:
        return None
    first = weights[
        "IMAGENET1K_V1"
    ]  # the one that segmentation-models-pytorch and the paper's time had
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(first.url).name
    return path if path.is_file() else None


def build(architecture: str) -> nn.Module:
    """A randomly initialised encoder of segmentation-models-pytorch. Raises `UserError` for an unknown name."""
    from segmentation_models_pytorch import encoders

    check(architecture)
    return encoders.get_encoder(architecture, in_channels=3, depth=5, weights=None)


def save(module: nn.Module, path: Path, **description: Any) -> None:
    """Weights as safetensors, with a JSON of the same name beside them saying what they are; whole or not at all."""
    state = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(description, indent=1, sort_keys=True))
    temporary.replace(path.with_suffix(".json"))
    save_file(state, temporary)
    temporary.replace(path)


def describe(path: Path) -> dict[str, Any]:
    """Return what `save` was told of the weights. Raises `DamagedArtifactError` as `manifest.verify`."""
    note = path.with_suffix(".json")
    try:
        return json.loads(manifest.read_bytes(note))
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise DamagedArtifactError(f"{note}: not JSON ({error})") from None


def fill(module: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Put weights into a module; every tensor must fit. Raises RuntimeError where they don't."""
    # Past the methods of the encoders themselves: some take no `strict`.
    nn.Module.load_state_dict(module, state, strict=True)


def load(module: nn.Module, path: Path) -> None:
    """Fill a module with our own weights. Raises `DamagedArtifactError` unless they are as they were written and every one fits."""
    manifest.verify(path)
    try:
        fill(module, load_file(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise DamagedArtifactError(
            f"{path}: weights don't fit ({str(error).splitlines()[0]})"
        ) from None
