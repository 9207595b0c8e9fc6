"""Run a plan on Ray: upstream stages as tasks, cells as Tune trials on warm workers, then what depends on cells.

The store is the ledger: a run starts with whatever is missing there, so the same command continues an interrupted one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray

from chexseg.config.study import Resources
from chexseg.data.remote_path import Location
from chexseg.errors import UserError
from chexseg.plan.cells import Cell
from chexseg.plan.graph import Node, Plan
from chexseg.plan.preflight import check, to_check
from chexseg.progress import Reporter
from chexseg.run.cluster import MAX_FAILURES, Capacity, largest_node, node_with_room, on_node
from chexseg.run.cluster_limits import CURRENT_SIZE, ClusterLimits
from chexseg.run.progress_actor import (
    ProgressDisplay,
    ProgressWriter,
    RunCounts,
    start_progress_actor,
)
from chexseg.run.result import RunResult
from chexseg.run.tune_trials import run_trials, set_process_title
from chexseg.run.worker import Job, attempt, record_lost_worker, succeeded
from chexseg.stages.api import StageContext
from chexseg.store.store import Store

#: Cells that Tune is given in one go. For each of its trials it copies the whole grid, and it keeps every trial: its time
#: grows with the square of their number, its memory with their number. What starts anew with each go is a worker's process.
CELLS_PER_TUNER = 1000
#: Upstream stages whose training holds CPUs, on a worker of Ray Train or in their task. They start no actors.
TRAINED = ("classify", "pretrain", "moco")


def run(
    plan: Plan,
    store: Store,
    data: Location,
    reporter: Reporter,
    limits: ClusterLimits = CURRENT_SIZE,
) -> RunResult:
    """Compute whatever of the plan is not in the store. Ray must be initialised (`cluster`), and may grow as `limits` says.

    Raises `UserError` for the first user's mistake that a stage finds. Any other failure is recorded in the store, and
    whatever doesn't depend on it goes on.
    """
    started = time.monotonic()
    outcome = RunResult()
    capacity = Capacity.of_cluster(limits)
    capacity.cells_at_once(plan.study.resources)  # refuse now, not after hours of upstream stages
    if plan.study.resources.workers > 1 and not store.backend.shared:
        capacity.check_one_node(plan.study.resources)
    done = store.cached(plan.nodes.values())
    outcome.cached = len(done)
    check_networks(plan.needed(done), plan.study.resources, capacity)
    cells = {cell.score: cell for cell in plan.cells}
    own = set(cells) | {cell.fit for cell in plan.cells}  # run inside the cells' trials
    progress_actor = start_progress_actor(_run_counts(plan, store, done))
    job = Job(
        plan.nodes, store.uri, data.absolute(), progress_actor, single_node=not store.backend.shared
    )
    with ProgressDisplay(progress_actor, reporter):
        while True:
            hopeless = _hopeless(plan.nodes, outcome.failed)
            upstream = [
                node
                for node in plan.needed(done)
                if node.key not in own and node.key not in hopeless
            ]
            ready = [node for node in upstream if set(node.inputs.values()) <= done]
            pending = [
                cell for key, cell in cells.items() if key not in done and key not in hopeless
            ]
            pending = [cell for cell in pending if _cell_ready(cell, plan.nodes, done)]
            if ready:
                answers = _run_stages(ready, job, capacity)
            elif pending:
                run_cells = _run_cells if plan.study.resources.workers == 1 else _run_shared_cells
                answers = run_cells(pending[:CELLS_PER_TUNER], job, capacity, plan.study.resources)
            else:
                break
            _take_in(answers, done, outcome)
    outcome.seconds = time.monotonic() - started
    return outcome


def check_networks(nodes: Iterable[Node], resources: Resources, capacity: Capacity) -> None:
    """Raise `UserError` for a network of the nodes that can't be built or shared, before anything of them runs."""
    unknown = to_check(nodes, resources.workers)
    if unknown and (
        mistake := ray.get(
            _check_task.remote(unknown, resources.workers, capacity.gpus_of(resources) > 0)
        )
    ):
        raise UserError(mistake)


@ray.remote(num_cpus=0, max_retries=MAX_FAILURES)
def _check_task(nodes: Sequence[Node], workers: int, on_gpu: bool) -> str | None:
    """Return the mistake that `preflight.check` finds, or None. It runs in a worker so that the driver needs no PyTorch."""
    try:
        check(nodes, workers, on_gpu)
    except UserError as error:
        return str(error)
    return None


def _run_counts(plan: Plan, store: Store, done: set[str]) -> RunCounts:
    """The cells as a run finds them."""
    found = store.find_all(plan.nodes[cell.fit] for cell in plan.cells if cell.score in done)
    fits = [(cell.name, found.get(cell.fit)) for cell in plan.cells if cell.score in done]
    best = [
        (fit.facts["selection_miou"], name)
        for name, fit in fits
        if fit and fit.facts["selection_miou"] is not None
    ]
    return RunCounts(
        len(plan.cells), len(fits), best=max(best, default=None), study=plan.study.name
    )


def _cell_ready(cell: Cell, nodes: Mapping[str, Node], done: set[str]) -> bool:
    """Whether what a cell's trial must find in the store is there; a fit that is there needs nothing any more."""
    fitted = cell.fit in done or set(nodes[cell.fit].inputs.values()) <= done
    return fitted and set(nodes[cell.score].inputs.values()) - {cell.fit} <= done


def _hopeless(nodes: Mapping[str, Node], failed: Mapping[str, str]) -> set[str]:
    """Keys of what has failed in this run, and of all that needs it. `nodes` has each node after its inputs."""
    out: set[str] = set(failed)
    for key, node in nodes.items():
        if out.intersection(node.inputs.values()):
            out.add(key)
    return out


def _take_in(answers: Sequence[Mapping[str, Any]], done: set[str], outcome: RunResult) -> None:
    for answer in answers:
        if answer["state"] == "mistake":
            raise UserError(answer["error"])
        if answer["state"] == "failed":
            outcome.failed[answer["key"]] = answer["error"]
        else:
            done.add(answer["key"])
            if answer["state"] == "computed":
                outcome.computed[answer["key"]] = answer["seconds"]


@ray.remote(num_cpus=0, max_retries=MAX_FAILURES, retry_exceptions=[ray.exceptions.RayActorError])
def _stage_task(
    job: Job, key: str, progress_writer: ProgressWriter, context: StageContext
) -> dict[str, Any]:
    return attempt(job, key, progress_writer.name, replace(context, progress=progress_writer))


def _run_stages(ready: Sequence[Node], job: Job, capacity: Capacity) -> list[dict[str, Any]]:
    """Upstream stages whose inputs are there. Side by side on GPUs; on CPUs one after another, each with all of them.

    Tasks that start actors of Ray Data hold no CPU themselves, so that these always find one.
    """
    gpu = capacity.max_gpus >= 1
    # On the CPUs of a single machine a stage trains in its own task, which Ray tries again as often as Ray Train would its
    # worker. Ray Train takes 13 s and seven more processes to start.
    in_task = not gpu and capacity.one_node
    context = StageContext(
        device="cuda" if gpu else "cpu",
        threads=max(1, min(capacity.cpus, capacity.node_cpus)),
        # Of the CPUs that are there: nodes with GPUs aren't rented to decode images.
        decode_workers=max(1, capacity.cpus),
        map_workers=max(1, int(capacity.max_gpus)) if gpu else max(1, capacity.cpus),
        map_gpus=0.49 if gpu else 0,
        train_failures=None if in_task else MAX_FAILURES,
        single_node=job.single_node,
    )
    # Two stages never share a GPU, and each finds the rest of its own free to train or map there.
    share = 0.51 if gpu else 0
    place: Any = "SPREAD" if gpu else on_node(largest_node()) if job.single_node else "DEFAULT"
    # Each may hold a CPU in training, and Ray Data needs one.
    at_once = max(1, min(int(capacity.max_gpus), capacity.max_cpus)) if gpu else 1
    waiting, answers = list(ready), []
    running: dict[Any, Node] = {}
    while waiting or running:
        while waiting and len(running) < at_once:
            node = waiting.pop(0)
            progress_writer, held = (
                job.progress_writer(node.key),
                0 if node.stage == "ingest" else share,
            )
            cpus = context.threads if in_task and node.stage in TRAINED else 0
            task = _stage_task.options(
                name=progress_writer.name, num_cpus=cpus, num_gpus=held, scheduling_strategy=place
            )
            running[task.remote(job.subset([node.key]), node.key, progress_writer, context)] = node
        (finished,), _ = ray.wait(list(running), num_returns=1)
        node = running.pop(finished)
        try:
            answers.append(ray.get(finished))
        except ray.exceptions.RayError as error:
            answers.append(record_lost_worker(job, node.key, error))
    return answers


def _trial(
    config: Mapping[str, Any], job: Job, names: Mapping[str, str], context: StageContext
) -> None:
    """One cell on a warm worker: its fit, then its scores. names: score -> cell."""
    from ray import tune

    answers = []
    score = config["score"]
    cell = names[score]
    job.progress_actor.begin_cell.remote(cell)
    set_process_title(cell)
    for key in (job.nodes[score].inputs["segmenter"], score):
        progress_writer = job.progress_writer(key, cell)
        answers.append(
            attempt(job, key, progress_writer.name, replace(context, progress=progress_writer))
        )
        if not succeeded(answers[-1]):
            break
    job.progress_actor.end_cell.remote(cell, succeeded(answers[-1]), answers[0].get("miou"))
    tune.report({"answers": answers})


def _run_cells(
    pending: Sequence[Cell], job: Job, capacity: Capacity, resources: Resources
) -> list[dict[str, Any]]:
    """Cells as Tune trials."""
    from ray import tune

    cells = {cell.score: cell for cell in pending}
    names = {score: cell.name for score, cell in cells.items()}
    part = job.subset(key for cell in pending for key in (cell.fit, cell.score))
    results = run_trials(
        _trial,
        {"job": part, "names": names},
        capacity,
        resources,
        {
            "score": tune.grid_search(list(cells))
        },  # no more than a key, for all are copied for every trial
        lambda config: names[config["score"]],
    )
    answers = []
    for result in results:
        if result.metrics and "answers" in result.metrics:
            answers += result.metrics["answers"]
        else:
            cell = cells[result.config["score"]]
            fitted = Store(job.store).find("fit", cell.fit)
            answers.append(
                record_lost_worker(job, cell.score if fitted else cell.fit, result.error)
            )
            job.progress_actor.end_cell.remote(cell.name, False, None)
    return answers


def _run_shared_cells(
    pending: Sequence[Cell], job: Job, capacity: Capacity, resources: Resources
) -> list[dict[str, Any]]:
    """Cells whose fits several workers of Ray Train share: as upstream stages run, because these hold what a cell takes."""
    gpu = capacity.gpus_of(resources)
    context = StageContext(
        device="cuda" if gpu else "cpu",
        threads=max(1, int(resources.cpu)),
        map_gpus=gpu,
        train_workers=resources.workers,
        train_failures=MAX_FAILURES,
        single_node=job.single_node,
    )
    alone = {"num_cpus": context.threads, "num_gpus": gpu}
    waiting, running, answers, mious = list(pending), {}, [], {}

    def start(cell: Cell, stage: str) -> None:
        key, options = (cell.fit, {}) if stage == "fit" else (cell.score, alone)
        if stage == "fit" and job.single_node:
            node = node_with_room({"CPU": context.threads, "GPU": gpu}, resources.workers)
            options = {"scheduling_strategy": on_node(node)}
        job.progress_actor.begin_cell.remote(cell.name)
        progress_writer = job.progress_writer(key, cell.name)
        task = _stage_task.options(name=progress_writer.name, **options)
        running[
            task.remote(
                job.subset([key]),
                key,
                progress_writer,
                replace(context, title=progress_writer.name),
            )
        ] = (
            cell,
            key,
        )

    while waiting or running:
        while waiting and len(running) < capacity.cells_at_once(resources):
            start(waiting.pop(0), "fit")
        (finished,), _ = ray.wait(list(running), num_returns=1)
        cell, key = running.pop(finished)
        try:
            answers.append(ray.get(finished))
        except ray.exceptions.RayError as error:
            answers.append(record_lost_worker(job, key, error))
        if key == cell.fit:
            mious[cell.name] = answers[-1].get("miou")
        if key == cell.fit and succeeded(answers[-1]):
            start(cell, "score")
        else:
            job.progress_actor.end_cell.remote(cell.name, succeeded(answers[-1]), mious[cell.name])
    return answers
