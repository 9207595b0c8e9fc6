"""Histograms against trying each threshold by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from chexseg.saliency.thresholds import DEFAULT_THRESHOLD, GRID, Histogram, binarise

DECIMALS = [
    0.0,
    0.05,
    0.1,
    0.15,
    0.2,
    0.25,
    0.3,
    0.35,
    0.4,
    0.45,
    0.5,
    0.55,
    0.6,
    0.65,
    0.7,
    0.75,
    0.8,
    0.85,
    0.9,
    0.95,
]


def by_hand(scores, masks):
    """(I, P, G) at each threshold, (K, T, 3), in NumPy's float32."""
    scores = scores.float().numpy()
    masks = masks.numpy()
    rows = []
    for k in range(scores.shape[1]):
        for threshold in DECIMALS:
            predicted = scores[:, k] > np.float32(threshold)
            rows.append([(predicted & masks[:, k]).sum(), predicted.sum(), masks[:, k].sum()])
    return np.array(rows).reshape(scores.shape[1], len(DECIMALS), 3)


def best_by_hand(counts):
    """Keep a threshold only if it is better than all before it."""
    thresholds, ious = [], []
    for rows in counts:
        best, iou = DEFAULT_THRESHOLD, math.nan
        for threshold, (intersection, predicted, true) in zip(DECIMALS, rows.tolist(), strict=True):
            if true:
                candidate = intersection / (predicted + true - intersection)
                if math.isnan(iou) or candidate > iou:
                    best, iou = threshold, candidate
        thresholds.append(best)
        ious.append(iou)
    return thresholds, ious


def random_batch(seed, exact, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(3, 4, 9, 11, generator=generator)
    if exact:  # most values are a threshold or one float32 step beside it
        grid = torch.tensor([*DECIMALS, 1.0])
        values = torch.stack(
            [grid, grid.nextafter(torch.tensor(2.0)), grid.nextafter(torch.tensor(-1.0)).relu()]
        )
        scores = values.flatten()[torch.randint(values.numel(), scores.shape, generator=generator)]
    masks = torch.rand(scores.shape, generator=generator) < scores
    masks[:, 2] = False
    return scores.to(dtype), masks


def test_the_grid():
    assert list(GRID) == DECIMALS


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_every_threshold_as_by_hand(exact, dtype):
    batches = [random_batch(seed, exact, dtype) for seed in range(3)]
    pooled = sum((Histogram.of(*batch) for batch in batches), Histogram.empty(4))
    counts = by_hand(
        torch.cat([scores for scores, _ in batches]), torch.cat([masks for _, masks in batches])
    )
    np.testing.assert_array_equal(pooled.intersection_KT().numpy(), counts[..., 0])
    np.testing.assert_array_equal(pooled.predicted_KT().numpy(), counts[..., 1])
    np.testing.assert_array_equal(pooled.true_K().numpy(), counts[:, 0, 2])

    thresholds, ious = best_by_hand(counts)
    found, iou = pooled.best()
    assert found.tolist() == [np.float32(threshold) for threshold in thresholds]
    np.testing.assert_array_equal(iou.numpy(), ious)
    assert found[2] == DEFAULT_THRESHOLD
    assert iou[2].isnan()


def test_binarise_gives_the_counted_pixels():
    scores, masks = random_batch(5, exact=True)
    histogram = Histogram.of(scores, masks)
    thresholds, iou = histogram.best()
    predicted = binarise(scores, thresholds)
    for k in (0, 1, 3):
        union = (predicted[:, k] | masks[:, k]).sum().item()
        assert (predicted[:, k] & masks[:, k]).sum().item() / union == iou[k].item()


@pytest.mark.parametrize("threshold", DECIMALS)
def test_a_score_equal_to_a_threshold_is_not_positive(threshold):
    scores = torch.tensor([threshold]).view(1, 1, 1, 1)
    histogram = Histogram.of(scores, torch.ones(1, 1, 1, 1, dtype=torch.bool))
    assert histogram.predicted_KT()[0].tolist() == [int(below < threshold) for below in DECIMALS]
    assert not binarise(scores, torch.tensor([threshold])).any()


def test_of_equals_the_lowest_wins():
    scores = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    thresholds, iou = Histogram.of(scores, scores > 0.5).best()
    assert thresholds.item() == 0
    assert iou.item() == 1


def test_nan_is_never_positive():
    scores = torch.full((1, 1, 2, 2), math.nan)
    histogram = Histogram.of(scores, torch.ones(1, 1, 2, 2, dtype=torch.bool))
    assert histogram.predicted_KT().sum() == 0
    assert histogram.true_K().item() == 4
    assert not binarise(scores, torch.zeros(1)).any()


def test_the_empty_histogram():
    thresholds, iou = Histogram.empty(3).best()
    assert thresholds.tolist() == [DEFAULT_THRESHOLD] * 3
    assert iou.isnan().all()


def test_counts_beyond_float32_are_exact():
    counts = torch.zeros(1, 2, len(GRID) + 1, dtype=torch.int64)
    counts[0, 1, -1] = 2**40 + 1
    assert Histogram(counts).intersection_KT()[0, 0].item() == 2**40 + 1


def test_shapes_and_types_are_checked():
    with pytest.raises(ValueError, match="one shape"):
        Histogram.of(torch.rand(1, 2, 3, 3), torch.ones(1, 2, 3, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="bool masks"):
        Histogram.of(torch.rand(1, 2, 3, 3), torch.ones(1, 2, 3, 3))
