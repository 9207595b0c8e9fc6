"""The expected intersection of a random square, against trying every place."""

from __future__ import annotations

import pytest
import torch

from chexseg.saliency.chance_baseline import expected_intersection


def every_place(true_HW: torch.Tensor, pixels: int) -> float:
    height, width = true_HW.shape
    side = min(round(pixels**0.5), height, width)
    shared = [
        int(true_HW[y : y + side, x : x + side].sum())
        for y in range(height - side + 1)
        for x in range(width - side + 1)
    ]
    return sum(shared) / len(shared) * pixels / side**2


@pytest.mark.parametrize("pixels", [1, 3, 9, 20, 64, 117])
def test_it_is_the_mean_over_all_places(pixels):
    true_NKHW = torch.rand(2, 3, 9, 13, generator=torch.Generator().manual_seed(pixels)) > 0.6
    found_NK = expected_intersection(true_NKHW, torch.full((2, 3), pixels))
    for n in range(2):
        for k in range(3):
            assert found_NK[n, k].item() == pytest.approx(
                every_place(true_NKHW[n, k], pixels), rel=1e-12
            )


def test_a_square_over_all_shares_all_and_an_empty_one_nothing():
    true_NKHW = torch.zeros(1, 2, 6, 6, dtype=torch.bool)
    true_NKHW[0, :, 1:3, 2:6] = True
    assert expected_intersection(true_NKHW, torch.tensor([[36, 0]])).tolist() == [[8.0, 0.0]]
