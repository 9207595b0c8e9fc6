"""Kill a driver at random times: the same command finishes the study.

Nothing that was complete runs again. CHEXSEG_KILLS=20 kills more often than fits the suite's time.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from chexseg.analysis import load
from chexseg.config import study_file
from chexseg.plan import planner, status
from chexseg.store.store import Store
from tests import plain_install, processes
from tests.report.rendered import publish, repeatable_tables

KILLS = int(os.environ.get("CHEXSEG_KILLS", "2"))
pytestmark = pytest.mark.slow

STUDY = """
name: killed
axes:
  labels.p: [0.5, 1]
also:
  - {distil.fraction: 0.5}
settings:
  size: 32
  encoder: {architecture: mobilenet_v2, init: random}
  labels: {weak_images: 8, expert_split: {train: 8, select: 4}}
  classify: {architecture: resnet18, epochs: 1}
  saliency: {images: 24}
  fit: {epochs: 2, samples_per_epoch: 16}
"""


@pytest.fixture
def scratch():
    """Return a short directory for the Rays of this test, which must all have ended with it."""
    path = Path(tempfile.mkdtemp(prefix="cxr-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def manifests(store: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for path in store.glob("[!.]*/*/manifest.json")
    }


def tables(store: Path, study: Path, data: Path, out: Path) -> dict[str, bytes]:
    """Return `repeatable_tables` of a store's report."""
    planned = planner.plan(study_file.load(study), planner.fingerprints(data))
    publish([load.study_results(planned, Store(store))], out)
    tables = repeatable_tables(out)
    assert len(tables) > 1
    return tables


def test_a_killed_driver_leaves_nothing_that_the_same_command_does_not_finish(
    phantom_root, tmp_path, scratch
):
    study = tmp_path / "killed.yaml"
    study.write_text(STUDY)
    planned = planner.plan(study_file.load(study), planner.fingerprints(phantom_root))
    environment = os.environ | plain_install.VARIABLES
    environment |= {"RAY_TMPDIR": str(scratch), "TMPDIR": str(scratch)}

    def start(store: Path) -> subprocess.Popen:
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
            store,
            "--quiet",
        ]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    def finish(store: Path) -> None:
        driver = start(store)
        _, output = driver.communicate(timeout=600)
        assert driver.returncode == 0, output.decode()
        assert status.summarise(planned, Store(store)).complete

    began = time.monotonic()
    finish(tmp_path / "whole")
    whole = time.monotonic() - began
    expected = tables(tmp_path / "whole", study, phantom_root, tmp_path / "whole-report")

    times, kills, number = random.Random(0), 0, 0
    while kills < KILLS:
        store, number = tmp_path / f"store-{number}", number + 1
        before: dict[str, tuple[int, bytes]] = {}
        while kills < KILLS and not status.summarise(planned, Store(store)).complete:
            driver = start(store)
            try:
                driver.wait(times.uniform(1, whole))
            except subprocess.TimeoutExpired:
                driver.send_signal(signal.SIGKILL)
                driver.wait()
                kills += 1
            after = manifests(store)
            assert {path: after.get(path) for path in before} == before, (
                "what was complete was made again"
            )
            before = after
        finish(store)
        assert {path: manifests(store)[path] for path in before} == before, (
            "what was complete was made again"
        )
        assert len(manifests(store)) == len(planned.nodes)
        assert tables(store, study, phantom_root, tmp_path / f"report-{number}") == expected

    deadline = time.monotonic() + 60
    while processes.find(mark=f"RAY_TMPDIR={scratch}") and time.monotonic() < deadline:
        time.sleep(1)
    assert not processes.find(mark=f"RAY_TMPDIR={scratch}"), (
        "a killed driver's Ray must end by itself"
    )


def test_a_dead_process_of_ray_costs_progress_or_ends_the_run_with_a_line(
    phantom_root, tmp_path, scratch
):
    study = tmp_path / "killed.yaml"
    study.write_text(STUDY)
    environment = os.environ | plain_install.VARIABLES
    environment |= {"RAY_TMPDIR": str(scratch), "TMPDIR": str(scratch)}

    def run_and_kill(title: str, begin: str) -> tuple[int, str]:
        """Kill a process of a run when a line of its output has this text."""
        command = [sys.executable, "-m", "chexseg", "study", "run", study, "--data", phantom_root]
        driver = subprocess.Popen(
            [*command, "--store", tmp_path / title.replace(":", "")],
            env=environment | {"CHEXSEG_TEST": title},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        lines = []
        for line in driver.stdout:
            lines.append(line)
            if begin in line:
                break
        (process,) = [
            number
            for number, line in processes.find(mark=f"CHEXSEG_TEST={title}").items()
            if processes.title(line) == title
        ]
        os.kill(process, signal.SIGKILL)
        lines += driver.communicate(timeout=600)[0].splitlines(keepends=True)
        return driver.returncode, "".join(lines)

    code, output = run_and_kill("ray::ProgressActor", "shared stages")
    assert code == 0, output
    assert output.count("no progress is shown any more: its process died") == 1
    assert "Traceback" not in output

    code, output = run_and_kill("raylet", "shared stages")
    assert code == 1, output
    assert "Traceback" not in output
    # Ray itself ends the driver if that meets the lost connection in one of Ray's calls.
    ours = "chexseg: Ray has ended, or has lost a node (LocalRayletDiedError: "
    assert output.splitlines()[-1].startswith(ours) or "Raylet is terminated" in output
