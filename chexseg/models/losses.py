"""Losses of the classifier, the segmenter and the student, and a check that they are finite."""

from __future__ import annotations

import math
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


class LossMonitor:
    """Collects the losses of an epoch and raises an error for one that is not finite.

    On a GPU a loss is read one step later, so that the GPU never waits for the host.
    """

    def __init__(self) -> None:
        self.values: list[float] = []
        self._pending: tuple[Tensor, torch.cuda.Event, Callable[[], str]] | None = None

    def add(self, loss: Tensor, describe: Callable[[], str]) -> None:
        """Add the loss of a step, a scalar; `describe` returns the step's description for errors.

        Raises FloatingPointError if the loss, or on a GPU the one before it, is not finite.
        """
        if loss.device.type == "cpu":
            self._read(loss, describe)
            return
        host = torch.empty((), dtype=loss.dtype, pin_memory=True).copy_(loss, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        previous, self._pending = self._pending, (host, event, describe)
        self._finish(previous)

    def mean(self) -> float:
        """Return the mean of all losses. Raises as `add` does."""
        pending, self._pending = self._pending, None
        self._finish(pending)
        return sum(self.values) / len(self.values)

    def _finish(self, pending: tuple[Tensor, torch.cuda.Event, Callable[[], str]] | None) -> None:
        if pending is not None:
            host, event, describe = pending
            event.synchronize()
            self._read(host, describe)

    def _read(self, loss: Tensor, describe: Callable[[], str]) -> None:
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value} {describe()}")
        self.values.append(value)
