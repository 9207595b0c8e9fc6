"""Losses of the classifier, the segmenter and the student."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from chexseg.models.distributed import all_reduce_sum


def _at_least_float32(values: Tensor) -> Tensor:
    # Sums over a batch's pixels exceed float16's range and bfloat16's precision.
    return values.to(torch.promote_types(values.dtype, torch.float32))


def class_average_dice(logits_NKHW: Tensor, masks_NKHW: Tensor) -> Tensor:
    """Return 1 - mean over K of (2 I + 1) / (P + G + 1) (paper, appendix B.2).

    P sums the sigmoid of the logits, G the masks and I their product, over pixels and the batch of
    all workers. Masks are 0/1 of any dtype, or soft in [0, 1]. The 1 is the smoothing term of the
    authors' code: a pathology that is neither predicted nor present costs nothing.
    """
    probabilities_NKHW = _at_least_float32(logits_NKHW).sigmoid()
    masks_NKHW = masks_NKHW.to(probabilities_NKHW.dtype)
    sums = [
        values.sum((0, 2, 3))
        for values in (probabilities_NKHW * masks_NKHW, probabilities_NKHW, masks_NKHW)
    ]
    intersection_K, predicted_K, true_K = all_reduce_sum(torch.stack(sums))
    return cast(Tensor, 1 - ((2 * intersection_K + 1) / (predicted_K + true_K + 1)).mean())


def cross_entropy(logits_NKHW: Tensor, masks_NKHW: Tensor) -> Tensor:
    """Return the mean binary cross-entropy over all pixels and pathologies.

    Masks are as in `class_average_dice`.
    """
    logits_NKHW = _at_least_float32(logits_NKHW)
    return F.binary_cross_entropy_with_logits(logits_NKHW, masks_NKHW.to(logits_NKHW.dtype))


#: Name -> loss on masks, a function of (logits_NKHW, masks_NKHW).
SEGMENTATION: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "class-average-dice": class_average_dice,
    "cross-entropy": cross_entropy,
}


def distillation(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 10.0
) -> Tensor:
    """Return the mean binary cross-entropy of sigmoid(student / T) against sigmoid(teacher / T).

    Both tensors have the same shape, which may be any. The teacher gets no gradient. As in the
    authors' code there is no factor T ** 2. Source: paper, appendix B.4.
    """
    targets = (_at_least_float32(teacher_logits.detach()) / temperature).sigmoid()
    return F.binary_cross_entropy_with_logits(
        _at_least_float32(student_logits) / temperature, targets
    )


def classification(logits_NL: Tensor, labels_NL: Tensor) -> Tensor:
    """Return the mean binary cross-entropy over CheXpert's L observations.

    Labels are 1, 0 or NaN. NaN is ignored; if all are NaN, the loss is 0 with a zero gradient. The
    mean is over the labels of all workers.
    """
    logits_NL = _at_least_float32(logits_NL)
    ignored_NL = labels_NL.isnan()
    targets_NL = labels_NL.to(logits_NL.dtype).masked_fill(ignored_NL, 0)
    losses_NL = F.binary_cross_entropy_with_logits(logits_NL, targets_NL, reduction="none")
    total = losses_NL.masked_fill(ignored_NL, 0).sum()
    count = (~ignored_NL).sum().to(total.dtype)
    total, count = all_reduce_sum(torch.stack([total, count]))
    return cast(Tensor, total / count.clamp(min=1))
