"""Test resizing against naive versions: one new pixel at a time, from the description."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from chexseg.data import chexlocalize, resampling
from chexseg.data.images import Frame
from chexseg.data.masks import counts

SIZES = [((13, 17), (5, 7)), ((24, 20), (12, 10)), ((7, 9), (16, 11)), ((31, 45), (1, 9))]


def naive_bilinear(values_HW, height, width):
    """Weigh the four pixels around each new centre by their distance; repeat the edges."""
    out = np.zeros((height, width))
    for i, j in product(range(height), range(width)):
        y = (i + 0.5) * len(values_HW) / height - 0.5
        x = (j + 0.5) * len(values_HW[0]) / width - 0.5
        for row, column in product((0, 1), (0, 1)):
            r, c = math.floor(y) + row, math.floor(x) + column
            weight = (1 - abs(y - r)) * (1 - abs(x - c))
            inside = min(max(r, 0), len(values_HW) - 1), min(max(c, 0), len(values_HW[0]) - 1)
            out[i, j] += weight * float(values_HW[inside])
    return out


def naive_coverage(mask_HW, height, width):
    """Add up the parts of each old pixel that lie inside each new one."""
    down, right = len(mask_HW) / height, len(mask_HW[0]) / width
    out = np.zeros((height, width))
    for i, j in product(range(height), range(width)):
        for r, c in zip(*np.nonzero(mask_HW), strict=True):
            tall = max(0, min((i + 1) * down, r + 1) - max(i * down, r))
            wide = max(0, min((j + 1) * right, c + 1) - max(j * right, c))
            out[i, j] += tall * wide / (down * right)
    return out


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_bilinear_images_weigh_four_pixels(old, new):
    pixels_HW = np.random.default_rng(0).integers(0, 256, old, dtype=np.uint8)
    expected = naive_bilinear(pixels_HW, *new)
    resized_HW = resampling.image(pixels_HW, *new, "bilinear")
    assert resized_HW.dtype == np.uint8 and resized_HW.shape == new
    assert np.abs(resized_HW - expected).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_bilinear_images_are_opencvs_to_one_grey_level(old, new):
    cv2 = pytest.importorskip("cv2")
    pixels_HW = np.random.default_rng(0).integers(0, 256, old, dtype=np.uint8)
    expected = cv2.resize(pixels_HW, new[::-1], interpolation=cv2.INTER_LINEAR)
    resized_HW = resampling.image(pixels_HW, *new, "bilinear")
    assert np.abs(resized_HW.astype(int) - expected).max() <= 1


def test_only_the_antialiased_image_has_the_mean_of_what_it_covers():
    stripes_HW = np.tile(np.array([0, 0, 0, 240], dtype=np.uint8), (16, 8))
    assert np.abs(resampling.image(stripes_HW, 4, 8, "antialiased")[:, 1:-1] - 60.0).max() < 12
    # The four nearest pixels are the second and third of each stripe, which are black.
    assert not resampling.image(stripes_HW, 4, 8, "bilinear").any()


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_bilinear_masks_are_rounded(old, new):
    masks_KHW = np.random.default_rng(1).random((3, *old)) < 0.5
    resized_KHW = resampling.masks(masks_KHW, *new, "bilinear")
    for mask_HW, resized_HW in zip(masks_KHW, resized_KHW, strict=True):
        expected = naive_bilinear(mask_HW, *new)
        clear = np.abs(expected - 0.5) > 1e-9
        assert np.array_equal(resized_HW[clear], expected[clear] > 0.5)


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_coverage_is_the_share_of_a_pixel_that_the_mask_fills(old, new):
    mask_HW = np.random.default_rng(2).random(old) < 0.3
    np.testing.assert_allclose(
        resampling.coverage(mask_HW, *new), naive_coverage(mask_HW, *new), atol=1e-9
    )


def test_no_other_set_of_pixels_fits_the_original_better_than_the_mask_by_area():
    random = np.random.default_rng(3)
    for _ in range(20):
        mask_HW = random.random((12, 8)) < random.uniform(0.05, 0.7)
        mask_HW[0, 0] = True
        chosen_HW = resampling.area(mask_HW, 3, 4)

        def iou(small_HW, mask_HW=mask_HW):
            enlarged = np.repeat(np.repeat(small_HW, 4, axis=0), 2, axis=1)
            return (enlarged & mask_HW).sum() / (enlarged | mask_HW).sum()

        best = max(iou(np.array(bits).reshape(3, 4)) for bits in product((False, True), repeat=12))
        assert chosen_HW.any() and iou(chosen_HW) == pytest.approx(best)


def test_a_thin_line_survives_by_area_alone():
    masks_KHW = np.zeros((2, 64, 64), dtype=bool)
    masks_KHW[0, :, 1] = True  # between the centres of the first two new columns
    frame = Frame(64, 64, 16)
    assert not frame.masks(masks_KHW).any() and not frame.masks(masks_KHW, "bilinear").any()
    by_area_KHW = frame.masks(masks_KHW, "area")
    assert by_area_KHW[0, :, 0].all() and by_area_KHW.sum() == 16  # and the empty one stays empty


def test_two_mask_files_are_counted_on_masks_resized_as_by_ingest(tmp_path):
    line_HW = np.zeros((64, 64), dtype=bool)
    line_HW[:, 1] = True
    chexlocalize.write(tmp_path / "a.json", {"x": {"Support Devices": line_HW}})
    file = chexlocalize.read(tmp_path / "a.json")
    for resize, pixels in (("nearest", 0), ("bilinear", 0), ("area", 16)):
        counts_IK3 = counts.count(file, file, ["x"], ["Support Devices"], 16, resize)
        assert counts_IK3.tolist() == [[[pixels] * 3]]


def test_masks_of_the_same_size_are_unchanged():
    masks_KHW = np.random.default_rng(4).random((2, 40, 40)) < 0.2
    for method in ("nearest", "bilinear", "area"):
        assert np.array_equal(Frame(40, 40, 40).masks(masks_KHW, method), masks_KHW)
