"""Otsu's threshold of a map, and the score at which it cuts the map."""

from __future__ import annotations

import torch
from torch import Tensor

from chexseg.saliency.weak_masks import upsample

LEVELS = 256


def grey_levels(values: Tensor) -> Tensor:
    """Return 255 times the values, uint8: fractions are cut off, values above 1 become 255.

    A cast without the limit would wrap around, and make the strongest pixels background.
    """
    return (255 * values).clamp(0, 255).to(torch.uint8)


def otsu(levels_MP: Tensor) -> Tensor:
    """Return thresholds_M, int64, of M maps of P grey levels, uint8 (Otsu 1979).

    Levels above the threshold are foreground. The threshold maximises the variance between
    foreground and background, w0 w1 (mean0 - mean1)^2 with the shares w0 and w1 of the pixels; of
    equally good thresholds it is the lowest. A map of one level has the threshold 0.
    """
    levels_MP = levels_MP.to(torch.int64)
    # torch.bincount would wait for a GPU, to learn how many bins there are.
    counts_ML = torch.zeros(len(levels_MP), LEVELS, dtype=torch.int64, device=levels_MP.device)
    counts_ML.scatter_add_(1, levels_MP, torch.ones_like(levels_MP))
    counts_ML = counts_ML.double()
    levels_L = torch.arange(LEVELS, dtype=torch.float64, device=levels_MP.device)
    below_ML, sum_ML = counts_ML.cumsum(1), (counts_ML * levels_L).cumsum(1)
    total_M1, whole_M1 = below_ML[:, -1:], sum_ML[:, -1:]
    # w0 w1 (mean0 - mean1)^2, without fractions of the counts but in the last division.
    variance_ML = (sum_ML * total_M1 - whole_M1 * below_ML).square()
    product_ML = below_ML * (total_M1 - below_ML)
    variance_ML = torch.where(product_ML > 0, variance_ML / product_ML, 0)
    return variance_ML.argmax(1)  # the first of equal values


def thresholds(scores_NKhw: Tensor, maximum_NK: Tensor, size: int) -> Tensor:
    """Return thresholds_NK, float32: Otsu's threshold of each map, in units of its scores.

    The map is `maximum` times the scores, upsampled to size x size pixels, and in `grey_levels`.
    Upsampled scores above the threshold are its foreground. It lies between the highest score of
    the background and the lowest one of the foreground; without foreground it is infinite.
    """
    chosen = []
    for scores_Khw, maximum_K in zip(scores_NKhw, maximum_NK, strict=True):  # saves memory
        scores_KP = upsample(scores_Khw[None], size)[0].flatten(1)
        levels_KP = grey_levels(scores_KP * maximum_K[:, None])
        foreground_KP = levels_KP > otsu(levels_KP)[:, None]
        high_K = torch.where(foreground_KP, scores_KP, torch.inf).amin(1)
        low_K = torch.where(foreground_KP, 0, scores_KP).amax(1)
        chosen.append(between(low_K, high_K))
    return torch.stack(chosen) if chosen else maximum_NK.float()


def between(low: Tensor, high: Tensor) -> Tensor:
    """Return numbers from `low` to below `high`, in the middle if possible; infinity if it is."""
    middle = low + (high - low) / 2
    # The middle of two neighbouring numbers may be rounded to the upper one.
    return torch.where(high.isinf() | (middle < high), middle, low)
