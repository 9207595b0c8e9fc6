"""Test what workers import, and that other code than the driver's is refused."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import chexseg
from chexseg import code_version
from chexseg.config import study_file
from chexseg.errors import UserError
from chexseg.plan import planner
from chexseg.stages.api import StageContext
from chexseg.store.store import Store
from tests.run.test_local_ray import STUDY


def test_a_worker_looks_for_modules_where_the_driver_does(ray_session):
    import ray

    def look() -> tuple[list[str], bool]:
        import sys

        return sys.path, sys.flags.safe_path

    path, safe = ray.get(ray.remote(look).remote())
    expected = [os.path.abspath(directory) for directory in sys.path]
    assert path[: len(expected)] == expected and safe


def test_a_worker_is_not_in_the_current_directory(ray_session):
    """The dynamic loader looks there for some libraries of PyTorch's."""
    import ray

    assert ray.get(ray.remote(lambda: os.getcwd()).remote()) != os.getcwd()


def test_nodes_that_import_other_code_are_named_before_anything_is_computed(
    ray_session, monkeypatch
):
    from chexseg.run import start_checks

    start_checks.check_nodes()
    other = replace(code_version.running(), digest="other", directory="/another/checkout")
    monkeypatch.setattr(code_version, "running", lambda: other)
    with pytest.raises(
        UserError, match=r"node \S+ imports other code .*/chexseg .*; expected .*/another/checkout"
    ):
        start_checks.check_nodes()


def test_sources_that_are_edited_while_a_study_is_planned_are_found(
    ray_session, tmp_path, phantom_root, monkeypatch
):
    """The command begins with a copy of the sources that differs from what workers import."""
    from chexseg.cli import study as command

    monkeypatch.setattr(code_version, "_required", [])
    shutil.copytree(Path(chexseg.__file__).parent, tmp_path / "chexseg")
    (tmp_path / "chexseg" / "errors.py").write_text("# as it was when the command began")
    (tmp_path / "s.yaml").write_text(
        "name: s\nsettings: {size: 64, labels: {expert_split: {train: 8, select: 4}}}\n"
    )
    workers, plan = chexseg.__file__, command.read_studies
    monkeypatch.setattr(chexseg, "__file__", str(tmp_path / "chexseg" / "__init__.py"))

    def edit_and_plan(*arguments: object, **options: object) -> object:
        monkeypatch.setattr(chexseg, "__file__", workers)
        return plan(*arguments, **options)

    monkeypatch.setattr(command, "read_studies", edit_and_plan)
    place = (tmp_path / "s.yaml", phantom_root, str(tmp_path / "store"))
    with pytest.raises(UserError, match=r"node \S+ imports other code than the driver"):
        command.run_study(*place, None, None, True)


def test_a_worker_that_came_later_refuses_other_code(ray_session, tmp_path, phantom_root):
    import ray

    from chexseg.data import remote_path
    from chexseg.run.cluster import start_here
    from chexseg.run.progress.actor import ProgressActor
    from chexseg.run.progress.counts import RunCounts
    from chexseg.run.worker import Job, attempt

    planned = planner.plan(
        study_file.parse(STUDY, "alone.yaml"), planner.fingerprints(phantom_root)
    )
    node = next(node for node in planned.nodes.values() if node.stage == "ingest")
    code = replace(code_version.running(), version="0.0.1")
    progress_actor = start_here(ProgressActor, RunCounts(0))
    job = Job(
        {node.key: node},
        str(tmp_path / "store"),
        remote_path.at(phantom_root),
        progress_actor,
        code=code,
    )
    answer = ray.get(ray.remote(lambda: attempt(job, node.key, "ingest", StageContext())).remote())
    ray.kill(progress_actor)
    assert answer["state"] == "mistake" and "expected chexseg 0.0.1" in answer["error"]
    assert Store(str(tmp_path / "store")).find(node.stage, node.key) is None
