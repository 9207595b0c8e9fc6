"""Test a radiograph's grey range: all values, except burnt-in markers that would compress it."""

from __future__ import annotations

import numpy as np
import pytest

from chexseg.data import grey


def film(shape: tuple[int, ...] = (400, 500)) -> np.ndarray:
    """Return values like a radiograph's: most in the middle, few at either end."""
    return np.random.default_rng(0).normal(2000, 400, shape).clip(0, 4095).round()


@pytest.mark.parametrize("shape", [(1,), (7,), (30, 50), (400, 500), (1000, 1300)])
def test_an_ordinary_film_uses_all_of_its_values(shape):
    values = film(shape)
    assert grey.film_range(values) == (values.min(), values.max())
    skewed = (
        values**3
    )  # half of the pixels in a seventh of the range, but less than nearly all in a quarter
    assert grey.film_range(skewed) == (skewed.min(), skewed.max())


@pytest.mark.parametrize("shape", [(400, 500), (1000, 1300), (1_000_000,)])
@pytest.mark.parametrize("marker", [65535, -60000])
def test_markers_far_off_are_left_out(shape, marker):
    values = film(shape)
    marked = values.copy()
    marked.flat[: values.size // 200] = marker
    low, high = grey.film_range(marked)
    rest = marked[marked != marker]
    assert (
        abs(low - rest.min()) < 400
        and abs(high - rest.max()) < 400
        and rest.min() <= low
        and high <= rest.max()
    )


def test_markers_that_do_not_squeeze_the_film_stay():
    values = film()
    values[:4, :100] = 6000
    assert grey.film_range(values) == (values.min(), 6000)


def test_of_two_values_both_count():
    values = np.zeros((100, 100))
    assert grey.film_range(values) == (0, 0)
    values[0, 0] = 9
    assert grey.film_range(values) == (0, 9)
