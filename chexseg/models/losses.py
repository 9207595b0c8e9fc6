"""The losses of the classifier, the segmenter and the student."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from chexseg.models.distributed import all_reduce_sum


def _at_least_float32(values: Tensor) -> Tensor:
    # Sums over a batch's pixels leave float16's range and bfloat16's precision, so mixed precision ends here.
    return values.to(torch.promote_types(values.dtype, torch.float32))


def class_average_dice(logits_NKHW: Tensor, masks_NKHW: Tensor) -> Tensor:
    """1 - mean over K of (2 I + 1) / (P + G + 1); I, P and G are summed over batch and pixels (paper, appendix B.2).

    The batch is that of all workers together.

    P sums the sigmoid of the logits, G the masks, I their product. Masks are 0/1 of any dtype, or soft in [0, 1].
    The 1 is the smoothing of the authors' code: a pathology neither predicted nor there costs nothing.
    """
    probabilities_NKHW = _at_least_float32(logits_NKHW).sigmoid()
    masks_NKHW = masks_NKHW.to(probabilities_NKHW.dtype)
    sums = [
        values.sum((0, 2, 3))
        for values in (probabilities_NKHW * masks_NKHW, probabilities_NKHW, masks_NKHW)
    ]
    intersection_K, predicted_K, true_K = all_reduce_sum(torch.stack(sums))
    return 1 - ((2 * intersection_K + 1) / (predicted_K + true_K + 1)).mean()


def cross_entropy(logits_NKHW: Tensor, masks_NKHW: Tensor) -> Tensor:
    """Binary cross-entropy per pixel and pathology, mean over all. Masks as in `class_average_dice`."""
    logits_NKHW = _at_least_float32(logits_NKHW)
    return F.binary_cross_entropy_with_logits(logits_NKHW, masks_NKHW.to(logits_NKHW.dtype))


#: What a segmenter may be trained with on masks: (logits_NKHW, masks_NKHW) -> loss.
SEGMENTATION: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "class-average-dice": class_average_dice,
    "cross-entropy": cross_entropy,
}


def distillation(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 10.0
) -> Tensor:
    """Binary cross-entropy of sigmoid(student / T) against sigmoid(teacher / T), mean over all (paper, appendix B.4).

    Both tensors have one shape, any. No gradient goes to the teacher. As in the authors' code, no factor T ** 2.
    """
    targets = (_at_least_float32(teacher_logits.detach()) / temperature).sigmoid()
    return F.binary_cross_entropy_with_logits(
        _at_least_float32(student_logits) / temperature, targets
    )


def classification(logits_NL: Tensor, labels_NL: Tensor) -> Tensor:
    """Binary cross-entropy over CheXpert's L observations; labels are 1, 0 or NaN, and NaN is ignored.

    The mean over the labels that aren't ignored; where all are, 0 with a gradient of zeros.
    """
    logits_NL = _at_least_float32(logits_NL)
    ignored_NL = labels_NL.isnan()
    targets_NL = labels_NL.to(logits_NL.dtype).masked_fill(ignored_NL, 0)
    losses_NL = F.binary_cross_entropy_with_logits(logits_NL, targets_NL, reduction="none")
    return losses_NL.masked_fill(ignored_NL, 0).sum() / (~ignored_NL).sum().clamp(min=1)


class LossMonitor:
    """The losses of an epoch, each read when the next one is on its way, so that a GPU never waits for its host."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self._pending: tuple[Tensor, torch.cuda.Event, Callable[[], str]] | None = None

    def add(self, loss: Tensor, where: Callable[[], str]) -> None:
        """Take in a step's loss, a scalar; `where` tells of the step in an error.

        Raises FloatingPointError if the loss, or on a GPU the one before it, isn't finite.
        """
        if loss.device.type == "cpu":
            self._read(loss, where)
            return
        host = torch.empty((), dtype=loss.dtype, pin_memory=True).copy_(loss, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        before, self._pending = self._pending, (host, event, where)
        self._finish(before)

    def mean(self) -> float:
        """The mean of all losses taken in. Raises as `add` does."""
        pending, self._pending = self._pending, None
        self._finish(pending)
        return sum(self.values) / len(self.values)

    def _finish(self, pending: tuple[Tensor, torch.cuda.Event, Callable[[], str]] | None) -> None:
        if pending is not None:
            host, event, where = pending
            event.synchronize()
            self._read(host, where)

    def _read(self, loss: Tensor, where: Callable[[], str]) -> None:
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value} {where()}")
        self.values.append(value)
