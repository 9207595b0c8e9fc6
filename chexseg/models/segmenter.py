"""The segmenter: DeepLabV3+ (Chen et al. 2018) with one logit per pathology and pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import segmentation_models_pytorch as smp
import torch
from torch import nn

from chexseg.errors import DamagedArtifactError, UserError, reason
from chexseg.models import encoders
from chexseg.pathologies import PATHOLOGIES

#: The largest `size` of a study, in pixels.
LARGEST = 2048


def build(architecture: str, pathologies: int) -> smp.DeepLabV3Plus:
    """Return a DeepLabV3+ with random weights. Raises `UserError` for an unusable encoder."""
    encoders.check(architecture)
    try:
        model = smp.DeepLabV3Plus(
            architecture, encoder_weights=None, in_channels=3, classes=pathologies
        )
    except ValueError as error:
        raise UserError(
            f"encoder.architecture: found {architecture!r};"
            f" expected an encoder that can be dilated ({error})"
        ) from None
    return model.to(memory_format=torch.channels_last)


def describe(weights: Path) -> dict[str, Any]:
    """Return the architecture, init, pathologies, thresholds and size of a segmenter.

    They are in the JSON file next to its weights.

    Raises `DamagedArtifactError` unless each pathology is one of the ten and occurs once, with one
    threshold between 0 and 1.
    """
    path = weights.with_suffix(".json")
    try:
        fields = encoders.describe(weights)
        names, thresholds = fields["pathologies"], fields["thresholds"]
        architecture, init, size = fields["architecture"], fields["init"], fields["size"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        fault = f"{error} missing" if isinstance(error, KeyError) else reason(error)
        raise DamagedArtifactError(
            f"{path}: not the description of a segmenter ({fault}); expected the one from `fit`"
        ) from None
    if (
        not isinstance(names, list)
        or not names
        or any(names.count(name) > 1 or name not in PATHOLOGIES for name in names)
    ):
        raise DamagedArtifactError(
            f"{path}: pathologies: found {names!r};"
            f" expected a list of these, each once: {', '.join(PATHOLOGIES)}"
        )
    if (
        not isinstance(thresholds, list)
        or len(thresholds) != len(names)
        or not all(map(_is_score, thresholds))
    ):
        raise DamagedArtifactError(
            f"{path}: thresholds: found {thresholds!r};"
            f" expected {len(names)} numbers from 0 to 1, one for each of the pathologies"
        )
    if not isinstance(architecture, str) or not isinstance(init, str):
        raise DamagedArtifactError(
            f"{path}: architecture, init: found {architecture!r}, {init!r}; expected two names"
        )
    if not isinstance(size, int) or not 32 <= size <= LARGEST or size % 32:
        raise DamagedArtifactError(
            f"{path}: size: found {size!r:.40}; expected a multiple of 32 up to {LARGEST} pixels"
        )
    return fields


def _is_score(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def stride4_logits(model: smp.DeepLabV3Plus, images_NCHW: torch.Tensor) -> torch.Tensor:
    """Return logits_NKhw before the head's bilinear upsampling, at a sixteenth of the size."""
    decoded = model.decoder(model.encoder(images_NCHW))
    return cast(torch.Tensor, model.segmentation_head[0](decoded))


def upsample(logits_NKhw: torch.Tensor) -> torch.Tensor:
    """Return stride-4 logits at full size, upsampled exactly as in the model's head."""
    return nn.functional.interpolate(
        logits_NKhw, scale_factor=4, mode="bilinear", align_corners=True
    )
