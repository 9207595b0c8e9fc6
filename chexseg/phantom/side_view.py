"""One synthetic lateral radiograph, with the findings of its study.

Body coordinates as in `canvas`, but x points to the patient's back. CheXlocalize has no masks of
lateral views, so none are drawn.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from chexseg.phantom.anatomy import generator
from chexseg.phantom.canvas import Canvas, blob, ribbon, smoothstep, spline
from chexseg.phantom.film import expose

#: Air that each finding displaces, as its outlines' grey, and the standard deviation of their blur.
_PATCHES = {
    "Airspace Opacity": (0.4, 0.055),
    "Consolidation": (0.75, 0.03),
    "Edema": (0.4, 0.1),
    "Lung Lesion": (0.5, 0.016),
    "Atelectasis": (0.55, 0.016),
}


def lateral(seed: int, height: int, width: int, present: Collection[str] = ()) -> np.ndarray:
    """Return a side view, pixels_HW uint8; the patient faces left. present: pathologies to draw.

    The same seed gives the same chest and exposure, whatever is present.
    """
    random = generator(seed, "lateral")
    unit = min(0.44 * width, 0.385 * height) * random.uniform(0.95, 1.05)
    matrix = unit * np.diag(random.uniform(0.95, 1.05, 2))
    canvas = Canvas(
        height,
        width,
        matrix,
        np.array([0.5 * width, 0.49 * height]) - matrix @ np.array([0.05, 1.0]),
    )
    dome = random.uniform(1.4, 1.6)
    trunk = [
        (-0.2, -1.0), (-0.35, -0.15), (-0.75, 0.3), (-0.95, 0.8), (-0.98, 1.5), (-0.95, 3.0),
        (1.0, 3.0), (1.12, 1.6), (1.1, 0.7), (0.85, 0.1), (0.5, -0.3), (0.4, -1.0),
    ]  # fmt: skip
    lung = [
        (-0.1, 0.06), (0.35, 0.0), (0.72, 0.3), (0.92, 0.8), (0.97, 1.4), (0.92, dome + 0.5),
        (0.6, dome + 0.2), (0.1, dome), (-0.4, dome + 0.02), (-0.76, dome + 0.12), (-0.8, 1.0),
        (-0.62, 0.5), (-0.36, 0.2),
    ]  # fmt: skip
    heart = np.array([
        (-0.5, 0.85), (-0.15, 0.75), (0.2, 1.0), (0.32, 1.4), (0.22, dome + 0.1),
        (-0.3, dome + 0.15), (-0.72, dome + 0.15), (-0.74, 1.3),
    ])  # fmt: skip
    anatomy = generator(seed, "lateral heart")
    size, growth = anatomy.uniform(0.9, 1.12), anatomy.uniform(1.15, 1.45)
    heart[:, 0] = (heart[:, 0] + 0.74) * size * (growth if "Cardiomegaly" in present else 1) - 0.74
    widening = anatomy.uniform(0.08, 0.16) * ("Enlarged Cardiomediastinum" in present)
    attenuation_HW = random.uniform(0.9, 1.05) * canvas.fill([spline(trunk, True)], blur=0.03)
    lung_HW = canvas.fill([spline(lung, True)], blur=0.012)
    air_HW = lung_HW * (1 - 0.6 * canvas.fill([spline(heart, True)], blur=0.03))
    arch = spline(
        [(-0.1, 0.85), (-0.05, 0.5), (0.2, 0.42), (0.42, 0.6), (0.5, 1.0), (0.52, dome + 0.2)]
    )
    air_HW *= 1 - 0.25 * canvas.fill([ribbon(arch, 0.22 + widening)], blur=0.03)
    for name, (grey, blur) in _PATCHES.items():
        if name in present:
            outlines = _outlines(name, generator(seed, "lateral", name), dome)
            air_HW *= 1 - grey * canvas.fill(outlines, blur=blur)
    if "Pleural Effusion" in present:
        air_HW *= 1 - 0.9 * _fluid(generator(seed, "lateral", "Pleural Effusion"), canvas, dome)
    if "Pneumothorax" in present:
        depth = generator(seed, "lateral", "Pneumothorax").uniform(0.25, 0.5)
        apex_HW = canvas.field(lambda x, y: smoothstep((depth - y) / 0.02)) * lung_HW
        air_HW += 0.12 * apex_HW
    bones = []  # outline_P2 and grey
    for number in range(14):
        y = 0.1 + 0.17 * number
        x = 0.55 + 0.2 * np.sin(np.pi * np.clip(y / 2.2, 0, 1))
        corners = np.array([(-1, -1), (1, -1), (0.9, 0), (1, 1), (-1, 1), (-0.9, 0)])
        bones.append((spline(corners * (0.1, 0.068) + (x, y), True, 3), 0.8))
        if number < 7:
            fall = [(x + 0.1, y), (x + 0.3, y + 0.1), (x - 0.2, y + 0.5), (x - 0.9, y + 0.85)]
            bones.append((ribbon(spline(fall), 0.05), 0.35))
    bones.append((ribbon(spline([(-0.5, 0.25), (-0.72, 0.6), (-0.84, 1.1)]), 0.06), 0.9))
    outlines, greys = zip(*bones, strict=True)
    attenuation_HW += 0.2 * canvas.fill(outlines, greys, blur=0.012)
    trachea = ribbon(spline([(0.05, -0.8), (0.1, 0.2), (0.18, 0.75)]), 0.1)
    attenuation_HW -= 0.14 * canvas.fill([trachea], blur=0.016)
    if "Support Devices" in present:
        devices = _devices(generator(seed, "lateral", "Support Devices"), dome)
        attenuation_HW += 0.3 * canvas.fill(devices, blur=0.005)
    return expose(seed, attenuation_HW - 0.5 * air_HW, False)[0]


def _outlines(name: str, random: np.random.Generator, dome: float) -> list[np.ndarray]:
    """Return the outlines_P2 of a finding inside the lung."""
    if name == "Atelectasis":  # plates above the diaphragm
        low = dome - random.uniform(0.05, 0.25)
        start, length = random.uniform(-0.3, 0.2), random.uniform(0.5, 0.7)
        ends = [(start, low), (start + length / 2, low - 0.05), (start + length, low + 0.05)]
        return [ribbon(spline(ends), random.uniform(0.1, 0.18))]
    if name == "Edema":  # around the hila
        return [blob(random, (0.2, 0.8), (random.uniform(0.4, 0.55), 0.5), 0.1)]
    if name == "Lung Lesion":
        radius = random.uniform(0.065, 0.15)
        return [
            blob(random, (random.uniform(-0.4, 0.7), random.uniform(0.35, 0.7)), (radius,) * 2, 0.1)
        ]
    size = random.uniform(0.25, 0.45)
    centre = (random.uniform(-0.4, 0.7), random.uniform(0.4, dome - 0.1))
    return [blob(random, centre, (size, size * random.uniform(0.75, 1.15)), 0.2)]


def _fluid(random: np.random.Generator, canvas: Canvas, dome: float) -> np.ndarray:
    """Return fluid in the recess behind the diaphragm, a layer_HW that climbs the back."""
    level = dome + 0.45 - random.uniform(0.25, 0.8)
    return canvas.field(
        lambda x, y: smoothstep((y - level - 0.3 * np.clip(0.9 - x, 0, 1)) / 0.1 + 0.5)
    )


def _devices(random: np.random.Generator, dome: float) -> list[np.ndarray]:
    """Return a line to the heart or a tube down the oesophagus, as outlines_P2."""
    line = [(0.0, -0.6), (-0.05, 0.2), (0.02, 0.6), (0.0, random.uniform(0.85, 1.2))]
    tube = [(0.12, -0.8), (0.25, 0.2), (0.35, 0.9), (0.2, dome + random.uniform(0.05, 0.3))]
    return [ribbon(spline(line if random.random() < 0.6 else tube), 0.025)]
