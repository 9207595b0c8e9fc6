"""Test strips: the short side is the size, and a square is cut along the long side only."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from PIL import Image

from chexseg.data import images, resampling
from chexseg.data.images import Frame, Strip
from chexseg.data.resampling import ImageResize

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


@pytest.mark.parametrize("method", get_args(ImageResize))
@pytest.mark.parametrize("shape", [*SHAPES, (40, 319), (641, 80), (3, 29), (31, 3)])
def test_of_a_very_long_image_only_the_middle_is_resized(monkeypatch, shape, method):
    """The middle is what it is in the resized image, up to the rounding between Pillow's passes."""
    pixels_HW = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    strip = Strip(*shape, 64)
    whole = strip.image(pixels_HW, method)
    if strip.resized < 2 * strip.size:
        return  # nothing is cut
    monkeypatch.setattr(images, "LONGEST_RESIZED", 0)
    middle = strip.image(pixels_HW, method)
    assert abs(middle.astype(int) - whole).max() <= 1


@pytest.mark.parametrize("shape", [(1, 16_000), (16_000, 1)])
def test_a_very_long_image_is_never_resized_as_a_whole(monkeypatch, shape):
    """It took 4.8 GB, for 320 x 5,120,000 pixels."""
    monkeypatch.setattr(resampling, "image", None)
    grey = np.zeros(16_000, dtype=np.uint8)
    grey[7_999:8_001] = 100, 200
    strip = Strip(*shape, 320).image(grey.reshape(shape))
    # Either pixel has 320 columns. Between their centres the grey level rises evenly.
    assert (strip == strip[:1]).all()
    np.testing.assert_allclose(
        strip[0, 160:480], np.linspace(100, 200, 320, endpoint=False) + 100 / 640, atol=0.51
    )
    assert strip[0, 0] == 50 and strip[0, -1] == 100
