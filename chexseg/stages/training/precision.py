"""The precision of a training (`stages.configuration.base.Precision`)."""

from __future__ import annotations

import torch


def use(precision: str) -> None:
    """Set the precision of this process's convolutions in float32; call it after `prepare`.

    Matrix products stay in float32: those of `affine_grid` compute coordinates.
    """
    torch.backends.cudnn.allow_tf32 = precision != "float32"


def autocast(precision: str, device: torch.device | str) -> torch.autocast:
    """Return the context of a forward pass: bfloat16 where that is the precision."""
    return torch.autocast(
        torch.device(device).type, torch.bfloat16, enabled=precision == "bfloat16"
    )
