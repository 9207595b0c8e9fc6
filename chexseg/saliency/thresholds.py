"""Thresholds with the best IoU per pathology, from histograms filled in one pass over images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: Candidate thresholds: 0, 0.05 .. 0.95 (paper README, "output thresholds").
GRID: tuple[float, ...] = tuple(step / 20 for step in range(20))

#: Threshold of a pathology without a true pixel, for which all thresholds are equally good.
DEFAULT_THRESHOLD = 0.5


def binarise(scores_NKHW: Tensor, thresholds_K: Tensor) -> Tensor:
    """Return masks_NKHW, bool: True where a score exceeds its pathology's threshold, in float32."""
    thresholds_K11 = thresholds_K.to(scores_NKHW.device, torch.float32)[:, None, None]
    return scores_NKHW.to(torch.float32) > thresholds_K11


@dataclass(frozen=True)
class Histogram:
    """Pixel counts by pathology, truth and score, pooled over images. They give all IoUs.

    Add histograms to pool them: ``total = total + Histogram.of(scores_NKHW, masks_NKHW)``, in any
    order and from any process. The sum is on the left one's device.

    counts_K2B: int64. The second axis is false, true. Bin b counts the scores with exactly b
        thresholds of `GRID` below them, so a pixel is positive at threshold number t if b > t.
    """

    counts_K2B: Tensor

    @classmethod
    def empty(cls, pathologies: int, device: torch.device | str | None = None) -> Histogram:
        """Return the histogram of no image, to start a sum."""
        return cls(torch.zeros(pathologies, 2, len(GRID) + 1, dtype=torch.int64, device=device))

    @classmethod
    def of(cls, scores_NKHW: Tensor, masks_NKHW: Tensor) -> Histogram:
        """Return the histogram of one batch. Scores are in [0, 1], masks bool; both on one device.

        Scores are compared with the thresholds in float32, as in `binarise`. A NaN is positive at
        no threshold. Raises ValueError if the shapes differ or the masks are not bool.
        """
        if scores_NKHW.shape != masks_NKHW.shape or masks_NKHW.dtype != torch.bool:
            raise ValueError(
                f"found scores {tuple(scores_NKHW.shape)} and {masks_NKHW.dtype} masks"
                f" {tuple(masks_NKHW.shape)}; expected one shape, bool masks"
            )
        pathologies, bins = scores_NKHW.shape[1], len(GRID) + 1
        grid = torch.tensor(GRID, dtype=torch.float32, device=scores_NKHW.device)
        # bucketize sorts NaN above all thresholds, but no comparison with NaN is true.
        scores_NKHW = scores_NKHW.to(torch.float32).nan_to_num(nan=-1.0)
        index_NKHW = torch.bucketize(scores_NKHW.contiguous(), grid, out_int32=True)
        first_bin_K = (
            2 * bins * torch.arange(pathologies, dtype=torch.int32, device=scores_NKHW.device)
        )
        index_NKHW += first_bin_K[:, None, None] + bins * masks_NKHW.to(torch.int32)
        counts = torch.bincount(index_NKHW.flatten(), minlength=pathologies * 2 * bins)
        return cls(counts.view(pathologies, 2, bins))

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(self.counts_K2B + other.counts_K2B.to(self.counts_K2B.device))

    def true_K(self) -> Tensor:
        """Return the true pixels G, int64."""
        return self.counts_K2B[:, 1].sum(1)

    def intersection_KT(self) -> Tensor:
        """Return the pixels I that are true and predicted, at each threshold of `GRID`, int64."""
        return _above(self.counts_K2B[:, 1])

    def predicted_KT(self) -> Tensor:
        """Return the predicted pixels P at each threshold of `GRID`, int64."""
        return _above(self.counts_K2B.sum(1))

    def iou_KT(self) -> Tensor:
        """Return I / (P + G - I) at each threshold of `GRID`, float64; NaN without true pixels."""
        intersection_KT, true_K1 = self.intersection_KT(), self.true_K()[:, None]
        union_KT = self.predicted_KT() + true_K1 - intersection_KT
        return torch.where(true_K1 > 0, intersection_KT.double() / union_KT, torch.nan)

    def best(self) -> tuple[Tensor, Tensor]:
        """Return thresholds_K (float32) with the best pooled IoU, and these iou_K (float64).

        Of equally good thresholds it is the lowest. A pathology without a true pixel gets
        `DEFAULT_THRESHOLD` and NaN.
        """
        occurs_K = self.true_K() > 0
        grid = torch.tensor(GRID, dtype=torch.float32, device=occurs_K.device)
        iou_KT = self.iou_KT()
        # argmax, unlike max, guarantees the first of equal values.
        index_K = iou_KT.nan_to_num(nan=-1.0).argmax(1)
        iou_K = iou_KT.gather(1, index_K[:, None])[:, 0]
        return torch.where(occurs_K, grid[index_K], DEFAULT_THRESHOLD), iou_K


def _above(counts_KB: Tensor) -> Tensor:
    """Return for each threshold t the sum of the bins b > t."""
    return counts_KB.flip(1).cumsum(1).flip(1)[:, 1:]


def _sums_2KB(scores_NKHW: Tensor, targets_NKHW: Tensor, parts: int) -> Tensor:
    """Return pixels and sums of targets by pathology and bin, float64.

    parts: how many parts of equal size a pathology's pixels are divided into; each is summed first.
    """
    pathologies = scores_NKHW.shape[1]
    # GRID in a tensor, without a copy from the host.
    grid = (torch.arange(len(GRID), dtype=torch.float64, device=scores_NKHW.device) / 20).float()
    scores_KPi, targets_KPi = (
        values_NKHW.transpose(0, 1).reshape(pathologies, parts, -1)
        for values_NKHW in (scores_NKHW.to(torch.float32).nan_to_num(nan=-1.0), targets_NKHW)
    )
    index_KPi = torch.bucketize(scores_KPi.contiguous(), grid)
    targets_KPi = targets_KPi.to(torch.float64)
    sums_2KPB = targets_KPi.new_zeros(2, pathologies, parts, len(GRID) + 1)
    for sums_KPB, values_KPi in zip(
        sums_2KPB, (targets_KPi.new_ones(()).expand_as(targets_KPi), targets_KPi), strict=True
    ):
        sums_KPB.scatter_add_(2, index_KPi, values_KPi)
    return sums_2KPB.sum(2)


@dataclass(frozen=True)
class TargetHistogram:
    """Pixel counts and sums of real-valued targets by pathology and score, pooled over batches.

    For masks its IoUs are those of `Histogram`. Targets may be any numbers, such as the raw logits
    of a teacher, with which the published code compares its students (a fault).

    sums_2KB: float64. The first axis is pixels, targets; bins are those of `Histogram`.
    """

    sums_2KB: Tensor

    @classmethod
    def empty(cls, pathologies: int, device: torch.device | str | None = None) -> TargetHistogram:
        """Return the histogram of no image, to start a sum."""
        shape = (2, pathologies, len(GRID) + 1)
        return cls(torch.zeros(shape, dtype=torch.float64, device=device))

    @classmethod
    def of(cls, scores_NKHW: Tensor, targets_NKHW: Tensor) -> TargetHistogram:
        """Return the histogram of one batch. Scores are in [0, 1]; both tensors have one shape."""
        return cls.empty(scores_NKHW.shape[1], scores_NKHW.device).add_(scores_NKHW, targets_NKHW)

    def add_(self, scores_NKHW: Tensor, targets_NKHW: Tensor) -> TargetHistogram:
        """Add a batch, as in `of`, in place, and return this histogram.

        On a GPU the host doesn't wait, and nothing is copied from it.
        """
        images, pathologies, height, _ = scores_NKHW.shape
        # On a GPU, additions to one bin take turns, so every row of pixels gets its own bins. On a
        # CPU this would only change the order of summation.
        parts = images * height if scores_NKHW.device.type == "cuda" else 1
        self.sums_2KB.add_(_sums_2KB(scores_NKHW, targets_NKHW, parts))
        return self

    def best(self) -> tuple[Tensor, Tensor]:
        """Return thresholds_K (float32) with the best I / (P + G - I), and these values (float64).

        I sums the targets of positive pixels, P counts positive pixels, G sums all targets. Of
        equally good thresholds it is the lowest. A pathology without any target other than 0 gets
        `DEFAULT_THRESHOLD` and NaN.
        """
        pixels_KB, targets_KB = self.sums_2KB
        intersection_KT, predicted_KT = _above(targets_KB), _above(pixels_KB)
        true_K1 = targets_KB.sum(1, keepdim=True)
        iou_KT = intersection_KT / (predicted_KT + true_K1 - intersection_KT)
        occurs_K = (targets_KB != 0).any(1)
        grid = torch.tensor(GRID, dtype=torch.float32, device=occurs_K.device)
        index_K = iou_KT.nan_to_num(nan=-torch.inf).argmax(1)
        iou_K = iou_KT.gather(1, index_K[:, None])[:, 0]
        return (
            torch.where(occurs_K, grid[index_K], DEFAULT_THRESHOLD),
            torch.where(occurs_K, iou_K, torch.nan),
        )
