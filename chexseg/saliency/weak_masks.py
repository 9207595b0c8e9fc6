"""From stored saliency scores to weak masks: upsample, threshold, and nothing where the label says there is nothing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from chexseg.saliency.thresholds import binarise


def upsampled(scores_NKhw: Tensor, size: int) -> Tensor:
    """Scores at their native resolution -> scores_NKHW (float32) of size x size pixels, bilinear."""
    return F.interpolate(
        scores_NKhw.float(), size=(size, size), mode="bilinear", align_corners=False
    )


def weak_masks(scores_NKhw: Tensor, thresholds_K: Tensor, present_NK: Tensor, size: int) -> Tensor:
    """masks_NKHW, bool: scores above their pathology's threshold, in images where the pathology may be present.

    scores are scaled by their own maximum, in [0, 1]; present_NK is bool: False empties the mask (paper README: the
    image-level labels of training images are known).
    """
    present_NK = present_NK.to(scores_NKhw.device)
    images, pathologies = present_NK.nonzero(as_tuple=True)
    masks_NKHW = torch.zeros(
        (*present_NK.shape, size, size), dtype=torch.bool, device=scores_NKhw.device
    )
    if len(images):  # most pathologies are absent from most images: only what may be there is drawn
        found_1MHW = upsampled(scores_NKhw[images, pathologies][None], size)
        masks_NKHW[images, pathologies] = binarise(
            found_1MHW, thresholds_K.to(scores_NKhw.device)[pathologies]
        )[0]
    return masks_NKHW


def possible(labels_NK: Tensor) -> Tensor:
    """present_NK: where a pathology may be, its label being positive (1) or uncertain (-1); not where 0 or blank (NaN)."""
    return labels_NK.nan_to_num(nan=0).ne(0)
