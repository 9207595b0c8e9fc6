"""Run a plan on Ray: upstream stages as tasks, cells as Tune trials on reused actors.

A run computes whatever the store lacks, so the same command resumes an interrupted run.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import ray

from chexseg.config.study import Study
from chexseg.data.remote_path import Location
from chexseg.errors import UserError
from chexseg.plan import gpu_share
from chexseg.plan.cells import Cell
from chexseg.plan.graph import Node, Plan, blocked
from chexseg.plan.preflight import Workers, check, check_counts, to_check
from chexseg.progress import Reporter
from chexseg.run.cluster import (
    MAX_FAILURES,
    Capacity,
    largest_node,
    node_with_room,
    on_node,
    remote,
    start_here,
)
from chexseg.run.cluster_limits import CURRENT_SIZE, ClusterLimits
from chexseg.run.progress_actor import (
    ProgressActor,
    ProgressDisplay,
    ProgressWriter,
    RunCounts,
)
from chexseg.run.ray_internals import set_process_title
from chexseg.run.run_record import RunResult, StageResult
from chexseg.run.tune_trials import run_trials
from chexseg.run.worker import Job, attempt, record_lost_worker, succeeded
from chexseg.stages.api import GPU_OF_ITS_OWN, StageContext
from chexseg.store.store import Store

#: Cells of one Tuner. Tune copies the whole grid for each trial and keeps every trial: its time
#: grows with the square of their number, its memory linearly. Each Tuner starts new processes.
CELLS_PER_TUNER = 1000
#: Upstream stages whose training reserves CPUs, on a worker of Ray Train or in their task. They
#: start no actors.
TRAINED = ("classify", "pretrain", "moco")


def run(
    plan: Plan,
    store: Store,
    data: Location,
    reporter: Reporter,
    limits: ClusterLimits = CURRENT_SIZE,
) -> RunResult:
    """Compute what the store lacks of a plan. Ray must be connected (`cluster`).

    Raises `UserError` for the first bad input that a stage meets. Other failures are recorded in
    the store, and everything that doesn't depend on them goes on.
    """
    started = time.monotonic()
    result = RunResult()
    capacity = Capacity.of_cluster(limits)
    study = gpu_share.resolved(plan.study, capacity.gpu_memory)
    resources = study.resources
    capacity.cells_at_once(resources)  # refuse now, not after hours of upstream stages
    if resources.workers > 1 and not store.backend.shared:
        capacity.check_one_node(resources)
    done = store.cached(plan.nodes.values())
    result.cached = len(done)
    check_counts(plan.needed(done), plan, data)
    check_networks(plan.needed(done), capacity.workers(resources))
    cells = {cell.score: cell for cell in plan.cells}
    in_cells = set(cells) | {cell.fit for cell in plan.cells}
    progress_actor = start_here(ProgressActor, _run_counts(plan, store, done))
    job = Job(
        plan.nodes, store.uri, data.absolute(), progress_actor, single_node=not store.backend.shared
    )
    with ProgressDisplay(progress_actor, reporter):
        while True:
            lost = blocked(plan.nodes, result.failed)
            elsewhere, settled = in_cells | lost, done | lost
            ready = [
                node
                for node in plan.needed(done)
                if node.key not in elsewhere and set(node.inputs.values()) <= done
            ]
            pending = [
                cell
                for key, cell in cells.items()
                if key not in settled and _cell_ready(cell, plan.nodes, done)
            ]
            if ready:
                results = _run_stages(ready, job, capacity, study)
            elif pending:
                run_cells = _run_cells if resources.workers == 1 else _run_shared_cells
                results = run_cells(pending[:CELLS_PER_TUNER], job, capacity, study)
            else:
                break
            for stage_result in results:
                if stage_result["state"] == "mistake":
                    raise UserError(stage_result["error"])
                result.add(stage_result)
            done |= {stage["key"] for stage in results if succeeded(stage)}
    result.seconds = time.monotonic() - started
    return result


def check_networks(nodes: Iterable[Node], workers: Workers) -> None:
    """Raise `UserError` before any stage runs if a network can't be built or shared by workers."""
    unchecked = to_check(nodes, workers)
    if unchecked and (error := ray.get(_check_task.remote(unchecked, workers))):
        raise UserError(error)


@remote(num_cpus=0, max_retries=MAX_FAILURES)
def _check_task(nodes: Sequence[Node], workers: Workers) -> str | None:
    """Return the message of `preflight.check`'s error, or None.

    It runs in a worker so that the driver needs no PyTorch.
    """
    try:
        check(nodes, workers)
    except UserError as error:
        return str(error)
    return None


def _run_counts(plan: Plan, store: Store, done: set[str]) -> RunCounts:
    """Return the counts of cells at the start of a run."""
    cells = [cell for cell in plan.cells if cell.score in done]
    fits = store.find_all(plan.nodes[cell.fit] for cell in cells)
    mious = [
        (fits[cell.fit].facts["selection_miou"], cell.name) for cell in cells if cell.fit in fits
    ]
    best = max((pair for pair in mious if pair[0] is not None), default=None)
    return RunCounts(len(plan.cells), len(cells), best=best, study=plan.study.name)


def _cell_ready(cell: Cell, nodes: Mapping[str, Node], done: set[str]) -> bool:
    """Return True if all inputs of a cell's trial are stored; a stored fit needs no inputs."""
    fitted = cell.fit in done or set(nodes[cell.fit].inputs.values()) <= done
    return fitted and set(nodes[cell.score].inputs.values()) - {cell.fit} <= done


@remote(num_cpus=0, max_retries=MAX_FAILURES, retry_exceptions=[ray.exceptions.RayActorError])
def _stage_task(
    job: Job, key: str, progress_writer: ProgressWriter, context: StageContext
) -> StageResult:
    context = replace(context, progress=progress_writer, say=progress_writer.say)
    return attempt(job, key, progress_writer.name, context)


def _result(task: ray.ObjectRef[Any], job: Job, key: str) -> StageResult:
    """Return the result of a finished task, also if its worker died too often."""
    try:
        return cast("StageResult", ray.get(task))
    except ray.exceptions.RayError as error:
        return record_lost_worker(job, key, error)


def reservation(
    stage: str, context: StageContext, workers: Workers
) -> tuple[StageContext, int, float]:
    """Return the context of a stage before the cells, and the CPUs and GPUs that its task reserves.

    Two stages never share a GPU, and each may train or map on the rest of its GPU.
    """
    gpu, count = context.device != "cpu", workers.of(stage)
    if count > 1:  # its workers reserve what they need; only IRNet's stage uses a GPU itself
        shared = replace(
            context,
            train_workers=count,
            train_failures=MAX_FAILURES,
            threads=max(1, context.threads // count),
        )
        return shared, 0, 0.49 if gpu and stage == "irnet" else 0
    trains_in_task = context.train_failures is None and stage in TRAINED
    return (
        context,
        context.threads if trains_in_task else 0,
        0.51 if gpu and stage != "ingest" else 0,
    )


def _run_stages(
    ready: Sequence[Node], job: Job, capacity: Capacity, study: Study
) -> list[StageResult]:
    """Run upstream stages whose inputs are stored.

    On GPUs they run concurrently; on CPUs one after another, each with all CPUs. Tasks that start
    actors of Ray Data reserve no CPU themselves, so the actors always get one.
    """
    gpu, workers = capacity.max_gpus >= 1, capacity.workers(study.resources)
    # On the CPUs of a single machine a stage trains in its task, with as many retries as a worker
    # of Ray Train would get. Ray Train takes 13 s and seven more processes to start.
    in_task = not gpu and capacity.one_node
    context = StageContext(
        device="cuda" if gpu else "cpu",
        threads=max(1, min(capacity.cpus, capacity.node_cpus)),
        # Current CPUs only: nodes with GPUs shouldn't be rented to decode images.
        decode_workers=max(1, capacity.cpus),
        map_workers=max(1, int(capacity.max_gpus)) if gpu else max(1, capacity.cpus),
        map_gpus=0.49 if gpu else 0,
        train_failures=None if in_task else MAX_FAILURES,
        graphs=study.execution.graphs == "auto",
        single_node=job.single_node,
    )
    strategy: Any = "SPREAD" if gpu else on_node(largest_node()) if job.single_node else "DEFAULT"
    # Each may reserve a CPU in training, and Ray Data needs one.
    at_once = int(capacity.max_gpus) // workers.stages
    concurrency = max(1, min(at_once, capacity.max_cpus)) if gpu else 1
    waiting, results = list(ready), []
    running: dict[Any, Node] = {}
    while waiting or running:
        while waiting and len(running) < concurrency:
            node = waiting.pop(0)
            progress_writer = job.progress_writer(node.key)
            node_context, cpus, share = reservation(node.stage, context, workers)
            place, count = strategy, node_context.train_workers
            if count > 1 and job.single_node:
                room = {"CPU": node_context.threads, "GPU": GPU_OF_ITS_OWN if gpu else 0}
                place = on_node(node_with_room(room, count))
            task = _stage_task.options(
                name=progress_writer.name,
                num_cpus=cpus,
                num_gpus=share,
                scheduling_strategy=place,
            )
            subset = job.subset([node.key])
            running[task.remote(subset, node.key, progress_writer, node_context)] = node
        (finished,), _ = ray.wait(list(running), num_returns=1)
        results.append(_result(finished, job, running.pop(finished).key))
    return results


def _trial(
    config: Mapping[str, Any], job: Job, names: Mapping[str, str], context: StageContext
) -> None:
    """Run one cell on a reused actor: its fit, then its scores. names: score -> cell."""
    from ray import tune

    results: list[StageResult] = []
    score = config["score"]
    cell = names[score]
    job.progress_actor.begin_cell.remote(cell)
    set_process_title(cell)
    for key in (job.nodes[score].inputs["segmenter"], score):
        progress_writer = job.progress_writer(key, cell)
        shown = replace(context, progress=progress_writer, say=progress_writer.say)
        results.append(attempt(job, key, progress_writer.name, shown))
        if not succeeded(results[-1]):
            break
    job.progress_actor.end_cell.remote(cell, succeeded(results[-1]), results[0].get("miou"))
    tune.report({"results": results})


def _run_cells(
    pending: Sequence[Cell], job: Job, capacity: Capacity, study: Study
) -> list[StageResult]:
    """Run cells as Tune trials."""
    from ray import tune

    cells = {cell.score: cell for cell in pending}
    names = {score: cell.name for score, cell in cells.items()}
    subset = job.subset(key for cell in pending for key in (cell.fit, cell.score))
    trials = run_trials(
        _trial,
        {"job": subset, "names": names},
        capacity,
        study,
        {"score": tune.grid_search(list(cells))},  # only keys: Tune copies the space for each trial
        lambda config: names[config["score"]],
    )
    results: list[StageResult] = []
    for trial in trials:
        if trial.metrics and "results" in trial.metrics:
            results += trial.metrics["results"]
        else:
            cell = cells[(trial.config or {})["score"]]
            key = cell.score if Store(job.store).find("fit", cell.fit) else cell.fit
            results.append(record_lost_worker(job, key, trial.error))
            job.progress_actor.end_cell.remote(cell.name, False, None)
    return results


def _run_shared_cells(
    pending: Sequence[Cell], job: Job, capacity: Capacity, study: Study
) -> list[StageResult]:
    """Run cells whose fits are shared by several workers of Ray Train.

    They run as tasks, like upstream stages: the workers reserve a cell's resources.
    """
    resources = study.resources
    gpu = capacity.gpus_of(resources)
    context = StageContext(
        device="cuda" if gpu else "cpu",
        threads=max(1, int(resources.cpu)),
        map_gpus=gpu,
        graphs=study.execution.graphs == "auto",
        train_workers=resources.workers,
        train_failures=MAX_FAILURES,
        single_node=job.single_node,
    )
    waiting, results = list(pending), []
    running: dict[Any, tuple[Cell, str]] = {}
    mious: dict[str, float | None] = {}

    def start(cell: Cell, key: str) -> None:
        options: dict[str, Any] = {}
        if key == cell.score:
            options = {"num_cpus": context.threads, "num_gpus": gpu}
        elif job.single_node:
            node = node_with_room({"CPU": context.threads, "GPU": gpu}, resources.workers)
            options = {"scheduling_strategy": on_node(node)}
        job.progress_actor.begin_cell.remote(cell.name)
        progress_writer = job.progress_writer(key, cell.name)
        task = _stage_task.options(name=progress_writer.name, **options)
        titled = replace(context, title=progress_writer.name)
        running[task.remote(job.subset([key]), key, progress_writer, titled)] = cell, key

    while waiting or running:
        while waiting and len(running) < capacity.cells_at_once(resources):
            cell = waiting.pop(0)
            start(cell, cell.fit)
        (finished,), _ = ray.wait(list(running), num_returns=1)
        cell, key = running.pop(finished)
        result = _result(finished, job, key)
        results.append(result)
        if key == cell.fit:
            mious[cell.name] = result.get("miou")
        if key == cell.fit and succeeded(result):
            start(cell, cell.score)
        else:
            job.progress_actor.end_cell.remote(cell.name, succeeded(result), mious[cell.name])
    return results
