"""Test Otsu's threshold against its definition by loops, and against OpenCV's."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from chexseg.saliency import otsu
from chexseg.saliency.weak_masks import weak_masks


def otsu_by_hand(levels: list[int]) -> int:
    """The lowest threshold with the largest variance between the classes."""
    best, chosen = 0.0, 0
    for threshold in range(256):
        background = [level for level in levels if level <= threshold]
        foreground = [level for level in levels if level > threshold]
        if not background or not foreground:
            continue
        share0, share1 = len(background) / len(levels), len(foreground) / len(levels)
        mean0, mean1 = sum(background) / len(background), sum(foreground) / len(foreground)
        variance = share0 * share1 * (mean0 - mean1) ** 2
        if variance > best * (1 + 1e-12):
            best, chosen = variance, threshold
    return chosen


def levels_MP() -> torch.Tensor:
    generator = np.random.default_rng(0)
    maps = [
        generator.integers(0, 256, 60),
        generator.integers(3, 7, 60),
        np.repeat([0, 255], 30),
        np.repeat([10, 11, 200], 20),
        np.clip(generator.normal(80, 30, 60), 0, 255),
        np.zeros(60),
        np.full(60, 255),
        np.full(60, 7),
    ]
    return torch.from_numpy(np.stack(maps).astype(np.uint8))


def test_the_threshold_is_that_of_the_definition():
    levels = levels_MP()
    assert otsu.otsu(levels).tolist() == [otsu_by_hand(one.tolist()) for one in levels]


def test_the_foreground_is_that_of_opencv():
    levels = levels_MP()
    for one, threshold in zip(levels, otsu.otsu(levels), strict=True):
        _, mask = cv2.threshold(one.numpy()[None], 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        assert ((one > threshold).numpy() == (mask[0] > 0)).all()


def test_grey_levels_cut_fractions_off_and_do_not_wrap_around():
    values = torch.tensor([0, 0.00391, 0.00393, 0.5, 0.9999, 1, 1.01, 300])
    assert otsu.grey_levels(values).tolist() == [0, 0, 1, 127, 254, 255, 255, 255]


@pytest.mark.parametrize("scale", [0.004, 0.02, 0.3, 1.0, 5.0])
def test_scores_above_the_limit_are_the_foreground_of_the_unscaled_map(scale):
    torch.manual_seed(0)
    size, scores = 24, torch.rand(3, 4, 5, 5)
    scores[0, 0] = 0
    scores[0, 1] = 1
    scores = (scores / scores.amax((2, 3), keepdim=True).clamp(min=1e-9)).half()
    maximum = scale * (0.5 + torch.rand(3, 4))
    found = weak_masks(
        scores, otsu.thresholds(scores, maximum, size), torch.ones(3, 4, dtype=torch.bool), size
    )
    for n in range(3):
        for k in range(4):
            raw = F.interpolate(scores[n, k][None, None].float(), (size, size), mode="bilinear")
            raw = (raw[0, 0] * maximum[n, k]).tolist()
            levels = [[min(255, int(np.float32(255) * np.float32(v))) for v in row] for row in raw]
            threshold = otsu_by_hand([level for row in levels for level in row])
            expected = [[level > threshold for level in row] for row in levels]
            assert found[n, k].tolist() == expected
    assert not found[0, 0].any()
    # Quantised to nothing, or one level above 0, which Otsu's threshold of 0 keeps.
    assert bool(found[0, 1].all()) == bool(255 * maximum[0, 1] >= 1)


def test_a_limit_between_neighbouring_numbers_keeps_the_upper_one():
    low = torch.tensor(0.5)
    high = torch.nextafter(low, torch.tensor(1.0))
    for lower in (low, high):  # one of the two has an even last bit
        upper = torch.nextafter(lower, torch.tensor(1.0))
        middle = otsu.between(lower, upper)
        assert lower <= middle < upper
    assert otsu.between(torch.tensor(0.3), torch.tensor(torch.inf)) == torch.inf


def test_no_image_gives_no_limit():
    assert otsu.thresholds(torch.empty(0, 4, 5, 5), torch.empty(0, 4), 24).shape == (0, 4)
