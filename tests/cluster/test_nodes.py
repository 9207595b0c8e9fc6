"""Test nodes that die while cells run: the study finishes and nothing complete runs again.

Its tables equal those of an undisturbed run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

import pytest

from chexseg.cli.study import run_study
from chexseg.config import study_file
from chexseg.plan import planner
from tests import plain_install
from tests.cluster.emulated import Nodes
from tests.cluster.standins import ROOT, wait_until
from tests.in_process import without_ray
from tests.run.test_kills import manifests, tables

pytestmark = pytest.mark.slow

STUDY = """
name: nodes
axes: {trial: [0, 1, 2, 3, 4, 5]}
settings:
  size: 32
  encoder: {architecture: mobilenet_v2, init: random}
  labels: {p: 1, expert_split: {train: 8, select: 4}}
  fit: {epochs: 4, samples_per_epoch: 24}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "nodes.yaml"
    path.write_text(STUDY)
    return path


@pytest.fixture(scope="module")
def planned(study, phantom_root):
    return planner.plan(study_file.load(study), planner.fingerprints(phantom_root))


@pytest.fixture(scope="module")
def expected(study, phantom_root, tmp_path_factory):
    """Return the tables of an undisturbed run."""
    top = tmp_path_factory.mktemp("quiet")
    with without_ray():  # the results are the same, and it takes a third of the time
        run_study(study, phantom_root, str(top / "store"), None, None, quiet=True)
    return tables(top / "store", study, phantom_root, top / "report")


def chexseg(*words: object) -> None:
    """Run a command with a separate Ray, which would leave its logs."""
    command = [sys.executable, "-m", "chexseg", *map(str, words)]
    with tempfile.TemporaryDirectory(
        prefix="cxr-", dir="/tmp", ignore_cleanup_errors=True
    ) as scratch:
        environment = os.environ | plain_install.VARIABLES
        environment |= {"RAY_TMPDIR": scratch, "TMPDIR": scratch}
        subprocess.run(
            command, check=True, cwd=ROOT, env=environment, capture_output=True, timeout=600
        )


@pytest.fixture
def cluster(request):
    """Start `Nodes` with the CPUs that the test names, the head's first."""
    nodes = Nodes(*request.param)
    yield nodes
    nodes.close()


def fitting(cluster, store) -> dict[str, set[str]]:
    """Return worker -> stages, for workers that are training a cell."""
    training = {node: cluster.working(store, node) for node in cluster.workers}
    return {
        node: names
        for node, names in training.items()
        if any(name.startswith("fit-") for name in names)
    }


@pytest.mark.parametrize("cluster", [(1, 1, 1)], indirect=True)
def test_a_node_dies_while_a_cell_runs_on_it(
    cluster, study, planned, expected, phantom_root, tmp_path
):
    """Leave two CPUs, both taken by cells: reading must not wait for a free CPU."""
    store = tmp_path / "store"
    driver = cluster.study(study, "--data", phantom_root, "--store", store)

    def halfway() -> bool:
        return bool(list(store.glob("score/*/manifest.json")) and fitting(cluster, store))

    assert wait_until(lambda: driver.poll() is not None or halfway(), 400, pause=0.25)
    before, lost = manifests(store), fitting(cluster, store)
    assert before and lost, driver.communicate()[0]
    assert cluster.actors("ProgressActor") == {cluster.head}, "the run would end with another node"
    cluster.kill(next(iter(lost)))
    output, _ = driver.communicate(timeout=400)
    assert driver.returncode == 0, output
    assert "lost its worker; trying again" in output and "Traceback" not in output
    after = manifests(store)
    assert {path: after[path] for path in before} == before, "what was complete was made again"
    assert len(after) == len(planned.needed(set()))
    assert tables(store, study, phantom_root, tmp_path / "report") == expected


@pytest.mark.parametrize("cluster", [(0, 1, 1, 1)], indirect=True)
def test_drained_nodes_are_given_no_new_cell_and_their_death_is_no_failure(
    cluster, study, planned, expected, phantom_root, tmp_path
):
    """Drain two nodes as a spot notice does. One ends at once; the other must get no new cell."""
    store = tmp_path / "store"
    never_again = "from chexseg.run import cluster; cluster.MAX_FAILURES = 0"
    driver = cluster.study(study, "--data", phantom_root, "--store", store, first=never_again)
    assert wait_until(
        lambda: driver.poll() is not None or len(fitting(cluster, store)) == 2, 400, pause=0.25
    )
    (gone, _), (left, last) = fitting(cluster, store).items()
    cluster.drain(gone, 60)
    cluster.drain(left, 600)
    cluster.kill(gone)
    seen = set()
    while driver.poll() is None:
        seen |= cluster.working(store, left)
        time.sleep(0.25)
    assert driver.returncode == 0, driver.communicate()[0]
    assert {name for name in seen if name.startswith("fit-")} <= last, (
        "a cell began on a node that was to go"
    )
    assert len(manifests(store)) == len(planned.needed(set()))
    assert tables(store, study, phantom_root, tmp_path / "report") == expected


@pytest.mark.parametrize("cluster", [(1, 1, 1)], indirect=True)
def test_a_fit_is_shared_by_workers_on_two_nodes_of_which_one_dies(
    cluster, study, phantom_root, tmp_path
):
    """Train with a worker on each of two one-CPU nodes; compare with two workers on one node."""
    study.with_name("shared.yaml").write_text(
        STUDY.replace("[0, 1, 2, 3, 4, 5]", "[0]").replace("epochs: 4", "epochs: 2")
        + "resources: {workers: 2}\n"
    )
    shared, store, quiet = study.with_name("shared.yaml"), tmp_path / "store", tmp_path / "quiet"
    chexseg("study", "run", shared, "--data", phantom_root, "--store", quiet, "--quiet")
    driver = cluster.study(shared, "--data", phantom_root, "--store", store)
    assert wait_until(
        lambda: driver.poll() is not None or len(cluster.actors("RayTrainWorker")) == 2,
        400,
        pause=0.25,
    )
    used = cluster.actors("RayTrainWorker")
    assert len(used) == 2, driver.communicate()[0]
    cluster.kill(next(node for node in cluster.workers if node in used))
    output, _ = driver.communicate(timeout=400)
    assert driver.returncode == 0, output
    (fit,), (alone,) = (list(place.glob("fit/*/segmenter.safetensors")) for place in (store, quiet))
    assert fit.parent.name == alone.parent.name and fit.read_bytes() == alone.read_bytes()
    assert tables(store, shared, phantom_root, tmp_path / "r1") == tables(
        quiet, shared, phantom_root, tmp_path / "r2"
    )
