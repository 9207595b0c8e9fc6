"""Grey values of more than eight bits: the range that a film uses, and the same film in eight bits."""

from __future__ import annotations

import numpy as np

#: Share of the pixels, at either end, that burnt-in markers may cover.
MARKERS = 0.01
#: Bits a pixel that detectors and archives write.
DEPTHS = (8, 10, 12, 14, 16)
#: Pixels that the share of markers is estimated on: all of a small film, evenly spaced ones of a large one.
SAMPLE = 2**14


def film_range(values: np.ndarray) -> tuple[float, float]:
    """Return the least and the greatest value of a film; burnt-in markers that would squeeze it are left out.

    values: any shape, at least one. For nearly every film these are the minimum and the maximum. Only if all but `MARKERS` of
    the pixels at either end lie within a quarter of that range, the values beyond these by more than half of their spread are
    markers.
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
    """Return uint8 with `low` as 0 and `high` as 255; values beyond are clipped, and all are 0 if the two are equal."""
    scale = 255 / (high - low) if high > low else 0
    return np.round((np.clip(values, low, high) - low) * scale).astype(np.uint8)


def eight_bits(values: np.ndarray, declared: int | None = None) -> np.ndarray:
    """Return the upper eight (uint8) of the bits that a film of unsigned 16-bit values uses.

    declared: significant bits according to the file (PNG's sBIT). If values need more, they were scaled to sixteen bits, as
    PNG demands. Without a declaration it is the least of `DEPTHS` that holds the film's greatest value. Markers above it
    become 255.
    """
    high = film_range(values)[1]
    depths = DEPTHS if declared is None else (min(max(8, declared), 16), 16)
    bits = next(bits for bits in depths if high < 2**bits)
    return (np.minimum(values, 2**bits - 1) >> (bits - 8)).astype(np.uint8)
