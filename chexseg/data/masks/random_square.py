"""Chance baseline of a mask: a square of the same area, placed at random in the image."""

from __future__ import annotations

import numpy as np


def expected_intersection(true_LHW: np.ndarray, pixels_L: np.ndarray) -> np.ndarray:
    """Return intersection_L, float64: the mean overlap of a random square with a true mask.

    true_LHW: bool, with any leading axes L. pixels_L: the square's number of pixels; its side is
    the rounded root. All positions within the image are equally likely. The mean is exact, and
    scaled to the number of pixels.
    """
    height, width = true_LHW.shape[-2:]
    out_L = np.zeros(true_LHW.shape[:-2], dtype=np.float64)
    for index in map(tuple, np.argwhere(pixels_L)):
        pixels = int(pixels_L[index])
        side = min(max(1, round(pixels**0.5)), height, width)
        # Each true pixel counts as often as there are positions that cover it.
        rows_H, columns_W = _covering(height, side), _covering(width, side)
        # Sums along a row are below 2^24 for sides up to 4,096, so float32 is exact.
        inside_H = true_LHW[index].astype(np.float32) @ columns_W.astype(np.float32)
        places = (height - side + 1) * (width - side + 1)
        mean = float(rows_H @ inside_H.astype(np.float64)) / places
        out_L[index] = mean * pixels / side**2
    return out_L


def _covering(length: int, side: int) -> np.ndarray:
    """Return, for each position along a line, the number of placed segments that cover it."""
    at = np.arange(length)
    last = np.minimum(at, length - side)
    return (last - np.maximum(at - side + 1, 0) + 1).astype(np.float64)
