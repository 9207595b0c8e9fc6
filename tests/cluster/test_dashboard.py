"""Test how Ray's state API, and so its dashboard, names the work of a study on a cluster."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from typing import Any

import pytest

from chexseg.run import local_ray
from tests.cluster.standins import ROOT, Machine, wait_until

pytest.importorskip("aiohttp_cors", reason="needs ray[default], of the extra cluster")
pytestmark = pytest.mark.slow

STUDY = """
name: names
settings:
  size: 32
  encoder: {architecture: mobilenet_v2, init: random}
  labels: {p: 1, expert_split: {train: 8, select: 4}}
  fit: {epochs: 6, samples_per_epoch: 64}
"""
TOKEN = local_ray.new_token()


@pytest.fixture(scope="module")
def head(machine):
    """Start a head with a dashboard and a data set."""
    machine.environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    machine.environment["RAY_TRAIN_ENABLE_STATE_TRACKING"] = "1"
    started = machine.run("ray start --head --dashboard-host=127.0.0.1")
    assert started.returncode == 0, started.stdout
    (machine.home / "names.yaml").write_text(STUDY)
    (machine.home / "shared.yaml").write_text(
        STUDY.replace("epochs: 6", "epochs: 1") + "resources: {workers: 2}\n"
    )
    made = machine.run("chexseg data phantom ~/phantom --train 48 --valid 24 --test 16 --size 64")
    assert made.returncode == 0, made.stdout
    return machine


def asked(machine: Machine, path: str) -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{machine.dashboard}/{path}")
    request.add_header("Authorization", f"Bearer {TOKEN}")
    try:
        with urllib.request.urlopen(request, timeout=60) as page:
            return json.loads(page.read())
    except urllib.error.HTTPError:
        return None  # Ray Train's part doesn't exist before its first run


def named(machine: Machine) -> set[str]:
    """Return the names of all tasks so far, and of all runs of Ray Train."""
    tasks = asked(machine, "api/v0/tasks?limit=1000&detail=1")
    runs = asked(machine, "api/train/v2/runs/v1") or {"train_runs": []}
    return {task["name"] for task in tasks["data"]["result"]["result"]} | {
        run["name"] for run in runs["train_runs"]
    }


def titles(machine: Machine) -> set[str]:
    """Return the titles of the processes that the dashboard's cluster view lists on the node."""
    (node,) = asked(machine, "nodes?view=summary")["data"]["summary"]
    detail = asked(machine, f"nodes/{node['raylet']['nodeId']}")["data"]["detail"]
    return {" ".join(worker["cmdline"]).rstrip() for worker in detail["workers"]}


@pytest.fixture
def study(head):
    """Return ``study(name)``, which starts the study of this file."""
    started: list[subprocess.Popen[bytes]] = []

    def run(name: str) -> subprocess.Popen[bytes]:
        line = (
            f"chexseg study run ~/{name}.yaml --data ~/phantom --store ~/store --address "
            f"127.0.0.1:{head.port}"
        )
        log = open(head.top / "run.log", "wb")  # noqa: SIM115
        started.append(
            subprocess.Popen(
                ["bash", "-c", f"exec {line}"],
                env=head.environment,
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
        )
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()


def test_upstream_stages_and_cells_are_seen_by_their_names(head, study):
    running, seen = study("names"), set()

    def over() -> bool:
        seen.update(titles(head))
        return running.poll() is not None

    assert wait_until(over, 500), "the study went on for ever"
    assert running.returncode == 0, (head.top / "run.log").read_text()
    assert {"ingest valid", "ingest test"} <= named(head)
    assert "ray::full trial 0" in seen, sorted(seen)


def test_fits_that_workers_share_are_seen_by_their_names(head, study):
    running = study("shared")
    wait_until(lambda: running.poll() is not None, 500)
    assert running.returncode == 0, (head.top / "run.log").read_text()
    assert {"full trial 0, fit", "full trial 0, score"} <= named(head)
    runs = {run["name"] for run in asked(head, "api/train/v2/runs/v1")["train_runs"]}
    assert "full trial 0, fit" in runs
