"""The segmenter: DeepLabV3+ (Chen et al. 2018) from segmentation-models-pytorch, one logit a pathology and pixel."""

from __future__ import annotations

import segmentation_models_pytorch as smp
import torch
from torch import nn

from chexseg.errors import UserError
from chexseg.models import encoders


def build(architecture: str, pathologies: int) -> smp.DeepLabV3Plus:
    """A randomly initialised DeepLabV3+ over an encoder by name. Raises `UserError` for one that it can't have."""
    encoders.check(architecture)
    try:
        model = smp.DeepLabV3Plus(architecture, encoder_weights=None, in_channels=3, classes=pathologies)
    except ValueError as error:
        raise UserError(f"encoder.architecture: found {architecture!r}; allowed: one that can be dilated ({error})") from None
    return model.to(memory_format=torch.channels_last)


def stride4_logits(model: smp.DeepLabV3Plus, images_NCHW: torch.Tensor) -> torch.Tensor:
    """logits_NKhw before the head's last bilinear upsampling: all that the model knows, in a sixteenth of the room."""
    decoded = model.decoder(model.encoder(images_NCHW))
    return model.segmentation_head[0](decoded)


def upsample(logits_NKhw: torch.Tensor) -> torch.Tensor:
    """Stride-4 logits -> logits at full size, exactly as the model's own head does it."""
    return nn.functional.interpolate(logits_NKhw, scale_factor=4, mode="bilinear", align_corners=True)
