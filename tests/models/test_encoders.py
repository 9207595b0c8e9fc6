"""Test the normalisation of pixels: ImageNet's constants with ImageNet's weights alone."""

from __future__ import annotations

import os

import pytest
import torch

from chexseg.models import encoders

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CHEXPERT = ((0.5020,) * 3, (0.085585,) * 3)


@pytest.mark.parametrize(
    ("init", "constants"),
    [("imagenet", IMAGENET), ("random", CHEXPERT), ("chexpert", CHEXPERT), ("moco", CHEXPERT)],
)
def test_pixels_are_normalised_for_the_weights_a_segmenter_starts_from(init, constants):
    pixels_NHW = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16)
    images_NCHW = encoders.prepare(pixels_NHW, init)
    assert images_NCHW.shape == (1, 3, 16, 16)
    for channel, (mean, std) in enumerate(zip(*constants, strict=True)):
        for grey in range(256):
            value = images_NCHW[0, channel, grey // 16, grey % 16].item()
            assert value == pytest.approx((grey / 255 - mean) / std, abs=1e-5)


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_weights_may_be_read_by_whom_the_umask_says(tmp_path, mask):
    """Users of one group share a store."""
    before = os.umask(mask)
    try:
        encoders.save(torch.nn.Linear(2, 2), tmp_path / "encoder.safetensors", init="random")
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {0o666 & ~mask}
