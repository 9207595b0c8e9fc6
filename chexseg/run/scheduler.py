"""Run a plan on Ray: stages before the cells as tasks, cells as Tune trials on reused actors.

A stage or a cell starts as soon as its inputs are in the store and its resources are free
(`plan.schedule`). A run computes whatever the store lacks, so the same command resumes an
interrupted run.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import ray

from chexseg.config.study import Study
from chexseg.data.raw_split import RawData
from chexseg.data.remote_path import Location
from chexseg.errors import UserError
from chexseg.plan import cost, gpu_share, schedule
from chexseg.plan.graph import Node, Plan
from chexseg.plan.preflight import Workers
from chexseg.plan.schedule import Need, Slots
from chexseg.plan.units import Units
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
from chexseg.run.progress_actor import ProgressActor, ProgressDisplay, ProgressWriter, RunCounts
from chexseg.run.run_record import RunResult, StageResult
from chexseg.run.start_checks import check_networks
from chexseg.run.worker import Job, attempt, record_lost_worker, succeeded
from chexseg.stages.api import GPU_OF_ITS_OWN, StageContext
from chexseg.store.store import Store

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
    capacity = Capacity.of_cluster(limits)
    study = gpu_share.resolved(plan.study, capacity.gpu_memory)
    resources = study.resources
    capacity.cells_at_once(resources)  # refuse now, not after hours of upstream stages
    if resources.workers > 1 and not store.backend.shared:
        capacity.check_one_node(resources)
    done = store.cached(plan.nodes.values())
    check_networks(plan.needed(done), capacity.workers(resources))
    progress_actor = start_here(ProgressActor, _run_counts(plan, store, done))
    job = Job(
        plan.nodes, store.uri, data.absolute(), progress_actor, single_node=not store.backend.shared
    )
    costs = cost.expected(plan, (), cost.images(RawData(data)))
    seconds = {key: one.seconds for key, one in costs.items()}
    units = Units(plan, done, seconds, whole_cells=resources.workers == 1)
    result = RunResult(cached=len(done))
    with ProgressDisplay(progress_actor, reporter):
        Run(plan, study, job, capacity, units, result).run()
    result.seconds = time.monotonic() - started
    return result


class Run:
    """A run of a plan: what is running, and what is ready.

    A unit (`plan.units`) is a stage before the cells, which runs as a task, or a cell, which is a
    trial of Tune. If several workers share each fit, fits and scores are tasks too.
    """

    def __init__(
        self,
        plan: Plan,
        study: Study,
        job: Job,
        capacity: Capacity,
        units: Units,
        result: RunResult,
    ) -> None:
        self.study, self.job, self.capacity, self.result = study, job, capacity, result
        self.cells = {cell.score: cell for cell in plan.cells}
        self.names = {key: cell.name for cell in plan.cells for key in (cell.fit, cell.score)}
        self.stages = _StageTasks(job, capacity, study)
        self.units, self.queue = units, schedule.Queue()
        self.slots = Slots(
            cpus=capacity.max_cpus,
            gpus=[1.0] * int(capacity.max_gpus),
            stages=self.stages.at_once,
        )
        self.mistake: str | None = None
        #: Scores of the cells to give to Tune now.
        self.begun: deque[str] = deque()
        self._gpus: dict[str, tuple[int, ...]] = {}  # of each unit that has begun
        self._tasks: dict[Any, str] = {}
        self._mious: dict[str, float | None] = {}
        self._started: set[str] = set()  # tasks that have begun to run
        self._asked = 0.0
        for unit in units.ready():
            self._add(unit)

    def run(self) -> None:
        """Run all units. Raises `UserError` for a mistake."""
        chunks = None
        while not self.mistake:
            self.advance()
            if self.begun:
                from chexseg.run import tune_trials  # slow to import, and not all runs have cells

                if chunks is None:
                    trials = [self.cells[unit] for unit in self.units.nodes if unit in self.cells]
                    chunks = tune_trials.CellChunks(self.job, trials)
                tune_trials.run_cells(self, chunks)
            elif self._tasks:
                ray.wait(list(self._tasks), num_returns=1)
            else:
                break
        if self.mistake:
            raise UserError(self.mistake)

    def advance(self) -> None:
        """Take note of the tasks that have ended, and start what there is room for now."""
        if self._tasks:
            ended, _ = ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=0)
            for task in ended:
                unit = self._tasks.pop(task)
                result = _result(task, self.job, unit)
                if unit in self.names:
                    self._end_of_task(self.names[unit], unit, result)
                self.finish(unit, [result])
        if self.mistake or not self.queue:
            return
        for start in self.queue.start(self.slots, self._held()):
            self._gpus[start.key] = start.gpus
            if self.study.resources.workers == 1 and start.key in self.cells:
                self.begun.append(start.key)
            else:
                self._tasks[self._start_task(start.key)] = start.key

    def _held(self) -> Need | None:
        """Return the need of cells while a stage that was given a GPU waits for it; else None.

        Ray may have placed cells otherwise than `slots`, so that no GPU is empty yet. Cells that
        went on taking each other's places would keep it waiting.
        """
        given = {unit for unit in self._tasks.values() if self._gpus[unit]} - self._started
        if not given or self.capacity.max_gpus > self.capacity.gpus:
            return None
        if time.monotonic() - self._asked > 0.5:
            self._asked = time.monotonic()
            self._started |= ray.get(self.job.progress_actor.started.remote())
        share = self.capacity.gpus_of(self.study.resources)
        return Need(self.study.resources.cpu, share) if given - self._started else None

    def finish(self, unit: str, results: Sequence[StageResult]) -> None:
        """Record the results of a unit, and add the units that waited for them."""
        self.slots.take(self._need(unit), self._gpus.pop(unit), sign=1)
        for result in results:
            if result["state"] == "mistake":
                self.mistake = self.mistake or result["error"]
                return
            self.result.add(result)
            if succeeded(result):
                for other in self.units.ready_after(result["key"]):
                    self._add(other)

    def _add(self, unit: str) -> None:
        self.queue.add(unit, self._need(unit), self.units.longest(unit))

    def _need(self, unit: str) -> Need:
        node, resources = self.job.nodes[unit], self.study.resources
        gpus = self.capacity.gpus_of(resources)
        if unit not in self.names:
            return self.stages.need(node.stage)
        if resources.workers == 1:
            return Need(resources.cpu, gpus)
        count = resources.workers if node.stage == "fit" else 1
        return Need(count * max(1, int(resources.cpu)), count * gpus)

    def _start_task(self, key: str) -> ray.ObjectRef[Any]:
        if key not in self.names:
            return self.stages.start(self.job.nodes[key])
        name, node = self.names[key], self.job.nodes[key]
        if node.stage == "fit":
            self.job.progress_actor.begin_cell.remote(name)
        return self.stages.start_of_cell(node, name)

    def _end_of_task(self, name: str, key: str, result: StageResult) -> None:
        """Count a cell whose fit or scores ran as a task."""
        if key not in self.cells:
            self._mious[name] = result.get("miou")
        if key in self.cells or not succeeded(result):
            miou = self._mious.get(name)
            self.job.progress_actor.end_cell.remote(name, succeeded(result), miou)


def _run_counts(plan: Plan, store: Store, done: set[str]) -> RunCounts:
    """Return the counts of cells at the start of a run."""
    cells = [cell for cell in plan.cells if cell.score in done]
    fits = store.find_all(plan.nodes[cell.fit] for cell in cells)
    mious = [
        (fits[cell.fit].facts["selection_miou"], cell.name) for cell in cells if cell.fit in fits
    ]
    best = max((pair for pair in mious if pair[0] is not None), default=None)
    return RunCounts(len(plan.cells), len(cells), best=best, study=plan.study.name)


@remote(num_cpus=0, max_retries=MAX_FAILURES, retry_exceptions=[ray.exceptions.RayActorError])
def _stage_task(
    job: Job, key: str, progress_writer: ProgressWriter, context: StageContext
) -> StageResult:
    job.progress_actor.start.remote(key)
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
    # One CPU is left to the cells that run beside it.
    cpus = max(1, context.threads - 1) if trains_in_task else 0
    return context, cpus, 0.51 if gpu and stage != "ingest" else 0


class _StageTasks:
    """Starts stages as tasks of Ray: those before the cells, and fits that workers share."""

    def __init__(self, job: Job, capacity: Capacity, study: Study) -> None:
        self.job, self.study = job, study
        self.workers = capacity.workers(study.resources)
        self.gpu, self.share = capacity.max_gpus >= 1, capacity.gpus_of(study.resources)
        # On the CPUs of a single machine a stage trains in its task, with as many retries as a
        # worker of Ray Train would get. Ray Train takes 13 s and seven more processes to start.
        self.in_task, self.all_cpus = not self.gpu and capacity.one_node, capacity.max_cpus
        self.context = StageContext(
            device="cuda" if self.gpu else "cpu",
            threads=max(1, min(capacity.cpus, capacity.node_cpus)),
            # Current CPUs only: nodes with GPUs shouldn't be rented to decode images.
            decode_workers=max(1, capacity.cpus),
            map_workers=max(1, int(capacity.max_gpus)) if self.gpu else max(1, capacity.cpus),
            map_gpus=0.49 if self.gpu else 0,
            train_failures=None if self.in_task else MAX_FAILURES,
            graphs=study.execution.graphs == "auto",
            single_node=job.single_node,
        )
        #: Stages that may run at once. On CPUs each one uses all of them.
        self.at_once = max(1, min(int(capacity.max_gpus), capacity.max_cpus)) if self.gpu else 1

    def need(self, stage: str) -> Need:
        """Return what a stage before the cells takes of the cluster.

        On one machine without GPUs it leaves a CPU to the cells. Several it has for itself: cells
        would take again the CPUs that a worker of Ray Train waits for.
        """
        if stage == "ingest":  # short, and all cells wait for it: it runs beside other stages
            return Need(cpus=1)
        count = self.workers.of(stage)
        if self.gpu:
            cpus = count * max(1, self.context.threads // count) if count > 1 else 1
            return Need(cpus, count, stages=1)
        cpus = max(1, self.context.threads - 1) if self.in_task else self.all_cpus
        return Need(cpus, stages=1)

    def start(self, node: Node) -> ray.ObjectRef[Any]:
        """Start a stage before the cells. Tasks that start actors of Ray Data reserve no CPU."""
        strategy: Any = "SPREAD" if self.gpu else "DEFAULT"
        if self.job.single_node and not self.gpu:
            strategy = on_node(largest_node())
        context, cpus, share = reservation(node.stage, self.context, self.workers)
        if context.train_workers > 1 and self.job.single_node:
            room = {"CPU": context.threads, "GPU": GPU_OF_ITS_OWN if self.gpu else 0}
            strategy = on_node(node_with_room(room, context.train_workers))
        options = {"num_cpus": cpus, "num_gpus": share, "scheduling_strategy": strategy}
        return self._submit(node, self.job.progress_writer(node.key), context, options)

    def start_of_cell(self, node: Node, name: str) -> ray.ObjectRef[Any]:
        """Start a fit that several workers share, which reserve its resources, or its scores."""
        resources = self.study.resources
        context = StageContext(
            device="cuda" if self.share else "cpu",
            threads=max(1, int(resources.cpu)),
            map_gpus=self.share,
            graphs=self.study.execution.graphs == "auto",
            train_workers=resources.workers,
            train_failures=MAX_FAILURES,
            single_node=self.job.single_node,
        )
        options: dict[str, Any] = {}
        if node.stage == "score":
            options = {"num_cpus": context.threads, "num_gpus": self.share}
        elif self.job.single_node:
            room = {"CPU": context.threads, "GPU": self.share}
            options["scheduling_strategy"] = on_node(node_with_room(room, resources.workers))
        writer = self.job.progress_writer(node.key, name)
        return self._submit(node, writer, replace(context, title=writer.name), options)

    def _submit(
        self,
        node: Node,
        writer: ProgressWriter,
        context: StageContext,
        options: Mapping[str, Any],
    ) -> ray.ObjectRef[Any]:
        task = _stage_task.options(name=writer.name, **options)
        return cast(
            "ray.ObjectRef[Any]",
            task.remote(self.job.subset([node.key]), node.key, writer, context),
        )
