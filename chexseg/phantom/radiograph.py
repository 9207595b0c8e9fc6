"""One synthetic frontal radiograph: anatomy and pathologies, exposed on a film."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from chexseg.errors import UserError
from chexseg.pathologies import PATHOLOGIES
from chexseg.phantom.anatomy import Anatomy, chest
from chexseg.phantom.devices import support_devices
from chexseg.phantom.film import expose
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
    pixels_HW, field = expose(seed, attenuation_HW, projection == "AP")
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
