"""One round of disturbances. By hand for longer: ``python -m tests.chaos --minutes 60``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Runs a command where it may mount a file system that ends with it.
UNSHARED = ["unshare", "--mount"]


@pytest.mark.slow
def test_a_disturbed_study_ends_with_the_tables_of_a_quiet_one():
    permitted = (
        shutil.which("unshare")
        and not subprocess.run([*UNSHARED, "true"], capture_output=True).returncode
    )
    chaos = [sys.executable, "-m", "tests.chaos", "--events", "6", "--longest", "6"]
    done = subprocess.run(
        [*(UNSHARED if permitted else []), *chaos],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
