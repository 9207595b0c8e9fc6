"""From attenuation to a film: exposure, grain, side marker and collimator."""

from __future__ import annotations

import numpy as np

from chexseg.phantom.anatomy import generator


def expose(
    seed: int, attenuation_HW: np.ndarray, anteroposterior: bool
) -> tuple[np.ndarray, tuple[slice, slice]]:
    """Turn attenuation into (pixels_HW uint8, the exposed field).

    Applies exposure, film curve, grain, a side marker and the collimator.
    """
    random = generator(seed, "film")
    height, width = attenuation_HW.shape
    low, high = random.normal(0.14, 0.035), random.normal(1.12, 0.05)
    contrast = random.uniform(2.6, 3.8) * (0.88 if anteroposterior else 1.0)
    tilt = random.normal(0, 0.03, 2).tolist()
    down, right = (
        np.linspace(-1, 1, height, dtype=np.float32)[:, None],
        np.linspace(-1, 1, width, dtype=np.float32),
    )
    exposed = (attenuation_HW + (tilt[0] * down - low) + tilt[1] * right) * np.float32(
        1 / (high - low)
    )
    levels = np.linspace(-0.5, 1.5, 4096)
    curve = 1 / (1 + np.exp(-contrast * (levels - 0.5)))
    floor, ceiling = (1 / (1 + np.exp(-contrast * (end - 0.5))) for end in (-0.12, 1.08))
    film = (250 * (curve - floor) / (ceiling - floor)).astype(np.float32)
    grey = film[np.clip((exposed + 0.5) * 2047.5, 0, 4095).astype(np.int16)]
    grain = random.standard_normal((height, width), dtype=np.float32) * random.uniform(1.5, 4.0)
    grey += 0.8 * grain
    grey[1:] += 0.6 * grain[:-1]
    if random.random() < 0.7:
        _mark(grey, random.uniform(0.9, 0.95), random.uniform(0.06, 0.14))
    pixels_HW = np.full((height, width), 2, dtype=np.uint8)
    top, bottom, left, right = random.uniform(-0.03, 0.035, 4).clip(0) * (random.random() < 0.3)
    field = (
        slice(int(top * height), height - int(bottom * height)),
        slice(int(left * width), width - int(right * width)),
    )
    pixels_HW[field] = np.clip(grey[field], 0, 255)
    return pixels_HW, field


def _mark(grey: np.ndarray, right: float, down: float) -> None:
    """Draw the lead letter L into grey_HW, at fractions of its width and height."""
    height, width = grey.shape
    size = 0.045 * min(height, width)
    top, left, stroke = int(down * height), int(right * width), max(1, round(0.2 * size))
    bottom = top + round(size)
    grey[top:bottom, left : left + stroke] += 170
    grey[bottom - stroke : bottom, left + stroke : left + round(0.65 * size)] += 170
