"""Weak masks from stored scores: upsampled, thresholded, and empty where the label is negative."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from chexseg.saliency.thresholds import binarise


def upsample(scores_NKhw: Tensor, size: int) -> Tensor:
    """Return scores resized bilinearly to size x size pixels, float32."""
    return F.interpolate(
        scores_NKhw.float(), size=(size, size), mode="bilinear", align_corners=False
    )


def weak_masks(scores_NKhw: Tensor, thresholds_K: Tensor, present_NK: Tensor, size: int) -> Tensor:
    """Return masks_NKHW, bool: True where a score is above its pathology's threshold.

    Scores are scaled by their own maximum, in [0, 1]. A False in present_NK empties the mask (paper
    README: the image-level labels of training images are known).
    """
    present_NK = present_NK.to(scores_NKhw.device)
    images, pathologies = present_NK.nonzero(as_tuple=True)
    masks_NKHW = torch.zeros(
        (*present_NK.shape, size, size), dtype=torch.bool, device=scores_NKhw.device
    )
    if len(
        images
    ):  # most pathologies are absent from most images, so only present ones are resized
        scores_1MHW = upsample(scores_NKhw[images, pathologies][None], size)
        masks_NKHW[images, pathologies] = binarise(
            scores_1MHW, thresholds_K.to(scores_NKhw.device)[pathologies]
        )[0]
    return masks_NKHW


def possibly_present(labels_NK: Tensor) -> Tensor:
    """Return present_NK: True for positive (1) and uncertain (-1) labels, False for 0 and NaN."""
    return labels_NK.nan_to_num(nan=0).ne(0)
