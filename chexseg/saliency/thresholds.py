"""The threshold with the best IoU for each pathology, from histograms filled in one pass over the images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: The thresholds tried: 0, 0.05 .. 0.95 (paper README, "output thresholds").
GRID: tuple[float, ...] = tuple(step / 20 for step in range(20))

#: The threshold of a pathology without a single true pixel, for which every threshold is as good.
DEFAULT_THRESHOLD = 0.5


def binarise(scores_NKHW: Tensor, thresholds_K: Tensor) -> Tensor:
    """masks_NKHW, bool: where a score is strictly above its pathology's threshold, both taken as float32."""
    thresholds_K11 = thresholds_K.to(scores_NKHW.device, torch.float32)[:, None, None]
    return scores_NKHW.to(torch.float32) > thresholds_K11


@dataclass(frozen=True)
class Histogram:
    """Pixels by pathology, truth and score, pooled over images; every threshold's IoU follows from it.

    Add histograms to pool them: ``total = total + Histogram.of(scores_NKHW, masks_NKHW)``, in any order, from any
    process; the left one's device wins.

    counts_K2B: int64. The second axis is false, true. Bin b holds the scores with exactly b thresholds of `GRID` below
        them, so a pixel is positive at threshold t (strictly above it) where b > t.
    """

    counts_K2B: Tensor

    @classmethod
    def empty(cls, pathologies: int, device: torch.device | str | None = None) -> Histogram:
        """The histogram of no image, to start a sum from."""
        return cls(torch.zeros(pathologies, 2, len(GRID) + 1, dtype=torch.int64, device=device))

    @classmethod
    def of(cls, scores_NKHW: Tensor, masks_NKHW: Tensor) -> Histogram:
        """The histogram of one batch. Scores are in [0, 1], masks bool; both on one device.

        Scores are compared with the thresholds in float32, as `binarise` does; a NaN is positive at no threshold.
        Raises ValueError where the shapes differ or the masks aren't bool.
        """
        if scores_NKHW.shape != masks_NKHW.shape or masks_NKHW.dtype != torch.bool:
            raise ValueError(
                f"scores {tuple(scores_NKHW.shape)} and {masks_NKHW.dtype} masks {tuple(masks_NKHW.shape)}; "
                "allowed: one shape, bool masks"
            )
        pathologies, bins = scores_NKHW.shape[1], len(GRID) + 1
        grid = torch.tensor(GRID, dtype=torch.float32, device=scores_NKHW.device)
        # bucketize would sort NaN above every threshold, but no comparison with NaN is true.
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
        """True pixels G, int64."""
        return self.counts_K2B[:, 1].sum(1)

    def intersection_KT(self) -> Tensor:
        """Pixels both true and predicted, I, at each threshold of `GRID`, int64."""
        return _above(self.counts_K2B[:, 1])

    def predicted_KT(self) -> Tensor:
        """Predicted pixels P at each threshold of `GRID`, int64."""
        return _above(self.counts_K2B.sum(1))

    def iou_KT(self) -> Tensor:
        """I / (P + G - I) at each threshold of `GRID`, float64; NaN for a pathology without true pixels."""
        intersection_KT, true_K1 = self.intersection_KT(), self.true_K()[:, None]
        union_KT = self.predicted_KT() + true_K1 - intersection_KT
        return torch.where(true_K1 > 0, intersection_KT.double() / union_KT, torch.nan)

    def best(self) -> tuple[Tensor, Tensor]:
        """thresholds_K (float32) with the best pooled IoU, and that iou_K (float64).

        Of equally good thresholds it's the lowest, as when trying them in order and keeping only a better one. A
        pathology without a true pixel gets `DEFAULT_THRESHOLD` and NaN.
        """
        known_K = self.true_K() > 0
        grid = torch.tensor(GRID, dtype=torch.float32, device=known_K.device)
        iou_KT = self.iou_KT()
        index_K = iou_KT.nan_to_num(nan=-1.0).argmax(
            1
        )  # argmax, unlike max, promises the first of equals
        iou_K = iou_KT.gather(1, index_K[:, None])[:, 0]
        return torch.where(known_K, grid[index_K], DEFAULT_THRESHOLD), iou_K


def _above(counts_KB: Tensor) -> Tensor:
    """For each threshold t the sum of the bins b > t."""
    return counts_KB.flip(1).cumsum(1).flip(1)[:, 1:]
