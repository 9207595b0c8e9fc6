"""Test that maps of central crops return to their place in the padded square."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from chexseg.data.images import Frame, Strip
from chexseg.saliency import centre_crop

SIZE = 64


def bilinear(map_hw: torch.Tensor, y: float, x: float) -> float:
    """Return a map's value at a place in cells, whose centres are at 0.5, 1.5, ..; constant outside."""
    height, width = map_hw.shape
    y, x = min(max(y - 0.5, 0), height - 1), min(max(x - 0.5, 0), width - 1)
    total = 0.0
    for row in {math.floor(y), math.ceil(y)}:
        for column in {math.floor(x), math.ceil(x)}:
            weight = (1 - abs(y - row)) * (1 - abs(x - column))
            total += weight * float(map_hw[row, column])
    return total


def test_every_value_is_the_crops_value_at_the_same_place_of_the_original_image():
    shapes = [(320, 400), (400, 320), (96, 96), (64, 192)]
    maps = torch.rand(len(shapes), 2, 3, 3, generator=torch.Generator().manual_seed(1))
    placed = centre_crop.in_padded_square(maps, shapes, SIZE)
    assert placed.shape == (len(shapes), 2, SIZE // 4, SIZE // 4)
    for n, (height, width) in enumerate(shapes):
        (top, left), (high, wide) = (
            Frame(height, width, SIZE).corner,
            Frame(height, width, SIZE).inner,
        )
        short = min(height, width)
        for row in range(SIZE // 4):
            for column in range(SIZE // 4):
                # In the original's pixels, and then in shares of its central square.
                y = (4 * row + 2 - top) * height / high
                x = (4 * column + 2 - left) * width / wide
                y, x = (y - (height - short) / 2) / short, (x - (width - short) / 2) / short
                for k in range(2):
                    inside = 0 <= y <= 1 and 0 <= x <= 1
                    expected = bilinear(maps[n, k], 3 * y, 3 * x) if inside else 0.0
                    assert placed[n, k, row, column] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("height", "width"), [(233, 310), (311, 250), (200, 500)])
def test_an_image_seen_through_the_crop_lies_on_the_padded_image(height, width):
    y, x = np.mgrid[:height, :width]
    image = np.exp(-((y / height - 0.4) ** 2 + (x / width - 0.6) ** 2) / 0.08)
    pixels = (255 * image).round().astype(np.uint8)
    strip = Strip(height, width, 64)
    along = torch.from_numpy(strip.image(pixels)[:, strip.centre : strip.centre + 64].copy())
    crop = along.T if strip.is_portrait else along
    fine = torch.nn.functional.avg_pool2d(crop[None, None].float(), 2)
    placed = centre_crop.in_padded_square(fine, [(height, width)], 64)[0, 0]
    square = torch.from_numpy(Frame(height, width, 64).image(pixels))
    coarse = torch.nn.functional.avg_pool2d(square[None].float(), 4)[0]
    assert (placed > 0).any()
    inside = placed > 0
    assert (placed - coarse)[inside].abs().mean() < 4
    assert np.corrcoef(placed[inside], coarse[inside])[0, 1] > 0.99
