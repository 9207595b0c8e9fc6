"""Test the dense CRF against its definition: all pairs of pixels, both labels, no grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from chexseg.saliency import dense_crf


def by_all_pairs(image, mask, scale):
    """Return the probability of the mask's label 1 of each pixel after ten mean-field steps."""
    height, width = image.shape
    y, x = np.mgrid[:height, :width].reshape(2, -1).astype(float)
    levels = image.numpy().astype(float).reshape(-1)
    near = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2
    colour = 3 * (levels[:, None] - levels) ** 2  # red, green and blue
    potts = 0
    for weight, kernel in (
        (3, np.exp(-near / (2 * (3 * scale) ** 2))),
        (10, np.exp(-near / (2 * (50 * scale) ** 2) - colour / (2 * 5**2))),
    ):
        sums = kernel.sum(1)
        potts = potts + weight * kernel / np.sqrt(sums[:, None] * sums)
    own = mask.numpy().reshape(-1)
    energy = -np.log(np.where(np.stack([~own, own]), 0.7, 0.3))
    probability = np.exp(-energy)
    for _ in range(10):
        probability = np.exp(-energy + probability @ potts)
        probability /= probability.sum(0)
    return probability[1].reshape(height, width)


@pytest.fixture
def image():
    """Return a bright disc and a gradient, with noise: 36 rows, 44 columns."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:36, :44]
    values = 60 + 2 * x + 70 * ((y - 17) ** 2 + (x - 16) ** 2 < 100)
    return torch.from_numpy((values + generator.normal(0, 4, values.shape)).astype(np.uint8))


@pytest.mark.parametrize("scale", [0.1, 0.2, 1.0])
def test_labels_are_those_of_all_pairs(image, scale):
    y, x = torch.meshgrid(torch.arange(36), torch.arange(44), indexing="ij")
    masks = torch.stack([(y - 19) ** 2 + (x - 13) ** 2 < radius**2 for radius in (4, 7, 11, 16)])
    refined = dense_crf.refine(image, masks, scale)
    assert refined.dtype == torch.bool
    changed = 0
    for mask, found in zip(masks, refined, strict=True):
        probability = by_all_pairs(image, mask, scale)
        clear = torch.from_numpy(abs(probability - 0.5) > 0.02)
        assert clear.float().mean() > 0.99
        expected = torch.from_numpy(probability > 0.5)
        assert torch.equal(found & clear, expected & clear)
        changed += int((expected != mask).sum())
    assert changed > 100


def test_a_mask_that_is_too_large_takes_the_edge_of_the_disc(image):
    y, x = torch.meshgrid(torch.arange(36), torch.arange(44), indexing="ij")
    disc = (y - 17) ** 2 + (x - 16) ** 2 < 100
    coarse = (y - 18) ** 2 + (x - 18) ** 2 < 144

    def iou(mask):
        return float((mask & disc).sum() / (mask | disc).sum())

    (found,) = dense_crf.refine(image, coarse[None], 0.15)
    assert iou(coarse) < 0.7
    assert iou(found) > 0.97


@pytest.mark.parametrize(("height", "width"), [(251, 7), (7, 251), (1, 1), (126, 5)])
@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_a_mask_of_everything_stays_at_any_size(height, width, scale):
    """At 251 pixels and scale 1, the last pixel lies on a grid point up to rounding."""
    image = torch.zeros(height, width, dtype=torch.uint8)
    everything = torch.ones(1, height, width, dtype=torch.bool)
    assert dense_crf.refine(image, everything, scale).all()
    assert not dense_crf.refine(image, ~everything, scale).any()


def test_masks_do_not_depend_on_each_other(image):
    masks = torch.rand(3, 36, 44, generator=torch.Generator().manual_seed(0)) > 0.5
    masks[0] = image > 130
    together = dense_crf.refine(image, masks, 0.15)
    for mask, found in zip(masks, together, strict=True):
        assert torch.equal(dense_crf.refine(image, mask[None], 0.15)[0], found)
    assert together[0].any()
