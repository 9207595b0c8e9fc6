"""Run each test of cases.py in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import NESTED

CASES = Path(__file__).with_name("cases.py")
NAMES = re.findall(r"^def (test_\w+)", CASES.read_text(), re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_give_no_traceback_and_no_hang(name: str):
    options = ("-q", "-p", "no:cacheprovider", "-p", "no:xdist")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, f"{CASES}::{name}"],
        cwd=CASES.parents[2],
        env=os.environ | {NESTED: "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_the_cases_are_found():
    assert {"test_study_files", "test_mask_files", "test_manifests", "test_dicom_headers"} <= set(
        NAMES
    )
