"""Weak masks against each image and pathology by itself; packing them loses nothing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from chexseg.data import radiographs
from chexseg.saliency.weak_masks import possibly_present, weak_masks


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


def test_no_image_gives_no_mask():
    empty = weak_masks(
        torch.empty(0, 3, 4, 4), torch.rand(3), torch.empty(0, 3, dtype=torch.bool), 18
    )
    assert empty.shape == (0, 3, 18, 18)


def test_uncertain_may_be_and_blank_may_not():
    assert possibly_present(torch.tensor([[1.0, -1.0, 0.0, float("nan")]])).tolist() == [
        [True, True, False, False]
    ]
