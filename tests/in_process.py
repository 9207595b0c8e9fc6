"""Run commands in this process, and the stages of a run one after another without Ray."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest

from chexseg import parallel
from chexseg.cli import main
from chexseg.data.remote_path import Location
from chexseg.errors import UserError
from chexseg.plan.graph import Plan, blocked
from chexseg.progress import Reporter
from chexseg.report.figures import study_figures
from chexseg.report.page import film_grids
from chexseg.run import cluster, scheduler, start_checks, worker
from chexseg.run.cluster import Capacity
from chexseg.run.cluster_limits import CURRENT_SIZE, ClusterLimits
from chexseg.run.run_record import RunResult
from chexseg.run.worker import Job, attempt, succeeded
from chexseg.search import searcher
from chexseg.search.optuna_study import OptunaStudy
from chexseg.stages.api import StageContext
from chexseg.stages.registry import STAGES
from chexseg.store.store import Store

CONTEXT = StageContext(threads=1)


class _NoProgress:
    """Stands for the actor that collects progress: no call of it does anything."""

    def __getattr__(self, name: str) -> Any:
        return _Method()


class _Method:
    def remote(self, *arguments: Any) -> None:
        """Do nothing."""


def run_plan(
    plan: Plan,
    store: Store,
    data: Location,
    reporter: Reporter,
    limits: ClusterLimits = CURRENT_SIZE,
    publish: object = None,
    stages: Sequence[str] = tuple(STAGES),
) -> RunResult:
    """Stand for `scheduler.run`: a worker's `attempt` of each stage, inputs first."""
    done = store.cached(plan.nodes.values())
    job = Job(plan.nodes, store.uri, data.absolute(), _NoProgress())
    result = RunResult(cached=len(done))
    for node in plan.needed(done):
        if node.stage in stages and node.key not in blocked(plan.nodes, result.failed):
            outcome = attempt(job, node.key, node.label, CONTEXT)
            if outcome["state"] == "mistake":
                raise UserError(outcome["error"])
            result.add(outcome)
    return result


def run_points(
    optuna_study: OptunaStudy,
    study: Any,
    capacity: Capacity,
    data: Location,
    reporter: Reporter,
    result: RunResult,
    publish: object,
) -> None:
    """Stand for the points of `searcher.run_search`, which are trials of Tune."""
    optuna_study.import_finished()
    for _ in range(optuna_study.resume()):
        trial, point = optuna_study.ask()
        plan = optuna_study.search.plan([point])
        job = Job(plan.nodes, optuna_study.store.uri, data.absolute(), _NoProgress())
        for cell in plan.cells:
            outcome = attempt(job, cell.fit, cell.name, CONTEXT)
            result.add(outcome)
        if succeeded(outcome):
            optuna_study.complete(trial, [cell.fit for cell in plan.cells], ())
        else:
            optuna_study.fail(trial, outcome["error"])


@contextmanager
def only_ingest(only: bool) -> Iterator[None]:
    """If `only` is set, let runs end after the stages that read raw data."""
    with pytest.MonkeyPatch.context() as patch:
        if only:
            patch.setattr(scheduler, "run", functools.partial(run_plan, stages=("ingest",)))
        yield


@contextmanager
def without_ray() -> Iterator[None]:
    """Replace what starts Ray, a browser or other processes; none of it reads the files."""
    with pytest.MonkeyPatch.context() as patch, stages_here():
        patch.setattr(study_figures, "export", lambda drawn: ({}, None))
        patch.setattr(film_grids, "sheet_png", lambda together, drawn: b"")
        yield


@contextmanager
def stages_here() -> Iterator[None]:
    """Let runs start no Ray, and run their stages in this process."""
    capacity = Capacity(cpus=1, gpus=0, node_cpus=1, node_gpus=0)
    with pytest.MonkeyPatch.context() as patch, in_this_ray():
        patch.setattr(cluster, "describe", list)
        patch.setattr(Capacity, "of_cluster", classmethod(lambda cls, limits: capacity))
        patch.setattr(start_checks, "check_nodes", lambda: None)
        patch.setattr(start_checks, "check_networks", lambda nodes, workers: None)
        patch.setattr(worker, "raise_if_draining", lambda: None)
        patch.setattr(scheduler, "run", run_plan)
        patch.setattr(searcher, "_run_points", run_points)
        yield


@contextmanager
def in_this_ray() -> Iterator[None]:
    """Let runs use the Ray that this process is connected to, and start no further processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "cluster", lambda address: nullcontext(""))
        patch.setattr(parallel, "ordered", _in_this_process)
        yield


def _in_this_process(function: Any, items: Sequence[Any], processes: int) -> Iterator[Any]:
    yield from map(function, items)


if __name__ == "__main__":
    with stages_here():
        main()
