"""The pathologies of lung and pleura: where each displaces air, and its mask.

Each function has its own generator, so adding one lesion doesn't move another. All but the
pneumothorax return the fraction of air they displace. Displacement outside the lungs has no effect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from chexseg.phantom.anatomy import Anatomy
from chexseg.phantom.canvas import SIDES, blob, ribbon, smoothstep, spline
from chexseg.phantom.skeleton import cage


@dataclass(frozen=True)
class Lesion:
    """One pathology on one image."""

    displaced_HW: np.ndarray  # fraction of the air that is displaced, in [0, 1]
    mask_HW: np.ndarray  # bool


def _lesion(
    chest: Anatomy,
    shape_HW: np.ndarray,
    strength: float,
    texture_HW: np.ndarray | float = 1.0,
    level: float = 0.3,
) -> Lesion:
    """Return a lesion of shape_HW in [0, 1]; its mask is visible lung where it exceeds `level`."""
    displaced_HW = np.clip(strength * shape_HW * texture_HW, 0, 0.95)
    mask_HW = shape_HW * chest.visible_lung > level
    if not mask_HW.any():  # entirely behind the heart, through which it shows faintly
        mask_HW = shape_HW * chest.lungs > level
    return Lesion(displaced_HW, mask_HW)


def haze(chest: Anatomy) -> Lesion:
    """Draw airspace opacity: one to three ill-defined patches, mostly in the lower zones."""
    random = chest.generator("Airspace Opacity")
    patches = [_patch(chest, random)]
    patches += [_patch(chest, random) for _ in range(random.choice(3, p=(0.55, 0.3, 0.15)))]
    shape_HW = chest.canvas.fill(patches, blur=0.055)
    texture_HW = 1 + 0.22 * chest.canvas.noise(random, 0.12)
    return _lesion(chest, shape_HW, random.uniform(0.19, 0.45), texture_HW)


def _patch(chest: Anatomy, random: np.random.Generator) -> np.ndarray:
    return blob(random, *_zone(chest, random), 0.22)


def _zone(
    chest: Anatomy, random: np.random.Generator
) -> tuple[tuple[float, float], tuple[float, float]]:
    side = random.choice(list(SIDES))
    down = random.choice((0.26, 0.55, 0.8), p=(0.2, 0.3, 0.5)) + random.uniform(-0.06, 0.06)
    y = down * chest.domes[side]
    beside_heart = 0.14 if side == "left" and down > 0.7 else 0.0
    x = SIDES[side] * float(cage(y)) * (random.uniform(0.5, 0.7) + beside_heart)
    size = random.uniform(0.32, 0.54)
    return (x, y), (size, size * random.uniform(0.75, 1.15))


def consolidation(chest: Anatomy) -> Lesion:
    """Draw a dense patch with air bronchograms, within the first patch of the haze around it."""
    (x, y), (across, down) = _zone(chest, chest.generator("Airspace Opacity"))
    random = chest.generator("Consolidation")
    size = random.uniform(0.72, 0.92)
    centre = (x + across * random.uniform(-0.08, 0.08), y + down * random.uniform(-0.08, 0.08))
    outline = blob(random, centre, (size * across, size * down), 0.15)
    shape_HW = chest.canvas.fill([outline], blur=0.03)
    hilum = np.array([np.sign(x) * 0.25, chest.carina[1] + 0.15])
    bronchi = []
    for _ in range(4):
        end = np.array(centre) + random.uniform(-0.7, 0.7, 2) * size * (across, down)
        bend = (hilum + end) / 2 + random.uniform(-0.06, 0.06, 2)
        bronchi.append(ribbon(spline([hilum, bend, end]), np.linspace(0.04, 0.015, 17)))
    texture_HW = (
        1 + 0.1 * chest.canvas.noise(random, 0.1) - 0.4 * chest.canvas.fill(bronchi, blur=0.008)
    )
    return _lesion(chest, shape_HW, random.uniform(0.6, 0.85), texture_HW, level=0.35)


def edema(chest: Anatomy) -> Lesion:
    """Draw perihilar haze on both sides, in the shape of a bat's wings."""
    random = chest.generator("Edema")
    reach, extent = random.uniform(0.36, 0.5), random.uniform(0.5, 0.68)
    centre = chest.carina[1] + 0.25 + random.uniform(-0.05, 0.08)
    sides = {side: random.uniform(0.85, 1.1) for side in SIDES}

    def wings(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        size = np.where(x < 0, sides["right"], sides["left"])
        distance = np.sqrt(
            ((np.abs(x) - 0.38) / (reach * size)) ** 2
            + ((y - centre - 0.1 * np.abs(x)) / (extent * size)) ** 2
        )
        return smoothstep((1.15 - distance) / 0.6)

    strength = random.uniform(0.2, 0.48)
    texture_HW = 1 + 0.22 * chest.canvas.noise(random, 0.09)
    return _lesion(chest, chest.canvas.field(wings), strength, texture_HW, level=0.35)


def lung_lesion(chest: Anatomy) -> Lesion:
    """Draw one to three nodules."""
    random = chest.generator("Lung Lesion")
    count = random.choice((1, 2, 3), p=(0.7, 0.18, 0.12))
    strength = random.uniform(0.38, 0.62)
    # Of 60 candidates take the first that neither heart nor mediastinum hides.
    sign = random.choice(list(SIDES.values()), 60)
    y = random.uniform(0.2, chest.domes["right"] - 0.1, 60)
    centres = np.stack([sign * random.uniform(0.25, 0.9, 60) * cage(y), y], axis=-1)
    radii = random.uniform(0.065, 0.15, (60, 1)) * random.uniform(0.9, 1.1, (60, 2))
    columns, rows = np.rint(chest.canvas.pixels(centres)).astype(int).T
    on_film = (
        (rows >= 0) & (rows < chest.canvas.height) & (columns >= 0) & (columns < chest.canvas.width)
    )
    seen = on_film & (
        chest.visible_lung[np.where(on_film, rows, 0), np.where(on_film, columns, 0)] > 0.8
    )
    nodules = [
        blob(chest.generator("Lung Lesion", str(i)), centres[i], radii[i], 0.1)
        for i in np.flatnonzero(seen)[:count]
    ]
    return _lesion(chest, chest.canvas.fill(nodules, blur=0.016), strength, level=0.35)


def atelectasis(chest: Anatomy) -> Lesion:
    """Draw the collapsed base of one lung or both, or broad bands above the diaphragm."""
    random = chest.generator("Atelectasis")
    bands = []
    for side in SIDES if random.random() < 0.35 else [random.choice(list(SIDES))]:
        base, count = random.random() < 0.5, random.integers(1, 3)
        height, lift = random.uniform(0.3, 0.5), random.uniform(0.0, 0.12)
        if base:
            y = chest.domes[side] - lift
            centre = (SIDES[side] * float(cage(y)) * random.uniform(0.58, 0.68), y)
            bands.append(blob(random, centre, (random.uniform(0.38, 0.48), height), 0.1))
            continue
        for _ in range(count):
            width, thickness = random.uniform(0.55, 0.75), random.uniform(0.16, 0.28)
            y = chest.domes[side] - random.uniform(0.12, 0.45)
            x = float(cage(y)) - random.uniform(0.22, 0.4)  # beside even a large heart
            tilt = np.deg2rad(random.normal(0, 14))
            t = np.linspace(-1, 1, 13)
            path = np.stack(
                [
                    x + width / 2 * t * np.cos(tilt),
                    y + width / 2 * t * np.sin(tilt) - 0.03 * (1 - t * t),
                ],
                axis=-1,
            )
            bands.append(
                ribbon(path * (SIDES[side], 1), thickness * np.sqrt(np.clip(1.02 - t * t, 0, 1)))
            )
    shape_HW = chest.canvas.fill(bands, blur=0.016)
    texture_HW = 1 + 0.12 * chest.canvas.noise(random, 0.08)
    return _lesion(chest, shape_HW, random.uniform(0.42, 0.65), texture_HW, level=0.3)


def effusion(chest: Anatomy) -> Lesion:
    """Draw fluid that fills the costophrenic angle and climbs the chest wall in a meniscus."""
    random = chest.generator("Pleural Effusion")
    both = random.random() < 0.45
    chosen = random.choice(list(SIDES))
    levels = {side: 0.42 + 0.95 * random.beta(1.2, 1.9) for side in SIDES}
    rise, rim = random.uniform(0.12, 0.22), random.uniform(0.09, 0.15)
    # When the patient lies supine, the fluid spreads behind the lung.
    blur = 0.14 if chest.anteroposterior else 0.07

    def fluid(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        layer = np.zeros_like(x)
        for side, sign in SIDES.items():
            if both or side == chosen:
                from_wall = np.clip(cage(1.6) - sign * x, 0, None)
                surface = chest.recess[side] - levels[side] + rise * (1 - np.exp(-from_wall / rim))
                layer = np.where(sign * x > 0, smoothstep((y - surface) / blur + 0.5), layer)
        return layer

    return _lesion(chest, chest.canvas.field(fluid), 0.9, level=0.35)


def pneumothorax(chest: Anatomy) -> tuple[Lesion, np.ndarray]:
    """Draw air between lung and chest wall, widest at the apex.

    Returns the lesion and the layer_HW of the thin pleural line. The lesion's `displaced_HW` is
    the air that holds neither vessels nor lung tissue.
    """
    random = chest.generator("Pneumothorax")
    side = random.choice(list(SIDES))
    depth = random.uniform(0.13, 0.34)
    end = random.uniform(0.8, 1.5)
    outline = chest.lung_outlines[side]
    hilum = np.array([SIDES[side] * 0.15, chest.carina[1] + 0.1])
    x, y = outline[:, 0] * SIDES[side], outline[:, 1]
    outward = outline - hilum
    length = np.linalg.norm(outward, axis=1)
    retreat = depth * smoothstep((end - y) / (0.8 * end)) * smoothstep((x - 0.12) / 0.2)
    collapsed = hilum + outward * (1 - retreat / np.maximum(length, retreat + 1e-6))[:, None]
    shrunken = [collapsed, chest.lung_outlines["left" if side == "right" else "right"]]
    free_HW = chest.lungs * (1 - chest.canvas.fill(shrunken, blur=0.006))
    # No pleural line is visible where the lung still touches the wall.
    line = ribbon(collapsed, np.where(retreat > 0.03, 0.014, 0.0))
    pleura_HW = chest.canvas.fill([line], blur=0.003) * chest.visible_lung
    return Lesion(free_HW, free_HW * chest.visible_lung > 0.4), pleura_HW


#: Lesions that displace air, by pathology.
DISPLACING: dict[str, Callable[[Anatomy], Lesion]] = {
    "Airspace Opacity": haze,
    "Consolidation": consolidation,
    "Edema": edema,
    "Lung Lesion": lung_lesion,
    "Atelectasis": atelectasis,
    "Pleural Effusion": effusion,
}
