"""The vessels of the lungs, which radiate from the hila and taper towards the chest wall."""

from __future__ import annotations

import numpy as np

from chexseg.phantom.canvas import SIDES, Canvas, ribbon, spline


def pulmonary_vessels(
    random: np.random.Generator, canvas: Canvas, carina: tuple[float, float]
) -> np.ndarray:
    """Draw three generations of branches that taper away from both hila, as a layer_HW."""
    polygons: list[np.ndarray] = []
    greys: list[float] = []
    hila = []
    for side in SIDES.values():
        hilum = np.array([side * 0.2, carina[1] + (0.2 if side < 0 else 0.12)])
        trunk = spline(
            hilum
            + np.array([(-0.02, -0.18), (0.04, -0.02), (0.035, 0.14), (-0.01, 0.32)]) * (side, 1)
        )
        hila.append(
            ribbon(
                trunk, np.interp(np.linspace(0, 1, 25), [0, 0.35, 0.6, 1], [0.05, 0.15, 0.13, 0.05])
            )
        )
        count = 8
        heading = np.deg2rad(np.linspace(-80, 86, count) + random.normal(0, 8, count))
        start = hilum + np.stack(
            [np.full(count, side * 0.02), np.linspace(-0.12, 0.2, count)], axis=-1
        )
        length = np.interp(heading, [-1.4, 0.2, 1.4], [0.6, 0.6, 0.8]) * random.uniform(
            0.7, 1.15, count
        )
        width = np.interp(heading, [-1.4, 1.4], [0.036, 0.06]) * random.uniform(0.75, 1.2, count)
        for shade, children in ((0.95, 3), (0.7, 2), (0.45, 0)):
            bend = random.normal(0, 0.45, len(heading))
            steps = np.linspace(0, 1, 9)
            turned = heading[:, None] + bend[:, None] * steps
            moves = (
                np.stack([side * np.cos(turned), np.sin(turned)], axis=-1)
                * (length / 8)[:, None, None]
            )
            path = start[:, None] + np.cumsum(moves, axis=1) - moves[:, :1]
            taper = width[:, None] * (1 - 0.75 * steps)
            polygons.extend(ribbon(path, np.maximum(taper, 0.005)))
            greys.extend([shade] * len(path))
            if children:
                at = random.integers(2, 8, (len(path), children))
                rows = np.arange(len(path))[:, None]
                fork = np.deg2rad(random.uniform(20, 50, at.shape)) * random.choice(
                    (-1.0, 1.0), at.shape
                )
                start, heading = path[rows, at].reshape(-1, 2), (turned[rows, at] + fork).ravel()
                length = (length[:, None] * random.uniform(0.45, 0.75, at.shape)).ravel()
                width = (taper[rows, at] * 0.8).ravel()
    return np.maximum(
        0.5 * canvas.fill(hila, blur=0.035), 0.42 * canvas.fill(polygons, greys, blur=0.008)
    )
