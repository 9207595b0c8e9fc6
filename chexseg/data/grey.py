"""Conversion of grey values of more than eight bits to eight, by the range that an image uses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

#: Largest fraction of the pixels, at either end of the range, that burnt-in markers cover.
MARKERS = 0.01
#: Bits per pixel that detectors and archives write.
DEPTHS = (8, 10, 12, 14, 16)
#: Pixels used to detect markers: all of a small image, evenly spaced ones of a large image.
SAMPLE = 2**14
#: Pixels of a strip of rows that is computed at once.
STRIP = 2**20


def film_range(values: np.ndarray) -> tuple[float, float]:
    """Return the least and greatest value of an image, ignoring burnt-in markers.

    values: any shape, at least one value. The result is nearly always the minimum and maximum.
    Markers are assumed only if the values without the fraction `MARKERS` at either end span less
    than a quarter of the full range. Values that exceed that span by more than half of it are then
    ignored.
    """
    low, high = float(values.min()), float(values.max())
    step = max(1, int((values.size / SAMPLE) ** (1 / values.ndim)))
    sample = values[(slice(None, None, step),) * values.ndim].ravel()
    cut = int(MARKERS * sample.size)
    first, last = (
        float(value)
        for value in np.partition(sample, (cut, sample.size - 1 - cut))[[cut, -1 - cut]]
    )
    spread = last - first
    if not 0 < 4 * spread < high - low:
        return low, high
    film = values[(values >= first - spread / 2) & (values <= last + spread / 2)]
    return float(film.min()), float(film.max())


def stretched(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return uint8 values scaled from `low`..`high` to 0..255 and clipped; 0 if low equals high."""
    scale = 255 / (high - low) if high > low else 0
    return np.asarray(np.round((np.clip(values, low, high) - low) * scale), dtype=np.uint8)


def in_strips(function: Callable[[np.ndarray], np.ndarray], values_HW: np.ndarray) -> np.ndarray:
    """Return function(values_HW), computed a few rows at a time: temporary arrays are small.

    function: maps each value alone, to one type.
    """
    height, width = values_HW.shape
    rows = max(1, STRIP // width)
    first = function(values_HW[:rows])
    out_HW = np.empty((height, width), dtype=first.dtype)
    out_HW[:rows] = first
    for start in range(rows, height, rows):
        out_HW[start : start + rows] = function(values_HW[start : start + rows])
    return out_HW


def eight_bits(values: np.ndarray, declared: int | None = None) -> np.ndarray:
    """Return the upper eight (uint8) of the bits that an image of unsigned 16-bit values uses.

    declared: significant bits according to the file (PNG's sBIT). If values need more bits, they
    were scaled to sixteen, as PNG requires. None: the least of `DEPTHS` that holds the greatest
    value without markers; markers above it become 255.
    """
    high = film_range(values)[1]
    depths = DEPTHS if declared is None else (min(max(8, declared), 16), 16)
    bits = next(bits for bits in depths if high < 2**bits)
    return np.asarray(np.minimum(values, 2**bits - 1) >> (bits - 8), dtype=np.uint8)
