"""Try all damages and print the page of the outcomes, for docs/reference/damage.md."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.damage.kinds import KINDS
from tests.damage.matrix import Matrix, place_in
from tests.damage.page import page
from tests.in_process import without_ray

with tempfile.TemporaryDirectory() as folder, without_ray():
    matrix = Matrix(place_in(Path(folder)))
    outcomes = {}
    for kind in KINDS:
        sys.stderr.write(f"{kind.name}\n")
        outcomes[kind.name] = matrix.outcomes(kind)
sys.stdout.write(page(outcomes))
