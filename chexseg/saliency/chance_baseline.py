"""Chance baseline of a mask: a square of the same area, placed at random in the image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def expected_intersection(true_NKHW: Tensor, predicted_NK: Tensor) -> Tensor:
    """Return intersection_NK, float64: the mean overlap of a random square with the true mask.

    The square's side is the rounded root of predicted_NK pixels, and all positions within the image
    are equally likely. The mean is exact, from summed areas, and scaled to the number of predicted
    pixels.
    """
    height, width = true_NKHW.shape[-2:]
    out_NK = torch.zeros(true_NKHW.shape[:2], dtype=torch.float64)
    for n, k in (predicted_NK.cpu() > 0).nonzero().tolist():
        pixels = int(predicted_NK[n, k])
        side = min(max(1, round(pixels**0.5)), height, width)
        corner_HW = F.pad(true_NKHW[n, k].double(), (1, 0, 1, 0)).cumsum(0).cumsum(1)
        inside_HW = (
            corner_HW[side:, side:]
            - corner_HW[:-side, side:]
            - corner_HW[side:, :-side]
            + corner_HW[:-side, :-side]
        )
        out_NK[n, k] = inside_HW.mean() * pixels / side**2
    return out_NK
