"""Stages as tasks of Ray: those before the cells, and fits that several workers share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import ray

from chexseg.config.study import Study
from chexseg.plan.graph import Node
from chexseg.plan.preflight import Workers
from chexseg.plan.scheduling.schedule import Need
from chexseg.run.cluster import (
    MAX_FAILURES,
    Capacity,
    largest_node,
    node_with_room,
    on_node,
    remote,
)
from chexseg.run.progress.actor import ProgressWriter
from chexseg.run.run_record import StageResult
from chexseg.run.worker import Job, attempt, record_lost_worker
from chexseg.stages.api import GPU_OF_ITS_OWN, StageContext

#: Upstream stages whose training reserves CPUs, on a worker of Ray Train or in their task. They
#: start no actors.
TRAINED = ("classify", "pretrain", "moco")


@remote(num_cpus=0, max_retries=MAX_FAILURES, retry_exceptions=[ray.exceptions.RayActorError])
def _stage_task(
    job: Job, key: str, progress_writer: ProgressWriter, context: StageContext
) -> StageResult:
    job.progress_actor.start.remote(key)
    context = replace(context, progress=progress_writer, say=progress_writer.say)
    return attempt(job, key, progress_writer.name, context)


def result_of(task: ray.ObjectRef[Any], job: Job, key: str) -> StageResult:
    """Return the result of a finished task, also if its worker died too often.

    Raises `LocalRayletDiedError` if the driver's node has no Ray any more: no stage can run.
    """
    try:
        return cast("StageResult", ray.get(task))
    except ray.exceptions.LocalRayletDiedError:
        raise
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


class StageTasks:
    """Starts stages as tasks, and says what they need."""

    def __init__(self, job: Job, capacity: Capacity, study: Study) -> None:
        self.job, self.study = job, study
        self.workers = capacity.workers(study.resources)
        self.gpu, self.share = capacity.max_gpus >= 1, capacity.gpus_of(study.resources)
        # On the CPUs of a single machine a stage trains in its task, with as many retries as a
        # worker of Ray Train would get. Ray Train takes 13 s and seven more processes to start.
        self.in_task, self.all_cpus = not self.gpu and capacity.one_node, capacity.max_cpus
        self.context = StageContext(
            device="cuda" if self.gpu else "cpu",
            threads=capacity.stage_cpus,
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

    def start(self, node: Node, name: str) -> ray.ObjectRef[Any]:
        """Start a stage before the cells. Tasks that start actors of Ray Data reserve no CPU."""
        strategy: Any = "SPREAD" if self.gpu else "DEFAULT"
        if self.job.single_node and not self.gpu:
            strategy = on_node(largest_node())
        context, cpus, share = reservation(node.stage, self.context, self.workers)
        if context.train_workers > 1 and self.job.single_node:
            room = {"CPU": context.threads, "GPU": GPU_OF_ITS_OWN if self.gpu else 0}
            strategy = on_node(node_with_room(room, context.train_workers))
        options = {"num_cpus": cpus, "num_gpus": share, "scheduling_strategy": strategy}
        actor, cell = self.job.progress_actor, node.key[:12]
        writer = ProgressWriter(actor, name, node.key, cell, node.stage)
        return self._submit(node, writer, context, options)

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
        writer = self.job.cell_progress_writer(node.key, name)
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
