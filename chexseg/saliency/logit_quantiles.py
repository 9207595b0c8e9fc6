"""Thresholds with the best IoU among quantiles of the logits, from one pass over images.

A network trained at a high temperature has logits near 0: at 10, a student's may lie between -0.8
and 0.6, where the grid of `saliency.thresholds` has six values. Quantiles are dense wherever the
logits are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from chexseg.saliency.thresholds import DEFAULT_THRESHOLD

#: Candidate thresholds leave these shares of the pixels above them: 1 down to 1e-4, each 0.866 of
#: the one before. Structures cover between 0.0001 and all of an image.
SHARES: tuple[float, ...] = tuple(10 ** (-step / 16) for step in range(65))

#: Largest threshold as a logit. Above it, neighbouring float16 logits have the same float32
#: probability.
LARGEST = 10.0

#: Keys of float16 values in their order: -inf is -31,744, 0 is 0, inf is 31,744.
_INFINITE = 0x7C00
_BINS = 2 * _INFINITE + 1


def _keys(logits: Tensor) -> Tensor:
    """Return int32 keys of logits rounded to float16, in the order of the values; NaN as -inf."""
    bits = logits.to(torch.float32).nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    bits = bits.to(torch.float16).view(torch.int16).to(torch.int32)
    return torch.where(bits < 0, -(bits & 0x7FFF), bits)


def _values(keys: Tensor) -> Tensor:
    """Return the float64 values of keys."""
    bits = keys.abs().to(torch.int16).view(torch.float16).to(torch.float64)
    return torch.where(keys < 0, -bits, bits)


@dataclass(frozen=True)
class LogitHistogram:
    """Pixel counts by pathology, truth and logit, pooled over images, as `thresholds.Histogram`.

    counts_K2B: int64. The second axis is false, true. Bin b counts the logits of which float16
        has the key b - 31,744.
    """

    counts_K2B: Tensor

    @classmethod
    def empty(cls, pathologies: int, device: torch.device | str | None = None) -> LogitHistogram:
        """Return the histogram of no image, to start a sum."""
        return cls(torch.zeros(pathologies, 2, _BINS, dtype=torch.int64, device=device))

    @classmethod
    def of(cls, logits_NKHW: Tensor, masks_NKHW: Tensor) -> LogitHistogram:
        """Return the histogram of one batch. Masks are bool; both are on one device.

        Raises ValueError if the shapes differ or the masks are not bool.
        """
        if logits_NKHW.shape != masks_NKHW.shape or masks_NKHW.dtype != torch.bool:
            raise ValueError(
                f"found logits {tuple(logits_NKHW.shape)} and {masks_NKHW.dtype} masks"
                f" {tuple(masks_NKHW.shape)}; expected one shape, bool masks"
            )
        pathologies = logits_NKHW.shape[1]
        index_NKHW = _keys(logits_NKHW) + _INFINITE + _BINS * masks_NKHW.to(torch.int32)
        first_bin_K = torch.arange(pathologies, dtype=torch.int32, device=index_NKHW.device)
        index_NKHW += (2 * _BINS * first_bin_K)[:, None, None]
        counts = torch.bincount(index_NKHW.flatten(), minlength=pathologies * 2 * _BINS)
        return cls(counts.view(pathologies, 2, _BINS))

    def __add__(self, other: LogitHistogram) -> LogitHistogram:
        return LogitHistogram(self.counts_K2B + other.counts_K2B.to(self.counts_K2B.device))

    def best(self) -> tuple[Tensor, Tensor]:
        """Return thresholds_K with the best pooled IoU, and these iou_K; both float64.

        A threshold is a probability: the sigmoid of a logit halfway between two float16 values. Of
        equally good ones it is the lowest. A pathology without a true pixel gets
        `DEFAULT_THRESHOLD` and NaN.
        """
        device = self.counts_K2B.device
        # Pixels above each bin, including none; above[..., b] is positive at a cut after bin b.
        above_K2B = self.counts_K2B.flip(2).cumsum(2).flip(2)
        above_K2B = torch.cat([above_K2B[..., 1:], torch.zeros_like(above_K2B[..., :1])], dim=2)
        predicted_KB, intersection_KB = above_K2B.sum(1), above_K2B[:, 1]
        true_K1 = self.counts_K2B[:, 1].sum(1, keepdim=True)
        pixels_K1 = self.counts_K2B.sum((1, 2))[:, None].double()
        # The lowest cut that leaves at most each share of the pixels. Counts fall with the bin.
        shares_S = torch.tensor(SHARES, dtype=torch.float64, device=device)
        wanted_KS = pixels_K1 * shares_S
        cuts_KS = _BINS - torch.searchsorted(
            predicted_KB.flip(1).double().contiguous(), wanted_KS, right=True
        )
        largest = int(_keys(torch.tensor(LARGEST))) + _INFINITE
        cuts_KS = cuts_KS.clamp(max=largest)
        intersection_KS = intersection_KB.gather(1, cuts_KS)
        union_KS = predicted_KB.gather(1, cuts_KS) + true_K1 - intersection_KS
        iou_KS = torch.where(true_K1 > 0, intersection_KS.double() / union_KS, torch.nan)
        # argmax, unlike max, guarantees the first of equal values; cuts rise with the index.
        index_K1 = iou_KS.nan_to_num(nan=-1.0).argmax(1, keepdim=True)
        keys_K = cuts_KS.gather(1, index_K1)[:, 0] - _INFINITE
        between_K = (_values(keys_K) + _values((keys_K + 1).clamp(max=_INFINITE))) / 2
        occurs_K = true_K1[:, 0] > 0
        thresholds_K = torch.where(occurs_K, between_K.sigmoid(), DEFAULT_THRESHOLD)
        return thresholds_K, iou_KS.gather(1, index_K1)[:, 0]
