"""Test thresholds from quantiles of logits, and from real-valued targets, against trying each."""

from __future__ import annotations

import math

import pytest
import torch

from chexseg.saliency import thresholds as thresholds_module
from chexseg.saliency.logit_quantiles import LARGEST, SHARES, LogitHistogram
from chexseg.saliency.thresholds import DEFAULT_THRESHOLD, GRID, Histogram, TargetHistogram


def students(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits near 0, as at temperature 10, and masks that follow them; both (4, 3, 32, 32).

    The logits are multiples of 1/1024, which float16 holds exactly.
    """
    torch.manual_seed(seed)
    logits = (torch.randn(4, 3, 32, 32) * 0.2 * 1024).round() / 1024
    masks = logits + 0.1 * torch.randn_like(logits) > torch.tensor([0.1, 0.3, 9]).view(3, 1, 1)
    return logits, masks


def naive(logits: torch.Tensor, masks: torch.Tensor) -> tuple[float, float]:
    """Return (largest excluded logit, IoU) of the best quantile of one pathology, one by one."""
    values = sorted(logits.flatten().tolist())
    best = (math.nan, -1.0)
    for share in SHARES:
        allowed = share * len(values)
        # The lowest value above which at most this share of the pixels lies.
        cut = next(
            value
            for value in [-math.inf, *sorted(set(values))]
            if sum(other > value for other in values) <= allowed
        )
        predicted = logits > cut
        iou = ((predicted & masks).sum() / (predicted | masks).sum()).item()
        if iou > best[1]:
            best = (cut, iou)
    return best


@pytest.mark.parametrize("seed", range(2))
def test_the_best_quantile_is_the_one_of_trying_each(seed):
    logits, masks = students(seed)
    logits, masks = logits[..., ::3, ::3], masks[..., ::3, ::3]
    thresholds, iou = LogitHistogram.of(logits, masks).best()
    for k in range(2):
        cut, best = naive(logits[:, k], masks[:, k])
        assert iou[k].item() == pytest.approx(best, abs=1e-6)
        predicted = logits[:, k].sigmoid() > thresholds[k].float()
        assert torch.equal(predicted, logits[:, k] > cut)
    assert thresholds[2] == DEFAULT_THRESHOLD and iou[2].isnan()


def test_quantiles_are_better_than_the_grid_where_logits_are_near_zero():
    logits, masks = students()
    _, quantiles = LogitHistogram.of(logits, masks).best()
    _, grid = Histogram.of(logits.sigmoid(), masks).best()
    assert (quantiles[:2] > grid[:2]).all()


def test_sums_of_batches_are_the_histogram_of_all():
    logits, masks = students()
    total = LogitHistogram.empty(3)
    for part in range(4):
        total = total + LogitHistogram.of(logits[part : part + 1], masks[part : part + 1])
    assert torch.equal(total.counts_K2B, LogitHistogram.of(logits, masks).counts_K2B)
    assert total.counts_K2B.sum() == logits.numel()


def test_extreme_logits_and_nan_give_usable_thresholds():
    logits = torch.tensor([-math.inf, -1e6, -20.0, 30.0, 1e6, math.inf, math.nan, 0.0])
    logits = logits.view(1, 1, 2, 4)
    masks = logits > 5
    thresholds, iou = LogitHistogram.of(logits, masks).best()
    assert torch.equal(logits.sigmoid() > thresholds[0].float(), masks) and iou[0] == 1
    assert thresholds[0] <= torch.tensor(LARGEST + 0.01).sigmoid()


def test_masks_that_are_no_masks_are_refused():
    with pytest.raises(ValueError, match="expected one shape, bool masks"):
        LogitHistogram.of(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4))


def test_mask_targets_have_the_thresholds_of_a_histogram():
    logits, masks = students()
    thresholds, iou = TargetHistogram.of(logits.sigmoid(), masks).best()
    expected = Histogram.of(logits.sigmoid(), masks).best()
    assert torch.equal(thresholds, expected[0])
    assert torch.allclose(iou, expected[1], equal_nan=True)


def test_a_histogram_grows_in_place_and_may_sum_parts_of_the_pixels_first():
    """As it does on a GPU."""
    logits, masks = students()
    scores = logits.sigmoid()
    scores[0, 0, 0] = math.nan
    targets = 4 * logits - 1
    total = TargetHistogram.empty(logits.shape[1])
    sums = total.sums_2KB
    assert total.add_(scores, targets).add_(scores, masks) is total
    of_parts = (TargetHistogram.of(scores, values).sums_2KB for values in (targets, masks))
    assert total.sums_2KB is sums
    assert torch.equal(sums, sum(of_parts))
    rows = len(scores) * scores.shape[2]
    in_parts = thresholds_module._sums_2KB(scores, targets, rows)
    torch.testing.assert_close(in_parts, TargetHistogram.of(scores, targets).sums_2KB)
    assert torch.equal(
        thresholds_module._sums_2KB(scores, masks, rows), TargetHistogram.of(scores, masks).sums_2KB
    )


def test_raw_teacher_logits_are_compared_as_if_they_were_masks():
    """The published fault: sums of logits stand for intersections and true pixels."""
    torch.manual_seed(1)
    scores, targets = torch.rand(3, 2, 8, 8), torch.randn(3, 2, 8, 8) + 0.3
    total = TargetHistogram.empty(2)
    for part in range(3):
        total.add_(scores[part : part + 1], targets[part : part + 1])
    thresholds, values = total.best()
    for k in range(2):
        best, chosen = -math.inf, math.nan
        for threshold in GRID:
            intersection = predicted = true = 0.0
            for score, target in zip(
                scores[:, k].flatten().tolist(), targets[:, k].flatten().tolist(), strict=True
            ):
                true += target
                if score > threshold:
                    predicted += 1
                    intersection += target
            if (value := intersection / (predicted + true - intersection)) > best:
                best, chosen = value, threshold
        assert thresholds[k].item() == pytest.approx(chosen)
        assert values[k].item() == pytest.approx(best)
