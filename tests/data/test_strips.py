"""Test strips: the short side is the size, and a square is cut along the long side only."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from chexseg.data.images import Frame, Strip

SHAPES = [(320, 320), (329, 320), (320, 390), (390, 320), (2320, 2828), (50, 320), (96, 31)]


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_a_strip_is_the_image_with_its_short_side_resized(height, width):
    pixels_HW = np.random.default_rng(0).integers(1, 256, (height, width), dtype=np.uint8)
    strip = Strip(height, width, 64)
    stored = strip.image(pixels_HW)
    assert stored.shape == (64, 128) and stored.dtype == np.uint8
    scale = 64 / min(height, width)
    size = (round(width * scale), round(height * scale))
    upright = np.asarray(Image.fromarray(pixels_HW).resize(size, Image.Resampling.BILINEAR))
    long = upright if width >= height else upright.T
    assert strip.length == min(128, long.shape[1])
    start = (long.shape[1] - strip.length) // 2
    np.testing.assert_array_equal(stored[:, : strip.length], long[:, start : start + strip.length])
    assert not stored[:, strip.length :].any()


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_the_central_square_has_the_images_short_side_in_the_frame(height, width):
    top, left, high, wide = Strip(height, width, 320).centre_in_frame()
    frame = Frame(height, width, 320)
    short = min(frame.inner)
    assert (high, wide) == pytest.approx((short, short), abs=1)
    # Both are centred, up to a pixel of the strip and a pixel of the frame.
    assert (top + high / 2, left + wide / 2) == pytest.approx((160, 160), abs=1)
