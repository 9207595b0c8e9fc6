"""What a study has to show: its finished cells, their counts, and the images behind them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

#: Columns of `StudyResults.cells`: the settings a table or figure may select by.
CELL_COLUMNS = (
    "cell",
    "name",
    "method",
    "weak",
    "p",
    "trial",
    "init",
    "weak_images",
    "fraction",
    "epochs",
    "other",
    "selection_miou",
)


@dataclass(frozen=True)
class StudyResults:
    """One study's results, read-only.

    cells: one row a finished cell, with `CELL_COLUMNS`. `method` is "weak" (p = 0), "mixed" (0 < p < 1), "full" (p = 1) or
        "student"; `p` is the effective one; `weak` is the weak label kind ("cam", "irnet") or None where no weak labels are
        used; `fraction` is the student's share of `train` or NaN; `other` names what else the study varies ("key=value");
        `cell` is the artifact key of its scores.
    counts_CIK3: int64, (cells, images, pathologies, 3): intersection, predicted and true pixels, on the test images.
    """

    name: str
    title: str
    pathologies: tuple[str, ...]
    image_ids: tuple[str, ...]
    cells: pd.DataFrame
    counts_CIK3: np.ndarray
    missing: pd.DataFrame  # one row a cell that has no scores yet: name, state ("missing" or "failed"), reason
    stages: pd.DataFrame  # one row a stage that ran: stage, key, seconds, host, settings (JSON)
    radiologists_IK3: np.ndarray | None = None  # the human benchmark's counts on the same images
    #: (index into cells, image id) -> masks_KHW, bool, at training size
    predictions: Callable[[int, str], np.ndarray] | None = field(default=None, repr=False)
    #: image id -> (pixels_HW uint8, expert masks_KHW bool), at training size
    image: Callable[[str], tuple[np.ndarray, np.ndarray]] | None = field(default=None, repr=False)
