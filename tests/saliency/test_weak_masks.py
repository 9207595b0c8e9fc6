"""Weak masks against each image and pathology by itself; packing them loses nothing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from chexseg.data import radiographs
from chexseg.saliency.weak_masks import filled, possibly_present, weak_masks


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_masks_are_the_upsampled_scores_above_the_threshold_where_a_pathology_may_be(share):
    torch.manual_seed(0)
    scores_NKhw, thresholds_K = torch.rand(5, 3, 4, 4).half(), torch.tensor([0.2, 0.5, 0.8])
    present_NK = torch.rand(5, 3) < share
    found = weak_masks(scores_NKhw, thresholds_K, present_NK, 18)
    for n in range(5):
        for k in range(3):
            scores_11HW = F.interpolate(
                scores_NKhw[n : n + 1, k : k + 1].float(), size=(18, 18), mode="bilinear"
            )
            expected = (
                (scores_11HW[0, 0] > thresholds_K[k])
                if present_NK[n, k]
                else torch.zeros(18, 18, dtype=torch.bool)
            )
            assert torch.equal(found[n, k], expected)
    assert torch.equal(
        radiographs.unpack_bits(radiographs.pack_bits(found), found.shape[1:]), found
    )


def test_thresholds_of_single_images_and_filled_contours():
    torch.manual_seed(0)
    scores_NKhw, thresholds_NK = torch.rand(4, 3, 5, 5).half(), torch.rand(4, 3)
    thresholds_NK[1, 2] = torch.inf
    present_NK = torch.rand(4, 3) < 0.7
    rows = [
        weak_masks(s[None], t, p[None], 16)
        for s, t, p in zip(scores_NKhw, thresholds_NK, present_NK, strict=True)
    ]
    plain = weak_masks(scores_NKhw, thresholds_NK, present_NK, 16)
    assert torch.equal(plain, torch.cat(rows))
    assert not plain[1, 2].any()
    found = weak_masks(scores_NKhw, thresholds_NK, present_NK, 16, fill_holes=True)
    assert torch.equal(found.flatten(0, 1), filled(plain.flatten(0, 1)))


def filled_by_hand(mask):
    """Flood the background from the border by edges; all that stays dry is the mask."""
    height, width = len(mask), len(mask[0])
    wet = set()
    pending = [
        (y, x)
        for y in range(height)
        for x in range(width)
        if y in (0, height - 1) or x in (0, width - 1)
    ]
    while pending:
        y, x = pending.pop()
        if 0 <= y < height and 0 <= x < width and not mask[y][x] and (y, x) not in wet:
            wet.add((y, x))
            pending += [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
    return [[(y, x) not in wet for x in range(width)] for y in range(height)]


@pytest.mark.parametrize("density", [0.0, 0.3, 0.5, 0.6, 0.8, 1.0])
def test_filled_masks_are_what_their_outer_contours_enclose(density):
    generator = np.random.default_rng(0)
    masks = generator.random((6, 14, 11)) < density
    masks[0, 3:9, 2:8] = True
    masks[0, 4:8, 3:7] = False  # a hole
    masks[0, 5, 5] = True  # an island in it
    found = filled(torch.from_numpy(masks)).numpy()
    for mask, one in zip(masks, found, strict=True):
        assert one.tolist() == filled_by_hand(mask.tolist())
        contours, _ = cv2.findContours(
            mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        drawn = cv2.drawContours(np.zeros(mask.shape, np.uint8), contours, -1, 1, cv2.FILLED)
        assert (one == (drawn > 0)).all()


def test_no_image_gives_no_mask():
    empty = weak_masks(
        torch.empty(0, 3, 4, 4), torch.rand(3), torch.empty(0, 3, dtype=torch.bool), 18
    )
    assert empty.shape == (0, 3, 18, 18)


def test_uncertain_may_be_and_blank_may_not():
    assert possibly_present(torch.tensor([[1.0, -1.0, 0.0, float("nan")]])).tolist() == [
        [True, True, False, False]
    ]
