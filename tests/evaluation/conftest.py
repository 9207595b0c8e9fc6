"""Share the expert masks of two images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from chexseg.data import chexlocalize
from tests.evaluation.heat_map_files import FIRST, HEIGHT, SECOND, WIDTH


@pytest.fixture
def truth(tmp_path) -> Path:
    """Return masks of two images.

    Edema is at rows 10 to 19, columns 30 to 49 of both images; Cardiomegaly is on the first;
    Consolidation is empty.
    """
    mask_HW = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask_HW[10:20, 30:50] = True
    empty_HW = np.zeros_like(mask_HW)
    first = {"Edema": mask_HW, "Cardiomegaly": mask_HW, "Consolidation": empty_HW}
    chexlocalize.write(tmp_path / "gt.json", {FIRST: first, SECOND: {"Edema": mask_HW}})
    return tmp_path / "gt.json"
