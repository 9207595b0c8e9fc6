"""One synthetic chest radiograph: anatomy and pathologies, exposed on a film."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from chexseg.errors import UserError
from chexseg.pathologies import PATHOLOGIES
from chexseg.phantom.anatomy import Anatomy, chest, generator
from chexseg.phantom.canvas import Canvas, ribbon, spline
from chexseg.phantom.devices import support_devices
from chexseg.phantom.lesions import DISPLACING, pneumothorax

#: Attenuation removed by the air of a full lung, and further by a pleural space without vessels.
_AIR, _FREE_AIR = 0.56, 0.06


def radiograph(
    seed: int,
    height: int,
    width: int,
    present: Collection[str],
    projection: str = "PA",
    sex: str = "Female",
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return a frontal radiograph: (pixels_HW uint8, pathology -> mask_HW bool for all ten).

    present: the pathologies to draw. projection: "PA" or "AP". A consolidation brings the haze
    around it. Consolidation and edema are part of the Airspace Opacity mask, as in CheXlocalize,
    so that mask may be filled although `present` doesn't name it. The same seed gives the same
    chest and exposure, whatever is present. Raises `UserError` for an unknown name.
    """
    if unknown := set(present) - set(PATHOLOGIES):
        raise UserError(f"present: found {sorted(unknown)}; allowed: {', '.join(PATHOLOGIES)}")
    if projection not in ("PA", "AP"):
        raise UserError(f"projection: found {projection!r}; allowed: PA, AP")
    drawn = set(present) | ({"Airspace Opacity"} if "Consolidation" in present else set())
    masks = {name: np.zeros((height, width), dtype=bool) for name in PATHOLOGIES}
    body = chest(
        seed,
        height,
        width,
        projection == "AP",
        sex == "Female",
        "Cardiomegaly" in drawn,
        "Enlarged Cardiomediastinum" in drawn,
    )

    # Lungs taper towards their rim.
    thickness_HW = 0.4 + 0.6 * body.canvas.fill(list(body.lung_outlines.values()), blur=0.07)
    # A healthy chest varies in grey; without this, grey alone would give away the faintest haze.
    unevenness = body.generator("unevenness")
    thickness_HW += unevenness.uniform(0.02, 0.07) * body.canvas.noise(unevenness, 0.3)
    air_HW = body.visible_lung * thickness_HW
    vessels_HW = body.vessels
    added_HW = np.zeros_like(air_HW)
    if "Pneumothorax" in drawn:
        lesion, pleura_HW = pneumothorax(body)
        vessels_HW = vessels_HW * (1 - lesion.displaced_HW)
        added_HW += 0.1 * pleura_HW - _FREE_AIR * lesion.displaced_HW
        masks["Pneumothorax"] = lesion.mask_HW
    air_HW *= 1 - vessels_HW
    for name, draw in DISPLACING.items():
        if name in drawn:
            lesion = draw(body)
            air_HW *= 1 - lesion.displaced_HW
            masks[name] = lesion.mask_HW
    masks["Consolidation"] &= masks["Airspace Opacity"]
    masks["Airspace Opacity"] |= masks["Edema"]
    if "Support Devices" in drawn:
        devices_HW, masks["Support Devices"] = support_devices(body)
        added_HW += devices_HW
    if "Cardiomegaly" in drawn:
        masks["Cardiomegaly"] = body.canvas.fill([body.heart_outline]) > 0.5
    if "Enlarged Cardiomediastinum" in drawn:
        masks["Enlarged Cardiomediastinum"] = _cardiomediastinum(body)
    attenuation_HW = body.tissue - _AIR * air_HW + added_HW
    pixels_HW, field = _expose(seed, attenuation_HW, projection == "AP")
    for name, mask_HW in masks.items():
        masks[name] = np.zeros_like(mask_HW)
        masks[name][field] = mask_HW[field]
    return pixels_HW, masks


def _cardiomediastinum(body: Anatomy) -> np.ndarray:
    """Return the mask_HW of heart and mediastinum, from the top of the lungs to the diaphragm."""
    upper = body.mediastinum_outline[
        (body.mediastinum_outline[:, 1] > 0.1)
        & (body.mediastinum_outline[:, 1] < body.domes["right"])
    ]
    return body.canvas.fill([upper, body.heart_outline]) > 0.5


def _expose(
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


def lateral(seed: int, height: int, width: int) -> np.ndarray:
    """Return a side view, pixels_HW uint8, without pathologies; the patient faces left."""
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
    heart = [
        (-0.5, 0.85), (-0.15, 0.75), (0.2, 1.0), (0.32, 1.4), (0.22, dome + 0.1),
        (-0.3, dome + 0.15), (-0.72, dome + 0.15), (-0.74, 1.3),
    ]  # fmt: skip
    attenuation_HW = random.uniform(0.9, 1.05) * canvas.fill([spline(trunk, True)], blur=0.03)
    air_HW = canvas.fill([spline(lung, True)], blur=0.012) * (
        1 - 0.6 * canvas.fill([spline(heart, True)], blur=0.03)
    )
    arch = spline(
        [(-0.1, 0.85), (-0.05, 0.5), (0.2, 0.42), (0.42, 0.6), (0.5, 1.0), (0.52, dome + 0.2)]
    )
    air_HW *= 1 - 0.25 * canvas.fill([ribbon(arch, 0.22)], blur=0.03)
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
    return _expose(seed, attenuation_HW - 0.5 * air_HW, False)[0]
