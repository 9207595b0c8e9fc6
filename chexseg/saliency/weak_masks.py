"""Weak masks from stored scores: upsampled, thresholded, and empty where the label is negative."""

from __future__ import annotations

import numpy as np
import scipy.ndimage
import torch
import torch.nn.functional as F
from torch import Tensor

from chexseg.saliency.thresholds import binarise


def upsample(scores_NKhw: Tensor, size: int) -> Tensor:
    """Return scores resized bilinearly to size x size pixels, float32."""
    return F.interpolate(
        scores_NKhw.float(), size=(size, size), mode="bilinear", align_corners=False
    )


def weak_masks(
    scores_NKhw: Tensor,
    thresholds: Tensor,
    present_NK: Tensor,
    size: int,
    fill_holes: bool = False,
) -> Tensor:
    """Return masks_NKHW, bool: True where a score is above its threshold.

    Scores are scaled by their own maximum, in [0, 1]. thresholds: of pathologies (K), or of images
    and pathologies (N, K). A False in present_NK empties the mask (paper README: the image-level
    labels of training images are known). fill_holes: see `filled`.
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
        thresholds_NK = thresholds.to(scores_NKhw.device).expand(present_NK.shape)
        masks_MHW = binarise(scores_1MHW, thresholds_NK[images, pathologies])[0]
        masks_NKHW[images, pathologies] = filled(masks_MHW) if fill_holes else masks_MHW
    return masks_NKHW


def filled(masks_MHW: Tensor) -> Tensor:
    """Return the masks with all that their outer contours enclose.

    A pixel of the background stays background if a path of background pixels that share edges
    leads to the border of the image. Computed on the CPU; the result is on the masks' device.
    """
    out = []
    for mask_HW in masks_MHW.cpu().numpy():
        # scipy.ndimage.binary_fill_holes gives the same and takes 16 times as long.
        parts_HW, number = scipy.ndimage.label(~mask_HW)
        outside = np.zeros(number + 1, dtype=bool)
        for edge in (parts_HW[0], parts_HW[-1], parts_HW[:, 0], parts_HW[:, -1]):
            outside[edge] = True
        outside[0] = False  # the mask
        out.append(~outside[parts_HW])
    return torch.from_numpy(np.stack(out)).to(masks_MHW.device) if out else masks_MHW


def possibly_present(labels_NK: Tensor) -> Tensor:
    """Return present_NK: True for positive (1) and uncertain (-1) labels, False for 0 and NaN."""
    return labels_NK.nan_to_num(nan=0).ne(0)
