"""Run a plan on Ray: stages before the cells as tasks, cells as Tune trials on reused actors.

A stage or a cell starts as soon as its inputs are in the store and its resources are free
(`plan.scheduling`). A run computes whatever the store lacks, so the same command resumes an
interrupted run.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import ray

from chexseg.config.study import Study
from chexseg.data.raw_split import RawData
from chexseg.data.remote_path import Location
from chexseg.errors import UserError
from chexseg.plan import cost, gpu_share
from chexseg.plan.graph import Node, Plan
from chexseg.plan.scheduling import schedule
from chexseg.plan.scheduling.schedule import Need, Slots
from chexseg.plan.scheduling.time_left import TimeLeft
from chexseg.plan.scheduling.units import Units
from chexseg.plan.stage_names import settings_of_names, stage_names, without_common_words
from chexseg.progress import Reporter
from chexseg.run.cluster import Capacity, start_here
from chexseg.run.cluster_limits import CURRENT_SIZE, ClusterLimits
from chexseg.run.progress.actor import ProgressActor
from chexseg.run.progress.counts import RunCounts
from chexseg.run.progress.display import ProgressDisplay, Publish
from chexseg.run.run_record import RunResult, StageResult
from chexseg.run.stage_tasks import StageTasks, result_of
from chexseg.run.start_checks import check_networks
from chexseg.run.worker import Job, succeeded
from chexseg.store.store import Store


def run(
    plan: Plan,
    store: Store,
    data: Location,
    reporter: Reporter,
    limits: ClusterLimits = CURRENT_SIZE,
    publish: Publish | None = None,
) -> RunResult:
    """Compute what the store lacks of a plan. Ray must be connected (`cluster`).

    publish: as of `ProgressDisplay`. Raises `UserError` for the first bad input that a stage meets.
    Other failures are recorded in the store, and everything that doesn't depend on them goes on.
    """
    started = time.monotonic()
    capacity = Capacity.of_cluster(limits)
    study = gpu_share.resolved(plan.study, capacity.gpu_memory)
    resources = study.resources
    capacity.cells_at_once(resources)  # refuse now, not after hours of upstream stages
    if resources.workers > 1 and not store.backend.shared:
        capacity.check_one_node(resources)
    done = store.cached(plan.nodes.values())
    needed = {node.key: node for node in plan.needed(done)}
    reporter.doing("checking the networks")
    check_networks(needed.values(), capacity.workers(resources))
    reporter.doing("starting workers")
    progress_actor = start_here(ProgressActor, _run_counts(plan, store, done, needed))
    job = Job(
        plan.nodes, store.uri, data.absolute(), progress_actor, single_node=not store.backend.shared
    )
    costs = cost.expected(plan, store.manifests(), cost.images(RawData(data)))
    seconds = {key: one.seconds for key, one in costs.items()}
    units = Units(plan, done, seconds, whole_cells=resources.workers == 1)
    result = RunResult(cached=len(done))
    running = Run(plan, study, job, capacity, units, result)
    time_left = running.time_left = TimeLeft(needed, seconds, running.shares(needed.values()))
    cells = [cell.name for cell in plan.cells]
    reporter.short_name = lambda name: without_common_words(name, cells)
    reporter.settings_of = settings_of_names(plan.nodes, plan.cells)
    with ProgressDisplay(progress_actor, reporter, time_left, publish):
        running.run()
    result.seconds = time.monotonic() - started
    return result


class Run:
    """A run of a plan: what is running, and what is ready.

    A unit (`plan.scheduling.units`) is a stage before the cells, which runs as a task, or a cell,
    which is a trial of Tune. If several workers share each fit, fits and scores are tasks too.
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
        self.stage_names = stage_names(plan.nodes, plan.cells)
        self.stages = StageTasks(job, capacity, study)
        self.units, self.queue = units, schedule.Queue()
        self.slots = Slots(
            cpus=capacity.max_cpus,
            gpus=[1.0] * int(capacity.max_gpus),
            stages=self.stages.at_once,
        )
        self.mistake: str | None = None
        self.time_left: TimeLeft | None = None
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
        if self.queue:  # `Capacity` refuses such needs before anything runs
            raise RuntimeError("the cluster has too few resources for the stages that are left")

    def advance(self) -> None:
        """Take note of the tasks that have ended, and start what there is room for now."""
        if self._tasks:
            ended, _ = ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=0)
            for task in ended:
                unit = self._tasks.pop(task)
                result = result_of(task, self.job, unit)
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
            try:
                self._started |= ray.get(self.job.progress_actor.started.remote())
            except ray.exceptions.RayActorError:  # nobody knows: cells go on
                self._started |= given
        share = self.capacity.gpus_of(self.study.resources)
        return Need(self.study.resources.cpu, share) if given - self._started else None

    def finish(self, unit: str, results: Sequence[StageResult]) -> None:
        """Record the results of a unit, and add the units that waited for them."""
        self.slots.take(self._need(unit), self._gpus.pop(unit), sign=1)
        if unit not in self.names:
            self.job.progress_actor.end_stage.remote()
        for result in results:
            if result["state"] == "mistake":
                self.mistake = self.mistake or result["error"]
                return
            self.result.add(result)
            if self.time_left:
                self.time_left.end(result["key"], result.get("seconds"), succeeded(result))
            if succeeded(result):
                for other in self.units.ready_after(result["key"]):
                    self._add(other)

    def shares(self, nodes: Iterable[Node]) -> dict[str, tuple[float, ...]]:
        """Return stage -> the shares of CPUs, GPUs and places for stages that a run of it takes."""
        capacity = self.capacity
        shares: dict[str, tuple[float, ...]] = {}
        for node in nodes:
            if node.stage not in shares:
                need = self._need(node.key)
                gpus = need.gpus / capacity.max_gpus if capacity.max_gpus else 0.0
                stages = need.stages / self.stages.at_once
                shares[node.stage] = (need.cpus / capacity.max_cpus, gpus, stages)
        return shares

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
            return self.stages.start(self.job.nodes[key], self.stage_names[key])
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


def _run_counts(plan: Plan, store: Store, done: set[str], needed: Collection[str]) -> RunCounts:
    """Return the counts of cells and shared stages at the start of a run."""
    cells = [cell for cell in plan.cells if cell.score in done]
    fits = store.find_all(plan.nodes[cell.fit] for cell in cells)
    mious = [
        (fits[cell.fit].facts["selection_miou"], cell.name) for cell in cells if cell.fit in fits
    ]
    best = max((pair for pair in mious if pair[0] is not None), default=None)
    of_cells = {key for cell in plan.cells for key in (cell.fit, cell.score)}
    stages = sum(key not in of_cells for key in needed)
    return RunCounts(len(plan.cells), len(cells), best=best, study=plan.study.name, stages=stages)
