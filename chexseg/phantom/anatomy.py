"""The healthy chest of a synthetic frontal radiograph: outlines, air, soft tissue.

Each component draws from its own random numbers. Layers are in units of attenuation: 0 is air,
about 1 the mediastinum. Right and left are the patient's. The patient's right is on the image's
left, as a radiologist sees it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chexseg.phantom.canvas import SIDES, Canvas, ribbon, smoothstep, spline
from chexseg.phantom.skeleton import bones, cage
from chexseg.phantom.vessels import pulmonary_vessels
from chexseg.seeds import derive


@dataclass(frozen=True)
class Anatomy:
    """The chest that lesions and devices are drawn into."""

    seed: int
    canvas: Canvas
    # AP: a portable radiograph, taken from the front: larger heart, higher domes, arms down
    anteroposterior: bool
    domes: dict[str, float]  # y of the top of each half of the diaphragm
    recess: dict[str, float]  # y of each costophrenic angle
    carina: tuple[float, float]
    lung_outlines: dict[str, np.ndarray]  # side -> outline_P2
    heart_outline: np.ndarray
    mediastinum_outline: np.ndarray
    lungs: np.ndarray  # layer_HW in [0, 1]
    visible_lung: np.ndarray  # layer_HW in [0, 1]: lung not covered by heart or mediastinum
    vessels: np.ndarray  # layer_HW in [0, 1]: fraction of air that vessels and hila displace
    tissue: np.ndarray  # attenuation_HW of everything but air, as if the lungs held water

    def generator(self, *names: str) -> np.random.Generator:
        """Return the generator of one component; it depends only on the seed and the name."""
        return generator(self.seed, *names)


def generator(seed: int, *names: str) -> np.random.Generator:
    """Return the generator of the component called `names`."""
    return np.random.default_rng(derive(seed, *names))


def chest(
    seed: int,
    height: int,
    width: int,
    anteroposterior: bool,
    female: bool,
    big_heart: bool,
    wide_mediastinum: bool,
) -> Anatomy:
    """Draw the chest. The last two arguments change only the outlines they name."""
    canvas = _canvas(generator(seed, "position"), height, width, anteroposterior)
    shape = generator(seed, "shape")
    right_dome = shape.uniform(1.5, 1.78) - 0.14 * anteroposterior
    domes = {"right": right_dome, "left": right_dome + shape.uniform(0.03, 0.13)}
    depth = shape.uniform(0.24, 0.36)
    recess = {"right": domes["right"] + depth, "left": domes["left"] + depth - 0.02}
    # A rotated patient: heart and mediastinum lie beside the spine.
    twist = float(np.clip(shape.normal(0, 0.045), -0.1, 0.1))
    carina = (twist - 0.02, 0.64 * right_dome / 1.65)

    lung_outlines = {side: _lung_outline(side, domes[side], recess[side]) for side in SIDES}
    lungs = canvas.fill(list(lung_outlines.values()), blur=0.008)
    heart_outline = _heart_outline(
        generator(seed, "heart"), domes["left"], twist, anteroposterior, big_heart
    )
    mediastinum_outline = _mediastinum_outline(
        generator(seed, "mediastinum"), right_dome, twist, anteroposterior, wide_mediastinum
    )
    body, tissue = _soft_tissue(
        generator(seed, "soft tissue"), canvas, anteroposterior, female, domes
    )
    tissue += bones(generator(seed, "bones"), canvas, anteroposterior, right_dome) * body
    tissue -= _airways_and_stomach(generator(seed, "airways"), canvas, carina, domes)
    return Anatomy(
        seed=seed,
        canvas=canvas,
        anteroposterior=anteroposterior,
        domes=domes,
        recess=recess,
        carina=carina,
        lung_outlines=lung_outlines,
        heart_outline=heart_outline,
        mediastinum_outline=mediastinum_outline,
        lungs=lungs,
        # Lung behind the heart shows through it a little; behind the mediastinum, hardly at all.
        visible_lung=lungs
        * (1 - canvas.fill([heart_outline, mediastinum_outline], [0.87, 0.95], blur=0.012)),
        vessels=pulmonary_vessels(generator(seed, "vessels"), canvas, carina),
        tissue=tissue,
    )


def _canvas(random: np.random.Generator, height: int, width: int, anteroposterior: bool) -> Canvas:
    unit = min(0.43 * width, 0.41 * height) * random.uniform(0.88, 1.06)
    tilt = np.deg2rad(random.normal(0, 3.0 if anteroposterior else 1.5))
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    matrix = turn * unit * np.array([random.uniform(0.96, 1.06), random.uniform(0.95, 1.05)])
    centre = np.array(
        [
            width * (0.5 + float(np.clip(random.normal(0, 0.03), -0.06, 0.06))),
            height * (0.49 + float(np.clip(random.normal(0, 0.025), -0.05, 0.05))),
        ]
    )
    return Canvas(height, width, matrix, centre - matrix @ np.array([0.0, 1.0]))


def _lung_outline(side: str, dome: float, recess: float) -> np.ndarray:
    wall = [(float(cage(y)), y) for y in (0.17, 0.4, 0.7, 1.0, 1.3, recess - 0.2)]
    points = [
        (0.05, 0.3), (0.16, 0.13), (0.3, 0.02), (0.47, 0.02), *wall,
        (float(cage(recess)) - 0.01, recess), (0.86, recess - 0.13), (0.68, dome + 0.035),
        (0.45, dome), (0.24, dome + 0.035), (0.12, dome + 0.05), (0.05, dome - 0.1),
    ]  # fmt: skip
    return spline(points, closed=True, steps=6) * (SIDES[side], 1.0)


def _heart_outline(
    random: np.random.Generator, dome: float, twist: float, anteroposterior: bool, big: bool
) -> np.ndarray:
    # The largest healthy hearts are larger than the smallest that have grown.
    normal = random.uniform(0.82, 1.18) + 0.05 * anteroposterior
    growth = random.uniform(1.15, 1.45)
    right_share = random.uniform(0.6, 1.1)
    left, right = (
        (1 + (growth - 1) * (share if big else 0)) * normal for share in (1.0, right_share)
    )
    left = min(left, 1.42)  # a wider heart would leave no lung beside it
    # (x, fraction of the distance from the top of the heart to its bottom)
    contour = np.array([
        (0.04, 0.0), (-0.11, 0.05), (-0.19, 0.25), (-0.245, 0.48), (-0.24, 0.68), (-0.16, 0.88),
        (0.02, 0.98), (0.25, 1.0), (0.45, 0.97), (0.575, 0.85), (0.57, 0.68), (0.47, 0.46),
        (0.34, 0.27), (0.22, 0.1),
    ])  # fmt: skip
    top, bottom = 0.66 * dome / 1.7, dome + 0.1
    x = np.where(contour[:, 0] > 0, left, right) * contour[:, 0] + 0.01 * random.normal(
        size=len(contour)
    )
    apex_lift = 0.06 * random.uniform(0, 1) * (contour[:, 0] > 0.4)
    return spline(
        np.stack([x + twist, top + (bottom - top) * (contour[:, 1] - apex_lift)], axis=-1),
        closed=True,
        steps=6,
    )


def _mediastinum_outline(
    random: np.random.Generator, right_dome: float, twist: float, anteroposterior: bool, wide: bool
) -> np.ndarray:
    normal = random.uniform(0.85, 1.25) + 0.08 * anteroposterior
    knob = random.uniform(0.18, 0.23)
    growth = random.uniform(0.055, 0.13)
    right = [
        (-0.10, -0.2),
        (-0.12, 0.1),
        (-0.135, 0.35),
        (-0.145, 0.6),
        (-0.15, 0.85),
        (-0.14, 1.2),
        (-0.15, 1.75),
    ]
    left = [
        (0.16, 1.75), (0.15, 1.2), (0.21, 0.85), (0.195, 0.7), (0.16, 0.575),
        (knob, 0.45), (0.15, 0.3), (0.11, 0.1), (0.1, -0.2),
    ]  # fmt: skip
    points = np.array(right + left)
    points[:, 0] *= normal
    if wide:  # only above the heart, whose outline covers everything below
        points[:, 0] += (
            np.sign(points[:, 0])
            * growth
            * np.interp(points[:, 1], [0.05, 0.3, 0.85, 1.3], [0.0, 1.0, 0.9, 0.0])
        )
    points[:, 0] += twist
    points[:, 1] *= np.where(points[:, 1] > 0, right_dome / 1.65, 1)
    return spline(points, closed=True, steps=5)


def _soft_tissue(
    random: np.random.Generator,
    canvas: Canvas,
    anteroposterior: bool,
    female: bool,
    domes: dict[str, float],
) -> tuple[np.ndarray, np.ndarray]:
    """Return (the body as a layer_HW in [0, 1], attenuation_HW)."""
    fat = random.uniform(0.0, 0.1)
    # The distance between the arms and the trunk.
    spread = random.uniform(0.0, 0.1) if anteroposterior else random.uniform(0.1, 0.35)
    wall = 1.15 + fat
    half = [
        (0.3, -1.5), (0.29, -0.5), (0.36, -0.22), (0.7, -0.08), (1.12, 0.0),
        (1.42 + spread / 2, 0.14), (1.62 + spread, 0.45), (1.72 + 1.6 * spread, 0.9),
        (1.75 + 2.4 * spread, 1.6), (1.45 + 2.4 * spread, 1.6), (1.36 + 1.5 * spread, 1.0),
        (wall + 0.06, 0.78), (wall, 1.1), (wall, 1.6), (wall + 0.02, 2.2), (wall + 0.06, 3.5),
    ]  # fmt: skip
    outline = spline(half + [(-x, y) for x, y in reversed(half)], closed=True, steps=5)

    def thickness(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        trunk = 0.66 + 0.26 * np.sqrt(np.clip(1 - (x / 1.3) ** 2, 0, 1)) + fat
        neck_and_shoulders = 0.12 * smoothstep((0.25 - y) / 0.6)
        middle = 0.07 * np.exp(-((x / 0.22) ** 2))
        abdomen = 0.12 * smoothstep((y - domes["right"]) / 0.5)
        return trunk + middle + abdomen - neck_and_shoulders

    body = canvas.fill([outline], blur=0.02)
    layer = canvas.field(thickness) * body
    if female:
        fall, size = random.uniform(1.25, 1.55), random.uniform(0.35, 0.5)
        breasts = [
            spline(
                [
                    (s * 0.2, fall - 0.5),
                    (s * 1.1, fall - 0.5),
                    (s * 1.15, fall),
                    (s * (0.6 + size / 4), fall + size / 2),
                    (s * 0.22, fall),
                ],
                True,
            )
            for s in SIDES.values()
        ]
        layer += random.uniform(0.05, 0.11) * canvas.fill(breasts, blur=0.045)
    return body, layer


def _airways_and_stomach(
    random: np.random.Generator,
    canvas: Canvas,
    carina: tuple[float, float],
    domes: dict[str, float],
) -> np.ndarray:
    x, y = carina
    trachea = ribbon(spline([(0.0, -1.0), (0.0, -0.2), (x - 0.005, 0.25), (x, y)]), 0.095)
    bronchi = [
        ribbon(spline([(x, y - 0.02), (x + s * 0.1, y + 0.09), (x + s * 0.26, y + reach)]), 0.06)
        for s, reach in ((-1, 0.22), (1, 0.16))
    ]
    parts = [(bronchi[0], 0.3), (bronchi[1], 0.3), (trachea, 0.5)]
    bubble_seen, gas_seen = random.random() < 0.6, random.random() < 0.4
    radius, bubble_x = random.uniform(0.1, 0.2), random.uniform(0.38, 0.6)
    darkness = random.uniform(0.55, 1.0)
    bubble = np.array([
        (-1.0, 0.55), (-0.75, 0.15), (0.0, 0.0), (0.75, 0.15), (1.1, 0.6), (0.6, 0.95), (-0.4, 1.0),
    ])  # fmt: skip
    if bubble_seen:
        place = (bubble_x, domes["left"] + 0.09)
        parts.append((spline(bubble * (1.3 * radius, 1.1 * radius) + place, True), darkness))
    if gas_seen:
        parts += [
            (spline(bubble * 0.1 + random.uniform((0.1, 2.25), (0.9, 2.6)), True, 4), 0.4)
            for _ in range(5)
        ]
    outlines, greys = zip(*parts, strict=True)
    return 0.28 * canvas.fill(outlines, greys, blur=0.018)
