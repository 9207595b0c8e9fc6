"""Send signals to runs: they end cleanly, and the same command finishes the study."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
from optuna.trial import TrialState

from chexseg.cli.study import run_study
from chexseg.config import study_file
from chexseg.plan import planner, status
from chexseg.search import journal
from chexseg.search import status as search_status
from chexseg.search.optuna_study import OptunaStudy
from chexseg.store.store import Store
from tests import plain_install, processes
from tests.cli.test_signals import ACCEPTING
from tests.in_process import without_ray
from tests.run.test_kills import scratch, tables  # noqa: F401
from tests.search.test_searcher import TEXT, searched

STUDY = """
name: stopped
axes: {trial: [0, 1]}
settings:
  size: 32
  encoder: {architecture: mobilenet_v2, init: random}
  labels: {p: 1, expert_split: {train: 8, select: 4}}
  fit: {epochs: 40, samples_per_epoch: 8}
"""
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


def start(*arguments: object, **environment: str) -> subprocess.Popen:
    """Start a command in a process group of its own, where no signal is ignored."""
    command = [sys.executable, "-m", "chexseg", *map(str, arguments)]
    return subprocess.Popen(
        [sys.executable, "-c", ACCEPTING, *command],
        env=os.environ | plain_install.VARIABLES | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def wait(condition: Callable[[], object], driver: subprocess.Popen | None = None) -> None:
    """Wait for a condition, at most ten minutes."""
    deadline = time.monotonic() + 600
    while not condition():
        assert driver is None or driver.poll() is None, driver.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.2)


def check_stopped(driver: subprocess.Popen, number: signal.Signals) -> None:
    """Check the exit code, and that there was one line and no other output."""
    _, output = driver.communicate(timeout=300)
    assert output == f"chexseg: {WORDS[number]}; hint: the same command resumes the run\n"
    assert driver.returncode == 128 + number


@pytest.mark.slow
def test_a_stopped_run_leaves_nothing_and_the_same_command_finishes(
    phantom_root,
    tmp_path,
    scratch,  # noqa: F811
):
    file = tmp_path / "stopped.yaml"
    file.write_text(STUDY)
    planned = planner.plan(study_file.load(file), planner.fingerprints(phantom_root))
    temporary = {"RAY_TMPDIR": str(scratch), "TMPDIR": str(scratch)}

    def run(store: Store) -> subprocess.Popen:
        place = store.backend.local
        command = ("study", "run", file, "--data", phantom_root, "--store", place, "--quiet")
        return start(*command, **temporary)

    def tables_of(name: str) -> dict[str, bytes]:
        return tables(tmp_path / name, file, phantom_root, tmp_path / f"{name}-report")

    with without_ray():  # the results are the same, and it takes a third of the time
        run_study(file, phantom_root, str(tmp_path / "whole"), None, None, quiet=True)
    store = Store(tmp_path / "store")
    fits = {f"fit-{cell.fit[:20]}" for cell in planned.cells}

    def fitting() -> bool:
        return bool(fits & store.backend.in_progress())

    # As `kill` does, as a terminal does, and as an impatient `scancel` does.
    for number, send, times in (
        (signal.SIGTERM, os.kill, 1),
        (signal.SIGINT, os.killpg, 1),
        (signal.SIGTERM, os.killpg, 2),
    ):
        driver = run(store)
        wait(fitting, driver)
        for _ in range(times):
            time.sleep(1)
            send(driver.pid, number)
        check_stopped(driver, number)
        wait(lambda: not processes.find(mark=f"RAY_TMPDIR={scratch}"))
        # A process that is being ended loses its environment before its locks.
        wait(lambda: not store.backend.in_progress())
        if times == 1:  # the second ends it at once
            assert list((store.backend.local / ".live").glob("*")) == []
            *_, record = sorted((store.backend.local / ".runs" / "stopped").glob("*.json"))
            assert json.loads(record.read_text())["error"] == "KeyboardInterrupt: "
        assert len(list((store.backend.local / "fit").glob("*/manifest.json"))) < 2

    summary = status.summarise(planned, store)
    assert not summary.complete and "failed" not in summary.status_text()
    driver = run(store)
    _, output = driver.communicate(timeout=600)
    assert driver.returncode == 0, output
    assert tables_of("store") == tables_of("whole")


@pytest.mark.slow
def test_a_search_on_a_cluster_ends_and_the_cluster_stays(ray_session, phantom_root, tmp_path):
    text = TEXT.replace("samples_per_epoch: 8", "samples_per_epoch: 24")
    (tmp_path / "small.yaml").write_text(text)
    search, store = searched(phantom_root, text), Store(tmp_path / "store")
    name = OptunaStudy(search, store).name
    command = ["study", "run", tmp_path / "small.yaml", "--data", phantom_root, "--quiet"]
    command += ["--store", store.backend.local, "--address", ray.get_runtime_context().gcs_address]
    # A Ray on loopback; Ray would look for it at another address of this machine.
    environment = {"TMPDIR": str(tmp_path), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    free = ray.available_resources().get("CPU")

    def running() -> bool:
        return TrialState.RUNNING in [trial.state for trial in journal.read(store, name)]

    driver = start(*command, **environment)
    wait(running, driver)
    driver.send_signal(signal.SIGTERM)
    check_stopped(driver, signal.SIGTERM)
    wait(lambda: not store.backend.in_progress())
    wait(lambda: ray.available_resources().get("CPU") == free)
    assert list((store.backend.local / ".live").glob("*")) == []

    driver = start(*command, **environment)
    _, output = driver.communicate(timeout=600)
    assert driver.returncode == 0, output
    assert search_status.summarise(search, store).complete


@pytest.mark.heavy
@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("delay", [0, 0.2, 1])  # its processes start, import, draw
def test_a_demo_stopped_while_it_writes_its_data_leaves_nothing(delay, group, tmp_path: Path):
    driver = start("demo", "--out", tmp_path / "demo", "--quiet")
    wait(lambda: list((tmp_path / "demo").glob("*")), driver)
    time.sleep(delay)
    if group:  # as a terminal does
        os.killpg(driver.pid, signal.SIGINT)
    else:
        driver.send_signal(signal.SIGINT)
    check_stopped(driver, signal.SIGINT)
    assert list((tmp_path / "demo").glob("*")) == []
