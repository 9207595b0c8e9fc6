"""Encoders by name, the input normalisation of each initialisation, and files of weights.

segmentation-models-pytorch is imported inside functions: it imports timm and torchvision, which
take longer than PyTorch, and code that only handles weights and pixels needs neither.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialized
from torch import Tensor, nn

from chexseg.errors import DamagedArtifactError, UserError, nearest, reason
from chexseg.store import manifest
from chexseg.untrusted import bounded_json

#: (mean, std) of pixels in [0, 1]. ImageNet weights expect ImageNet's, all others CheXpert's
#: (the paper's table of settings).
CHEXPERT_NORMALISATION = ((0.5020,) * 3, (0.085585,) * 3)
IMAGENET_NORMALISATION = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def normalisation(init: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the (mean_C, std_C) of pixels in [0, 1] that an initialisation expects."""
    return IMAGENET_NORMALISATION if init == "imagenet" else CHEXPERT_NORMALISATION


def prepare(pixels_NHW: Tensor, init: str) -> Tensor:
    """Return grey uint8 pixels as normalised float images_NCHW with three equal channels.

    The memory format is channels last. Nothing is copied from the host.
    """
    scaled_NHW = pixels_NHW.float() / 255
    channels = list(zip(*normalisation(init), strict=True))
    # Equal channels are computed once. On a GPU, division by a number would be multiplication by
    # its inverse, which rounds differently; by a tensor it is division.
    normalised = {
        (mean, std): (scaled_NHW - mean) / scaled_NHW.new_full((), std)
        for mean, std in dict.fromkeys(channels)
    }
    images, height, width = pixels_NHW.shape
    images_NCHW = torch.empty(
        (images, len(channels), height, width),
        device=pixels_NHW.device,
        memory_format=torch.channels_last,
    )
    for number, channel in enumerate(channels):
        images_NCHW[:, number] = normalised[channel]
    return images_NCHW


def check(architecture: str, field: str = "encoder.architecture") -> None:
    """Raise `UserError`, naming the field, unless segmentation-models-pytorch has the encoder."""
    from segmentation_models_pytorch import encoders

    names = encoders.get_encoder_names()
    if architecture not in names:
        raise UserError(
            f"{field}: found {architecture!r}{nearest(architecture, names)}; expected one of"
            f" {len(names)} encoders of segmentation-models-pytorch, such as resnet18 or resnet50"
        )


def published_settings(architecture: str) -> Mapping[str, str] | None:
    """Return ``repo_id`` and ``revision`` of the published ImageNet weights, or None."""
    from segmentation_models_pytorch import encoders

    description: Mapping[str, Any] = encoders.encoders.get(architecture, {})
    settings: Mapping[str, Mapping[str, str]] = description.get("pretrained_settings", {})
    return settings.get("imagenet")


def check_digest(path: Path) -> None:
    """Raise `UserError` unless a cached download has the SHA-256 in its name, if that has one.

    torchvision writes the first digits before the ending. Hugging Face's files are links to files
    named by all 64 digits.
    """
    named = re.search(r"-([0-9a-f]{8,64})\.", path.name) or re.fullmatch(
        r"([0-9a-f]{64})", path.resolve().name
    )
    if named is None:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[: len(named[1])]
    if digest != named[1]:
        raise UserError(
            f"{path}: SHA-256: found {digest}; expected {named[1]}, as in its name;"
            " hint: delete the file, so that it is downloaded again"
        )


def torchvision_cache(architecture: str) -> Path | None:
    """Return the file of ImageNet weights in torchvision's download cache, or None."""
    import torchvision

    try:
        weights = torchvision.models.get_model_weights(architecture)
    except ValueError:
        return None
    # The paper and segmentation-models-pytorch use the first version.
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights["IMAGENET1K_V1"].url).name
    return path if path.is_file() else None


def build(architecture: str) -> Any:
    """Return an encoder with random weights. Raises `UserError` for an unknown architecture.

    It is a module of segmentation-models-pytorch, which has no types.
    """
    from segmentation_models_pytorch import encoders

    check(architecture)
    return encoders.get_encoder(architecture, in_channels=3, depth=5, weights=None)


def save(module: nn.Module, path: Path, **description: Any) -> None:
    """Write weights as safetensors, and their description as a JSON file, both atomically."""
    state = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(description, indent=1, sort_keys=True))
    temporary.replace(path.with_suffix(".json"))
    # safetensors itself would write a file that only this user reads, and no OSError if it can't.
    temporary.write_bytes(serialized(state))
    temporary.replace(path)


def describe(path: Path) -> dict[str, Any]:
    """Return the description passed to `save`. Raises as `manifest.verify`."""
    note = path.with_suffix(".json")
    try:
        return cast(dict[str, Any], bounded_json.loads(manifest.read_bytes(note)))
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise DamagedArtifactError(f"{note}: not JSON ({error})") from None


def fill(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a complete state dict into a module. Raises RuntimeError unless every tensor fits."""
    # Bypasses the encoders' own methods, some of which take no `strict`.
    nn.Module.load_state_dict(module, state, strict=True)


def load(module: nn.Module, path: Path) -> None:
    """Load weights written by `save`. Raises `DamagedArtifactError` if damaged or not fitting."""
    manifest.verify(path)
    try:
        fill(module, load_file(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise DamagedArtifactError(f"{path}: weights don't fit ({reason(error)})") from None
