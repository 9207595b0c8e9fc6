"""Test two drivers on one store, each with its Ray: nothing runs twice, and either may die."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from chexseg.config import study_file
from chexseg.plan import planner
from chexseg.store.store import Store
from tests import plain_install

pytestmark = pytest.mark.slow

STUDY = """
name: shared
axes: {trial: [0, 1]}
settings:
  size: 32
  encoder: {architecture: mobilenet_v2, init: random}
  labels: {p: 1, expert_split: {train: 8, select: 4}}
  fit: {epochs: 2, samples_per_epoch: 16}
"""


@pytest.fixture
def drivers(phantom_root, tmp_path, place):
    """Return (a function that starts a driver on the study, keys of its stages, the store)."""
    study = tmp_path / "shared.yaml"
    study.write_text(STUDY)
    scratch = Path(tempfile.mkdtemp(prefix="cxr-", dir="/tmp"))
    command = [
        sys.executable,
        "-m",
        "chexseg",
        "study",
        "run",
        study,
        "--data",
        phantom_root,
        "--store",
        place,
        "--quiet",
    ]
    started = []

    def start() -> subprocess.Popen:
        environment = os.environ | plain_install.VARIABLES
        environment |= {"RAY_TMPDIR": str(scratch), "TMPDIR": str(scratch)}
        environment |= {"CHEXSEG_CACHE": str(tmp_path / f"copies-{len(started)}")}
        started.append(
            subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        )
        return started[-1]

    planned = planner.plan(study_file.load(study), planner.fingerprints(phantom_root))
    yield start, {node.key: node for node in planned.needed(())}, Store(place)
    for driver in started:
        driver.kill()
        driver.wait()
    shutil.rmtree(scratch, ignore_errors=True)


def computed(output: str) -> int:
    match = re.search(r"(\d+) stages? computed", output)
    assert match, output
    return int(match[1])


def test_two_drivers_share_the_work_and_compute_nothing_twice(drivers):
    start, needed, store = drivers
    both = [start(), start()]
    outputs = [driver.communicate(timeout=600)[1] for driver in both]
    assert [driver.returncode for driver in both] == [0, 0], outputs
    assert sum(map(computed, outputs)) == len(needed)
    assert store.cached(needed.values()) == set(needed)


@pytest.mark.parametrize("place", ["directory"], indirect=True)
def test_one_that_is_killed_leaves_its_work_to_the_other(drivers):
    start, needed, store = drivers
    first = start()
    deadline = time.monotonic() + 120
    while not store.cached(needed.values()) and time.monotonic() < deadline:
        time.sleep(0.2)
    before = store.cached(needed.values())
    assert before and before != set(needed)
    second = start()
    time.sleep(3)
    first.kill()
    output = second.communicate(timeout=600)[1]
    assert second.returncode == 0, output
    assert computed(output) < len(needed)
    assert store.cached(needed.values()) == set(needed)
