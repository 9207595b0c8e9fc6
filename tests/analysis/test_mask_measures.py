"""Test the measures of masks by hand-worked cases and against loops that follow the definitions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import ndimage

from chexseg.analysis.statistics import mask_measures
from chexseg.analysis.statistics.mask_measures import FIELDS, MEASURES


def mask(*pixels: tuple[int, int], shape: tuple[int, int] = (12, 14)) -> np.ndarray:
    out_HW = np.zeros(shape, dtype=bool)
    for pixel in pixels:
        out_HW[pixel] = True
    return out_HW


def square(top: int, left: int, side: int = 4) -> np.ndarray:
    return mask(*itertools.product(range(top, top + side), range(left, left + side)))


def of_image(predicted_HW: np.ndarray, expert_HW: np.ndarray) -> dict[str, float]:
    (values_F,) = mask_measures.of_image(predicted_HW[None], expert_HW[None])
    return dict(zip(FIELDS, values_F.tolist(), strict=True))


# ---- by hand -------------------------------------------------------------------------------------


def test_a_square_moved_by_three_columns():
    """One column of four is common; border pixels are 0, 1, 2 and 3 columns from the other's."""
    measured = of_image(square(1, 4), square(1, 1))
    assert measured["dice"] == 2 * 4 / (16 + 16)
    assert measured["nsd 2"] == pytest.approx(8 / 12), "4 pixels at 0, 2 at 1, 2 at 2 and 4 at 3"
    assert measured["nsd 5"] == 1
    assert measured["hd95"] == 3
    assert (measured["predicted pixels"], measured["expert pixels"]) == (16, 16)
    assert (measured["predicted lesions"], measured["expert lesions"]) == (1, 1)
    assert measured["matched lesions"] == 1, "IoU 4 / 28"


def test_hd95_is_the_larger_of_both_directions():
    """From the prediction: 0 and 4, whose 95th percentile is 3.8. All three together give 3.6."""
    one_way, other_way = mask((0, 0), (0, 4)), mask((0, 0))
    assert of_image(one_way, other_way)["hd95"] == pytest.approx(3.8)
    assert of_image(other_way, one_way)["hd95"] == pytest.approx(3.8)


def test_a_tolerance_includes_its_own_distance():
    measured = of_image(mask((3, 2)), mask((3, 4)))
    assert measured["nsd 2"] == 1 and measured["hd95"] == 2
    assert of_image(mask((3, 2)), mask((3, 5)))["nsd 2"] == 0


def test_the_frame_of_the_image_is_a_border():
    """A full image has its outermost pixels as border, so a smaller square is near it."""
    full, inner = np.ones((6, 6), dtype=bool), mask(*itertools.product(range(1, 5), repeat=2))
    assert of_image(full, inner[:6, :6])["hd95"] == pytest.approx(math.sqrt(2))


def test_an_empty_prediction_is_the_worst_and_an_empty_expert_mask_is_left_out():
    missed = of_image(mask(), square(1, 1))
    assert [missed[name] for name in ("dice", "nsd 2", "nsd 5")] == [0, 0, 0]
    assert missed["hd95"] == pytest.approx(math.sqrt(12**2 + 14**2))
    for predicted_HW in (square(1, 1), mask()):
        invented = of_image(predicted_HW, mask())
        assert all(math.isnan(invented[name]) for name in ("dice", "nsd 2", "nsd 5", "hd95"))
        assert invented["predicted lesions"] == predicted_HW.any()
        assert invented["expert lesions"] == invented["matched lesions"] == 0


def test_lesions_touch_by_corners_and_match_one_to_one_from_an_iou_of_a_tenth():
    row = [(0, x) for x in range(10)]
    expert = mask(*row, (5, 5), (6, 6))
    assert mask_measures.lesions(mask((0, 0), (5, 5), (10, 1)), expert) == (3, 2, 2)
    assert mask_measures.lesions(mask((0, 0), (1, 0)), expert) == (1, 2, 0), "IoU 1 / 11"
    assert mask_measures.lesions(mask((0, 0), (0, 2), (0, 4)), expert) == (3, 2, 1)


def test_matching_has_the_largest_sum_of_iou():
    """The best pair alone has 0.3; without it, two pairs have 0.25 and 0.286."""
    expert = mask(*((0, x) for x in (*range(4), *range(5, 12))))
    predicted = mask(*((0, x) for x in (*range(2, 8), *range(10, 12))))
    assert mask_measures.lesions(predicted, expert) == (2, 2, 2)


def test_over_images():
    """Images: hit, missed, invented, clear; the second pathology has an expert mask everywhere."""
    some, none = square(1, 1), mask()
    images = [(some, some), (none, some), (square(1, 4), none), (none, none)]
    values_IKF = np.array(
        [
            mask_measures.of_image(
                np.array([predicted, some, some]), np.array([expert, some, none])
            )
            for predicted, expert in images
        ]
    )
    found, everywhere, nowhere = (
        dict(zip(MEASURES, values, strict=True))
        for values in np.array(list(mask_measures.over_images(values_IKF).values())).T
    )
    diagonal = math.sqrt(12**2 + 14**2)
    assert found == {
        "Dice": 0.5,
        "NSD 2 px": 0.5,
        "NSD 5 px": 0.5,
        "HD95 px": pytest.approx(diagonal / 2),
        "lesion F1": 2 * 1 / (2 + 2),
        "sensitivity": 0.5,
        "specificity": 0.5,
        "area ratio": 1,
    }
    assert math.isnan(everywhere.pop("specificity"))
    assert everywhere == {name: name != "HD95 px" for name in MEASURES if name != "specificity"}
    assert all(math.isnan(value) for value in nowhere.values())


def test_bits_are_the_same_masks():
    predicted_KHW, expert_KHW = np.array([square(1, 4), mask()]), np.array([square(1, 1), mask()])
    packed = np.packbits(predicted_KHW), np.packbits(expert_KHW), expert_KHW.shape
    expected_KF = mask_measures.of_image(predicted_KHW, expert_KHW)
    np.testing.assert_array_equal(mask_measures.of_packed(packed), expected_KF)


# ---- against loops -------------------------------------------------------------------------------


def naive_border(mask_HW: np.ndarray) -> list[tuple[int, int]]:
    height, width = mask_HW.shape

    def inside(y: int, x: int) -> bool:
        return 0 <= y < height and 0 <= x < width and bool(mask_HW[y, x])

    steps = ((0, 1), (1, 0), (0, -1), (-1, 0))
    return [
        (y, x)
        for y, x in itertools.product(range(height), range(width))
        if inside(y, x) and not all(inside(y + dy, x + dx) for dy, dx in steps)
    ]


def naive_distances(pixels, others) -> list[float]:
    return sorted(min(math.dist(pixel, other) for other in others) for pixel in pixels)


def naive_percentile(ordered: list[float], share: float) -> float:
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def naive_lesions(mask_HW: np.ndarray) -> list[set[tuple[int, int]]]:
    left = {(int(y), int(x)) for y, x in np.argwhere(mask_HW)}
    components = []
    while left:
        component, open_ = set(), [left.pop()]
        while open_:
            y, x = open_.pop()
            component.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            open_ += near
        components.append(component)
    return components


def naive_matches(predicted, expert) -> tuple[float, int]:
    """Return (sum of IoU, number of pairs) of the best assignment, of all that there are."""
    if not predicted:
        return 0.0, 0
    first, *others = predicted
    best = naive_matches(others, expert)
    for lesion in expert:
        iou = len(first & lesion) / len(first | lesion)
        if iou >= mask_measures.LESION_IOU:
            total, pairs = naive_matches(others, [one for one in expert if one is not lesion])
            best = max(best, (total + iou, pairs + 1))
    return best


def blobs(generator: np.random.Generator) -> np.ndarray:
    noise_HW = ndimage.gaussian_filter(generator.normal(size=(24, 30)), 2.5)
    return noise_HW > np.quantile(noise_HW, generator.uniform(0.8, 0.95))


@pytest.mark.parametrize("seed", range(20))
def test_measures_equal_loops_over_pixels(seed):
    generator = np.random.default_rng(seed)
    expert_HW = blobs(generator)
    moved_HW = np.roll(expert_HW, generator.integers(-3, 4, 2), (0, 1))
    predicted_HW = moved_HW ^ (blobs(generator) & (generator.random() < 0.5))
    measured = of_image(predicted_HW, expert_HW)

    pairs = list(zip(predicted_HW.ravel(), expert_HW.ravel(), strict=True))
    common, pixels = sum(p and e for p, e in pairs), sum(int(p) + int(e) for p, e in pairs)
    assert measured["dice"] == pytest.approx(2 * common / pixels)

    borders = naive_border(predicted_HW), naive_border(expert_HW)
    ways = [naive_distances(*borders), naive_distances(*borders[::-1])]
    for tolerance in (2, 5):
        near = sum(distance <= tolerance for way in ways for distance in way)
        share = near / sum(map(len, borders))
        assert measured[f"nsd {tolerance}"] == pytest.approx(share)
    percentiles = [naive_percentile(way, 0.95) for way in ways]
    assert measured["hd95"] == pytest.approx(max(percentiles))

    lesions = naive_lesions(predicted_HW), naive_lesions(expert_HW)
    counted = measured["predicted lesions"], measured["expert lesions"]
    assert counted == tuple(map(len, lesions))
    assert measured["matched lesions"] == naive_matches(*lesions)[1]
