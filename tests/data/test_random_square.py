"""The expected intersection of a random square, against trying every place."""

from __future__ import annotations

import numpy as np
import pytest

from chexseg.data.masks.random_square import expected_intersection


def every_place(true_HW: np.ndarray, pixels: int) -> float:
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
    true_NKHW = np.random.default_rng(pixels).random((2, 3, 9, 13)) > 0.6
    found_NK = expected_intersection(true_NKHW, np.full((2, 3), pixels))
    for n in range(2):
        for k in range(3):
            assert found_NK[n, k] == pytest.approx(every_place(true_NKHW[n, k], pixels), rel=1e-12)


def test_a_square_over_all_shares_all_and_an_empty_one_nothing():
    true_NKHW = np.zeros((1, 2, 6, 6), dtype=bool)
    true_NKHW[0, :, 1:3, 2:6] = True
    assert expected_intersection(true_NKHW, np.array([[36, 0]])).tolist() == [[8.0, 0.0]]
