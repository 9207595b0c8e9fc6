"""Simulated radiologists: they miss findings, and shift, smooth or enlarge the true masks.

They replace CheXlocalize's human benchmark, so a report on synthetic data has radiologists too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from PIL import Image, ImageFilter

from chexseg.phantom.canvas import Canvas


@dataclass(frozen=True)
class Habit:
    """A reader's errors for one pathology. Lengths are in units of the finding's thickness."""

    missed: float  # probability of drawing nothing
    wander: float  # standard deviation of the outline's distance from the true one
    generous: tuple[float, float]  # range of the outline's distance outside the true one


HABITS: dict[str, Habit] = {
    "Airspace Opacity": Habit(0.12, 0.3, (-0.25, 0.35)),
    "Atelectasis": Habit(0.2, 0.3, (-0.1, 0.8)),
    "Cardiomegaly": Habit(0.06, 0.1, (-0.15, 0.1)),
    "Consolidation": Habit(0.2, 0.35, (-0.2, 0.5)),
    "Edema": Habit(0.15, 0.25, (-0.25, 0.25)),
    "Enlarged Cardiomediastinum": Habit(0.08, 0.12, (-0.15, 0.15)),
    "Lung Lesion": Habit(0.2, 0.25, (-0.1, 0.5)),
    "Pleural Effusion": Habit(0.12, 0.3, (-0.2, 0.5)),
    "Pneumothorax": Habit(0.2, 0.3, (-0.2, 0.4)),
    "Support Devices": Habit(0.03, 0.3, (0.0, 0.45)),
}

#: The pathology that a finding may be mistaken for, in addition to its true name.
CONFUSIONS: dict[str, str] = {
    "Airspace Opacity": "Consolidation",
    "Atelectasis": "Airspace Opacity",
    "Consolidation": "Lung Lesion",
    "Edema": "Airspace Opacity",
    "Pleural Effusion": "Atelectasis",
}
_CONFUSED = 0.06


def read_masks(
    random: np.random.Generator, masks: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return one reader's masks_HW by pathology, given the true ones."""
    drawn = {name: np.zeros_like(mask_HW) for name, mask_HW in masks.items()}
    for name, mask_HW in masks.items():
        missed, confused = random.random(2)
        # Each finding has its own generator, so one finding doesn't change how another is drawn.
        hand = np.random.default_rng(random.integers(2**63))
        if mask_HW.any() and missed >= HABITS[name].missed:
            drawn[name] |= _trace(hand, mask_HW, HABITS[name])
            if confused < _CONFUSED and name in CONFUSIONS:
                drawn[CONFUSIONS[name]] |= drawn[name]
    return drawn


def _trace(random: np.random.Generator, mask_HW: np.ndarray, habit: Habit) -> np.ndarray:
    """Redraw a mask by hand: displace it unevenly, smooth its edge, move it out- or inwards."""
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    margin = 24
    window = (
        slice(max(0, rows[0] - margin), rows[-1] + 1 + margin),
        slice(max(0, columns[0] - margin), columns[-1] + 1 + margin),
    )
    part_HW = mask_HW[window]
    height, width = part_HW.shape
    thickness = _thickness(part_HW)
    reach = min(habit.wander * thickness, 0.6 * margin)
    # A hand errs over stretches several thicknesses long, not pixel by pixel.
    grid = Canvas(height, width, np.eye(2), np.zeros(2))
    down_HW, right_HW = (
        reach * (0.7 * grid.noise(random, 3 * thickness + 12) + 0.7 * random.normal())
        for _ in range(2)
    )
    row_HW = np.clip(np.rint(np.arange(height)[:, None] + down_HW), 0, height - 1).astype(np.intp)
    column_HW = np.clip(np.rint(np.arange(width) + right_HW), 0, width - 1).astype(np.intp)
    moved = Image.fromarray(part_HW[row_HW, column_HW].astype(np.uint8) * 255)
    outwards = random.uniform(*habit.generous) * thickness
    blur = max(0.35 * thickness, 0.6 * abs(outwards), 0.8)
    # The grey of a blurred straight edge at a distance of `outwards`.
    level = 255 * NormalDist().cdf(-outwards / blur)
    traced = np.zeros_like(mask_HW)
    traced[window] = np.asarray(moved.filter(ImageFilter.GaussianBlur(blur))) > level
    return traced


def _thickness(mask_HW: np.ndarray) -> float:
    """Return twice the area over the outline's length, pixels: a line's width, a disc's radius."""
    padded = np.pad(mask_HW, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return 2 * int(mask_HW.sum()) / max(1, int((mask_HW & ~inside).sum()))
