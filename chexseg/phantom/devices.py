"""Support devices of a synthetic radiograph: lines, tubes, leads and pacemakers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from chexseg.phantom.anatomy import Anatomy
from chexseg.phantom.canvas import Points, ribbon, spline

#: A part of a device: outline_P2 in body coordinates and its attenuation (1: the mediastinum).
Part = tuple[np.ndarray, float]


def support_devices(chest: Anatomy) -> tuple[np.ndarray, np.ndarray]:
    """Draw one to four devices as (attenuation_HW, mask_HW); AP radiographs show more of them."""
    random = chest.generator("Support Devices")
    odds = ODDS["AP" if chest.anteroposterior else "PA"]
    names = list(DEVICES)
    count = random.choice(
        (1, 2, 3, 4), p=(0.3, 0.35, 0.25, 0.1) if chest.anteroposterior else (0.72, 0.2, 0.06, 0.02)
    )
    chosen = random.choice(names, size=count, replace=False, p=[odds[name] for name in names])
    parts = [
        part
        for name in names
        if name in chosen
        for part in DEVICES[name](chest, chest.generator("Support Devices", name))
    ]
    outlines, densities = zip(*parts, strict=True)
    layer_HW = chest.canvas.fill(outlines, densities, blur=0.005)
    return layer_HW, layer_HW > 0.05


def _wire(points: Points, width: float, density: float) -> Part:
    return ribbon(spline(points), width), density


def central_line(chest: Anatomy, random: np.random.Generator) -> list[Part]:
    """Draw a line from the neck or below a clavicle to the lower superior vena cava."""
    x, y = chest.carina
    tip = (x - 0.1 + random.normal(0, 0.015), y + random.uniform(0.05, 0.4))
    paths = (
        # right internal jugular
        [(-0.42, -0.5), (-0.3, -0.15), (-0.2, 0.12), (-0.13, 0.4), tip],
        # right subclavian or arm
        [(-1.6, 0.65), (-1.25, 0.3), (-0.8, 0.2), (-0.4, 0.22), (-0.16, 0.36), tip],
        # left subclavian, across the midline
        [(1.3, 0.35), (0.8, 0.2), (0.4, 0.2), (0.1, 0.36), (-0.1, 0.5), tip],
    )
    return [_wire(paths[random.choice(3)], 0.02, random.uniform(0.2, 0.34))]


def endotracheal_tube(chest: Anatomy, random: np.random.Generator) -> list[Part]:
    """Draw two faint walls and a dense marker stripe that end just above the carina."""
    x, y = chest.carina
    end = y - random.uniform(0.12, 0.3)
    path = np.array([(random.normal(0, 0.03), -0.8), (0.0, -0.25), (x, end - 0.15), (x, end)])
    walls = [_wire(path + (shift, 0), 0.014, 0.17) for shift in (-0.034, 0.034)]
    return [(ribbon(spline(path), 0.07), 0.1), *walls, _wire(path + (0.018, 0), 0.018, 0.34)]


def nasogastric_tube(chest: Anatomy, random: np.random.Generator) -> list[Part]:
    """Draw a tube down the oesophagus to below the left half of the diaphragm."""
    x, dome = chest.carina[0], chest.domes["left"]
    turn = random.uniform(0.3, 0.6)
    path = [
        (0.02, -0.8), (0.03, -0.1), (x + 0.05, 0.6), (x + 0.08, 1.2),
        (0.14, dome + 0.1), (turn - 0.05, dome + 0.38), (turn + 0.1, dome + 0.3),
    ]  # fmt: skip
    return [_wire(path, 0.023, random.uniform(0.18, 0.3))]


def chest_tube(chest: Anatomy, random: np.random.Generator) -> list[Part]:
    """Draw a wide tube through the lateral chest wall towards the apex or the base."""
    side = random.choice((-1.0, 1.0))
    entry = random.uniform(0.95, 1.4)
    if random.random() < 0.7:
        path = [
            (1.55, entry + 0.35),
            (1.15, entry + 0.08),
            (0.85, entry - 0.2),
            (0.68, 0.55),
            (0.52, 0.2),
        ]
    else:
        path = [(1.55, entry + 0.1), (1.15, entry + 0.05), (0.8, entry + 0.12), (0.5, entry + 0.22)]
    points = np.array(path) * (side, 1)
    return [(ribbon(spline(points), 0.065), 0.12), _wire(points + (0.0, -0.012), 0.022, 0.36)]


def pacemaker(chest: Anatomy, random: np.random.Generator) -> list[Part]:
    """Draw a generator below one clavicle, mostly the left, with one to three heart leads."""
    side = 1.0 if random.random() < 0.85 else -1.0
    centre = np.array([side * random.uniform(0.66, 0.86), random.uniform(0.3, 0.48)])
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=-1)
    corner = np.sign(circle) * np.abs(circle) ** 0.6
    case = centre + corner * (random.uniform(0.13, 0.16), random.uniform(0.12, 0.15))
    bottom = chest.domes["left"]
    tips = [(0.34, bottom - 0.06), (-0.2, 0.62 * bottom + 0.1), (0.5, bottom - 0.3)][
        : random.integers(1, 4)
    ]
    leads = []
    for tip in tips:
        shift = random.uniform(-0.02, 0.02)
        vein = [
            (side * 0.4, 0.17 + shift),
            (side * 0.1, 0.28),
            (-0.12 + shift, 0.6),
            (-0.13 + shift, 0.72 * bottom),
        ]
        leads.append(_wire([tuple(centre - (side * 0.05, 0.12)), *vein, tip], 0.018, 0.34))
    return [*leads, (case, 0.55)]


def ecg_leads(chest: Anatomy, random: np.random.Generator) -> list[Part]:
    """Draw thin wires outside the body, each to an electrode on the skin."""
    parts: list[Part] = []
    turn = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    gather = np.array([random.uniform(-0.6, 0.6), 2.9])
    for x, y in [(-0.85, 0.3), (0.85, 0.3), (-0.9, 1.75), (0.95, 1.7), (0.3, 1.1)][
        : random.integers(2, 6)
    ]:
        spot = np.array([x, y]) + random.normal(0, 0.07, 2)
        bend = (spot + gather) / 2 + random.normal(0, 0.2, 2)
        parts.append(
            _wire([spot, (spot + bend) / 2 + random.normal(0, 0.08, 2), bend, gather], 0.016, 0.24)
        )
        parts.append((spot + 0.038 * np.stack([np.cos(turn), np.sin(turn)], axis=-1), 0.36))
    return parts


DEVICES: dict[str, Callable[[Anatomy, np.random.Generator], list[Part]]] = {
    "chest tube": chest_tube,
    "nasogastric tube": nasogastric_tube,
    "endotracheal tube": endotracheal_tube,
    "central line": central_line,
    "pacemaker": pacemaker,
    "ECG leads": ecg_leads,
}

#: Probability of each device, by projection: AP radiographs are taken in intensive care.
ODDS: dict[str, dict[str, float]] = {
    "AP": {
        "chest tube": 0.1,
        "nasogastric tube": 0.18,
        "endotracheal tube": 0.18,
        "central line": 0.3,
        "pacemaker": 0.06,
        "ECG leads": 0.18,
    },
    "PA": {
        "chest tube": 0.08,
        "nasogastric tube": 0.04,
        "endotracheal tube": 0.02,
        "central line": 0.4,
        "pacemaker": 0.36,
        "ECG leads": 0.1,
    },
}
