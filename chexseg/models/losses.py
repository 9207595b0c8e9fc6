"""The losses of the classifier, the segmenter and the student."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def _at_least_float32(values: Tensor) -> Tensor:
    # Sums over a batch's pixels leave float16's range and bfloat16's precision, so mixed precision ends here.
    return values.to(torch.promote_types(values.dtype, torch.float32))


def class_average_dice(logits_NKHW: Tensor, masks_NKHW: Tensor) -> Tensor:
    """1 - mean over K of (2 I + 1) / (P + G + 1); I, P and G are summed over batch and pixels (paper, appendix B.2).

    P sums the sigmoid of the logits, G the masks, I their product. Masks are 0/1 of any dtype, or soft in [0, 1].
    The 1 is the smoothing of the authors' code: a pathology neither predicted nor there costs nothing.
    """
    probabilities_NKHW = _at_least_float32(logits_NKHW).sigmoid()
    masks_NKHW = masks_NKHW.to(probabilities_NKHW.dtype)
    intersection_K = (probabilities_NKHW * masks_NKHW).sum((0, 2, 3))
    predicted_K = probabilities_NKHW.sum((0, 2, 3))
    true_K = masks_NKHW.sum((0, 2, 3))
    return 1 - ((2 * intersection_K + 1) / (predicted_K + true_K + 1)).mean()


def distillation(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 10.0) -> Tensor:
    """Binary cross-entropy of sigmoid(student / T) against sigmoid(teacher / T), mean over all (paper, appendix B.4).

    Both tensors have one shape, any. No gradient goes to the teacher. As in the authors' code, no factor T ** 2.
    """
    targets = (_at_least_float32(teacher_logits.detach()) / temperature).sigmoid()
    return F.binary_cross_entropy_with_logits(_at_least_float32(student_logits) / temperature, targets)


def classification(logits_NL: Tensor, labels_NL: Tensor) -> Tensor:
    """Binary cross-entropy over CheXpert's L observations; labels are 1, 0 or NaN, and NaN is ignored.

    The mean over the labels that aren't ignored; where all are, 0 with a gradient of zeros.
    """
    logits_NL = _at_least_float32(logits_NL)
    ignored_NL = labels_NL.isnan()
    targets_NL = labels_NL.to(logits_NL.dtype).masked_fill(ignored_NL, 0)
    losses_NL = F.binary_cross_entropy_with_logits(logits_NL, targets_NL, reduction="none")
    return losses_NL.masked_fill(ignored_NL, 0).sum() / (~ignored_NL).sum().clamp(min=1)
