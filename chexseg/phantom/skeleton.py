"""The bones of the chest, and the width of the rib cage."""

from __future__ import annotations

from typing import cast

import numpy as np

from chexseg.phantom.canvas import SIDES, Canvas, ribbon, spline

#: Inner chest wall: (y, x). Inhalation stretches it below the apex.
_CAGE = np.array([
    (0.0, 0.44), (0.06, 0.56), (0.17, 0.69), (0.4, 0.84), (0.7, 0.93), (1.1, 0.99), (1.5, 1.0),
    (1.9, 0.98), (2.6, 0.97),
])  # fmt: skip


def cage(y: np.ndarray | float) -> np.ndarray:
    """Return the distance of the inner chest wall from the midline at height y."""
    return cast(np.ndarray, np.interp(y, _CAGE[:, 0], _CAGE[:, 1]))


def bones(
    random: np.random.Generator, canvas: Canvas, anteroposterior: bool, right_dome: float
) -> np.ndarray:
    """Draw ribs, clavicles, scapulae, upper arms and spine, as an attenuation_HW."""
    spacing = 0.168 * right_dome / 1.65 * random.uniform(0.95, 1.05)
    slope = random.uniform(0.85, 1.15) * (0.8 if anteroposterior else 1.0)
    posterior: list[np.ndarray] = []
    anterior: list[np.ndarray] = []
    t = np.linspace(0, 1, 16)
    for side in SIDES.values():
        for number in range(1, 11):
            start = 0.02 + spacing * (number - 1)
            drop = slope * min(0.08 + 0.06 * number, 0.42)
            reach = float(cage(start + drop)) + 0.02 if number > 1 else 0.5
            x = 0.09 + (reach - 0.09) * np.sin(t * np.pi / 2)
            y = start - 0.035 * np.sin(np.pi * t) + drop * (1 - np.cos(t * np.pi / 2)) ** 1.15
            posterior.append(np.stack([side * x, y], axis=-1))
            if number <= 8:
                end = 0.16 + 0.045 * number
                fall = slope * (0.1 + 0.045 * number)
                x = reach - (reach - end) * (1 - np.cos(t * np.pi / 2))
                y = start + drop + fall * np.sin(t * np.pi / 2) ** 1.1 - 0.03 * t**3
                anterior.append(np.stack([side * x, y], axis=-1))
    lift = 0.1 * anteroposterior + random.uniform(-0.04, 0.04)
    path = [(0.08, 0.3), (0.22, 0.245), (0.5, 0.225), (0.82, 0.13), (1.15, 0.08), (1.3, 0.1)]
    clavicles = [
        spline(np.array(path) * (side, 1) + (0, random.normal(0, 0.012) - lift))
        for side in SIDES.values()
    ]

    # In PA the scapulae are rotated off the lungs.
    away = random.uniform(0.0, 0.06) + (0.0 if anteroposterior else 0.12)

    blade = np.array([
        (0.86, 0.25), (1.12, 0.2), (1.22, 0.34), (1.1, 0.75),
        (0.96, 1.02), (0.88, 0.9), (0.84, 0.5),
    ])  # fmt: skip
    head = np.array(
        [(1.26, 0.18), (1.42, 0.2), (1.47, 0.34), (1.4, 0.5), (1.28, 0.46), (1.22, 0.32)]
    )
    shaft = np.array([(1.3, 0.45), (1.43, 0.4), (1.62, 1.6), (1.5, 1.6)])
    acromion = np.array([(1.1, 0.06), (1.38, 0.08), (1.42, 0.14), (1.15, 0.2)])
    shoulders = [
        spline(part + (away, 0), True, 5) * (side, 1)
        for side in SIDES.values()
        for part in (blade, acromion, shaft, head)
    ]

    vertebrae, greys = [], []
    turn = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    pedicle = np.stack([0.018 * np.cos(turn), 0.028 * np.sin(turn) - 0.02], axis=-1)
    spinous_process = np.array([(-0.012, 0), (0.012, 0), (0.015, 0.09), (-0.015, 0.09)])
    corners = [(-1, -1), (0, -0.9), (1, -1), (0.88, 0), (1, 1), (0, 0.9), (-1, 1), (-0.88, 0)]
    vertebral_body = spline(corners, True, 3)
    for number in range(-5, 22):
        level = 0.06 + spacing * 0.97 * (number - 0.5)
        vertebrae += [
            vertebral_body * (0.085 + 0.0015 * number, 0.4 * spacing) + (0, level),
            pedicle + (-0.06, level),
            pedicle + (0.06, level),
            spinous_process + (0, level),
        ]
        greys += [0.36, 0.66, 0.66, 0.6]

    # Attenuation adds up where bones overlap, so bones that cross go into different layers.
    back, front = _hollow(posterior, 0.062), _hollow(anterior, 0.075)
    collar = _hollow(clavicles, 0.085)
    layer = random.uniform(0.12, 0.17) * canvas.fill(
        [*vertebrae, *back[0]], [*greys, *back[1]], blur=0.009
    )
    anterior_grey = random.uniform(0.4, 0.7)
    return layer + 0.155 * canvas.fill(
        [*shoulders, *front[0], *collar[0]],
        [0.36, 0.9, 1.0, 1.0] * 2 + [anterior_grey * grey for grey in front[1]] + collar[1],
        blur=0.009,
    )


def _hollow(paths: list[np.ndarray], width: float) -> tuple[list[np.ndarray], list[float]]:
    """Return polygons and greys of long bones from paths of equal length.

    They are densest at the edges, where the beam runs along the cortex.
    """
    paths_NP2 = np.stack(paths)
    outer, inner = ribbon(paths_NP2, width), ribbon(paths_NP2, 0.55 * width)
    polygons = [polygon for pair in zip(outer, inner, strict=True) for polygon in pair]
    return polygons, [1.0, 0.62] * len(paths)
