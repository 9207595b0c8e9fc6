"""Test runs with dying processes and mistakes, on a local Ray."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading

import pytest

from chexseg.config import study_file
from chexseg.config.study import Resources
from chexseg.errors import UserError
from chexseg.plan import planner
from chexseg.plan.preflight import Workers
from chexseg.progress import Quiet
from chexseg.run import cluster, scheduler, stage_tasks
from chexseg.stages.api import GPU_OF_ITS_OWN, StageContext
from chexseg.store.store import Store
from tests import processes
from tests.run.test_scheduler import DEMO, SMALLEST


@pytest.mark.slow
def test_a_shared_stage_whose_process_dies_is_tried_again(ray_session, phantom_root, tmp_path):
    """Check on one machine, where such a stage trains in its task's process, without Ray Train."""
    settings = SMALLEST | {"labels.p": 1, "pretrain.epochs": 3}
    study = study_file.parse("name: dies\naxes: {trial: [0]}\n", "dies.yaml", settings)
    planned = planner.plan(study, planner.fingerprints(phantom_root))
    killed, over = [], threading.Event()

    def kill_once() -> None:
        while not killed and not over.wait(0.05):
            for process in processes.find(
                "ray::pretrain", among=processes.descendants(os.getpid())
            ):
                os.kill(process, signal.SIGKILL)
                killed.append(process)

    killer = threading.Thread(target=kill_once)
    killer.start()
    try:
        outcome = scheduler.run(planned, Store(tmp_path / "store"), phantom_root, Quiet())
    finally:
        over.set()
        killer.join()
    assert len(killed) == 1
    assert outcome.failed == {} and set(outcome.computed) == {
        node.key for node in planned.needed(())
    }


def test_a_network_that_cannot_be_built_is_refused_before_anything_runs(
    ray_session, phantom_root, tmp_path
):
    for setting, value in (
        ("irnet.architecture", "densenet121"),
        ("classify.architecture", "densnet"),
        ("encoder.architecture", "vgg11"),
    ):
        planned = planner.plan(
            study_file.load(DEMO, SMALLEST | {setting: value}), planner.fingerprints(phantom_root)
        )
        with pytest.raises(UserError, match=f"^{setting}: found '{value}'"):
            scheduler.run(planned, Store(tmp_path), phantom_root, Quiet())
        assert not list(tmp_path.rglob("*"))


def test_a_layout_that_would_hang_is_refused():
    one_node = cluster.Capacity(cpus=4, gpus=1, node_cpus=5, node_gpus=1)
    assert one_node.cells_at_once(Resources(cpu=1)) == 4
    assert one_node.cells_at_once(Resources(cpu=1, gpu=0.25)) == 4
    assert one_node.cells_at_once(Resources(cpu=2, gpu=0.25)) == 2
    with pytest.raises(UserError, match="resources.cpu: found 5; expected at most 4"):
        one_node.cells_at_once(Resources(cpu=5))
    with pytest.raises(UserError, match="resources.gpu: found 2; expected at most 1"):
        one_node.cells_at_once(Resources(gpu=2))
    assert one_node.cells_at_once(Resources(workers=2)) == 2
    with pytest.raises(
        UserError, match="resources.workers: found 8; expected no more than the cluster can hold"
    ):
        one_node.cells_at_once(Resources(workers=8))
    many_small = cluster.Capacity(cpus=15, gpus=0, node_cpus=4, node_gpus=0)
    with pytest.raises(UserError, match="the free CPUs of one node"):
        many_small.cells_at_once(Resources(cpu=12))
    shared = Resources(workers=8)
    assert many_small.cells_at_once(shared) == 1, "on several nodes"
    with pytest.raises(
        UserError, match="resources.workers: found 8 with a --store that is no directory"
    ):
        many_small.check_one_node(shared)
    many_small.check_one_node(Resources(workers=4))


def test_a_users_mistake_ends_the_run_and_leaves_nothing(ray_session, phantom_root, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(phantom_root, root)
    image = next((root / "CheXpert-v1.0-small" / "train").rglob("*.jpg"))
    image.write_bytes(b"no image")
    planned = planner.plan(study_file.load(DEMO, SMALLEST), planner.fingerprints(root))
    store = Store(tmp_path / "store")
    with pytest.raises(UserError, match="found no readable image"):
        scheduler.run(planned, store, root, Quiet())
    assert not list(store.backend.local.glob("ingest/*/images/.*"))
    assert not any(
        json.loads(path.read_text())["config"]["split"] == "train"
        for path in store.backend.local.glob("ingest/*/manifest.json")
    )
    assert not list((store.backend.local / ".partial").iterdir())


def test_what_stages_before_the_cells_reserve():
    def reserved(stage: str, device: str, count: int = 1, failures: int | None = 2):
        context = StageContext(device=device, threads=9, train_failures=failures)
        given, cpus, share = stage_tasks.reservation(stage, context, Workers(stages=count))
        return given.train_workers, given.threads, given.train_failures, cpus, share

    assert reserved("classify", "cpu", failures=None) == (1, 9, None, 8, 0), "one for the cells"
    assert reserved("saliency", "cpu", failures=None) == (1, 9, None, 0, 0)
    assert reserved("classify", "cuda") == (1, 9, 2, 0, 0.51)
    assert reserved("ingest", "cuda", 4) == (1, 9, 2, 0, 0)
    # Four workers have a GPU each, on which IRNet's own share has room.
    assert reserved("moco", "cuda", 4) == (4, 2, 2, 0, 0)
    assert reserved("irnet", "cuda", 4) == (4, 2, 2, 0, 0.49)
    assert 0.49 + GPU_OF_ITS_OWN <= 1 < 2 * GPU_OF_ITS_OWN
    assert reserved("fit", "cuda", 4)[0] == 1
    assert reserved("pretrain", "cpu", 2, failures=None) == (2, 4, 2, 0, 0)
