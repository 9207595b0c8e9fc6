"""Test what becomes of errors of Ray itself: they end a run with a line, those of tasks don't."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import ray
from ray.exceptions import (
    ActorDiedError,
    LocalRayletDiedError,
    NodeDiedError,
    RayTaskError,
    WorkerCrashedError,
)

from chexseg import cli
from chexseg.errors import RayLostError
from chexseg.run import cluster, local_ray, ray_internals, stage_tasks


@pytest.fixture
def connected(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: True)


@pytest.mark.parametrize("error", [LocalRayletDiedError(), ActorDiedError(), NodeDiedError("n")])
def test_an_error_of_ray_becomes_a_line(connected, error):
    with pytest.raises(RayLostError) as raised, cluster.cluster():
        raise error
    line = str(raised.value)
    assert line.startswith(f"Ray has ended, or has lost a node ({type(error).__name__}: ")
    assert line.endswith("; hint: the same command resumes the run") and "\n" not in line


def test_a_ray_that_does_not_start_becomes_a_line(monkeypatch):
    def time_out(**options):
        raise Exception("The current node timed out during startup.\nThis could happen")

    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):  # set for the Ray, so restored here
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(ray_internals, "read_environment", lambda: None)
    monkeypatch.setattr(ray, "init", time_out)
    with pytest.raises(RayLostError) as raised, local_ray.local_ray():
        raise AssertionError("there is no Ray")
    line = str(raised.value)
    assert line.startswith("Ray didn't start (The current node timed out") and "\n" not in line
    assert line.endswith("; hint: the same command tries it again")


def test_a_fault_in_a_task_keeps_its_traceback(connected):
    fault = RayTaskError("f", "Traceback ...", ZeroDivisionError())
    with pytest.raises(RayTaskError) as raised, cluster.cluster():
        raise fault
    assert raised.value is fault


def test_the_exit_code_is_that_of_failed_stages(monkeypatch, capsys):
    def fail() -> None:
        raise RayLostError("Ray has ended")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "chexseg: Ray has ended\n"


def test_the_result_of_a_stage_without_ray(monkeypatch):
    def get(error):
        raise error

    monkeypatch.setattr(stage_tasks.ray, "get", get)
    recorded = {"key": "k", "state": "failed", "error": "its worker died"}
    monkeypatch.setattr(stage_tasks, "record_lost_worker", lambda *arguments: recorded)
    assert stage_tasks.result_of(WorkerCrashedError(), SimpleNamespace(), "k") == recorded
    with pytest.raises(LocalRayletDiedError):
        stage_tasks.result_of(LocalRayletDiedError(), SimpleNamespace(), "k")
