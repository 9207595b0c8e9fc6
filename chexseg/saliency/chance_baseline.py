"""What a mask would score by its area alone: a square of as many pixels, placed anywhere in the image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def expected_intersection(true_NKHW: Tensor, predicted_NK: Tensor) -> Tensor:
    """intersection_NK, float64: pixels that a random square shares with the true mask, the mean over all its places.

    The square has the side nearest to the root of predicted_NK pixels, lies within the image and may be at every place
    with equal chance. Exact, by summed areas, not sampled; scaled to the very number of predicted pixels.
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
