"""The Ray cluster that a run uses: reached or started, and what it has room for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from chexseg.errors import UserError
from chexseg.run.cluster_limits import CURRENT_SIZE, ClusterLimits
from chexseg.run.local_ray import local_ray
from chexseg.run.worker_imports import WorkerPath

if (
    TYPE_CHECKING
):  # the processes that hold progress and gauges import this module, and need no study
    from chexseg.config.study import Resources

#: Times that work is tried again after its worker died. Ray's tasks, Tune and Train don't count a node that Ray was told would
#: go, as after a spot node's warning. One that dies without a word counts: the work itself may bring nodes down, and would
#: go on to the next one.
MAX_FAILURES = 2


@dataclass(frozen=True)
class Capacity:
    """What the cluster has for us now, and what it may get. One CPU is always left: for the actors of Ray Data that upstream
    stages map with, and for what reads beside the cells, which holds none.

    What waits for resources makes an autoscaler add nodes, so as much may be asked for at once as is in reach.
    """

    cpus: int
    gpus: float
    node_cpus: int  # of the largest node
    node_gpus: int
    limits: ClusterLimits = CURRENT_SIZE
    nodes: int = 1

    @classmethod
    def of_cluster(cls, limits: ClusterLimits = CURRENT_SIZE) -> Capacity:
        """Raises `UserError` for a cluster on which a study would hang."""
        total = ray.cluster_resources()
        if max(total.get("CPU", 0), limits.cpus) < 2:
            raise UserError(
                f"--address: the cluster has {total.get('CPU', 0):g} CPU; allowed: at least 2, one of them for Ray Data,"
                " or --grow-to CPU=N for what it may grow to"
            )
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        largest = [int(max(node.get(name, 0) for node in alive)) for name in ("CPU", "GPU")]
        return cls(
            max(int(total.get("CPU", 0)) - 1, 0), total.get("GPU", 0), *largest, limits, len(alive)
        )

    @property
    def one_node(self) -> bool:
        """True for a cluster that is a single machine and stays so."""
        return self.nodes == 1 and self.limits == CURRENT_SIZE

    @property
    def max_cpus(self) -> int:
        return max(self.cpus, self.limits.cpus - 1)

    @property
    def max_gpus(self) -> float:
        return max(self.gpus, self.limits.gpus)

    def gpus_of(self, resources: Resources) -> float:
        """What a cell holds of a GPU: nothing where there is none."""
        return resources.gpu if self.max_gpus else 0

    def cells_at_once(self, resources: Resources) -> int:
        """How many cells run side by side. Raises `UserError` if not one fits: Tune would wait for ever."""
        # How large a node is that isn't there yet, nobody knows.
        room = min(self.max_cpus, max(self.node_cpus, self.limits.cpus))
        if resources.cpu > room:
            raise UserError(
                f"resources.cpu: found {resources.cpu:g}; allowed: at most {room}, what one node has free"
            )
        largest = max(self.node_gpus, self.limits.gpus)
        if self.gpus_of(resources) > largest:
            raise UserError(
                f"resources.gpu: found {resources.gpu:g}; allowed: at most {largest}, the largest node's"
            )
        # A worker of Ray Train holds whole CPUs.
        cpus = (
            resources.cpu
            if resources.workers == 1
            else max(1, int(resources.cpu)) * resources.workers
        )
        slots = [int(self.max_cpus / cpus)]
        if gpu := self.gpus_of(resources):
            slots.append(int(self.max_gpus / (gpu * resources.workers)))
        if resources.workers > 1 and not min(slots):
            raise UserError(
                f"resources.workers: found {resources.workers}; allowed: as many as the cluster has room for"
            )
        return max(1, min(slots))

    def check_one_node(self, resources: Resources) -> None:
        """Raises `UserError` for workers for which no node has room together: in a store that is no directory which all nodes
        share, what one of them writes is found on its node alone."""
        cpus, gpus = (
            max(1, int(resources.cpu)) * resources.workers,
            self.gpus_of(resources) * resources.workers,
        )
        if cpus > max(self.node_cpus, self.limits.cpus) or gpus > max(
            self.node_gpus, self.limits.gpus
        ):
            raise UserError(
                f"resources.workers: found {resources.workers}, and --store is no directory; allowed: as many as one node has"
                " room for, or a store in a directory that all nodes share"
            )

    def without_gpus(self, resources: Resources, address: str | None) -> str | None:
        """What to tell of cells that ask for GPUs where there are none: on a machine of one's own they train on its CPUs.

        Raises `UserError` on a cluster, whose head would take days for what it was built for.
        """
        if not resources.gpu or self.max_gpus:
            return None
        if address is None:
            return f"this machine has no GPU: cells train on its CPUs, and resources.gpu: {resources.gpu:g} counts for nothing"
        raise UserError(
            f"--address {address}: the study asks for resources.gpu: {resources.gpu:g}, and the cluster has no GPU;"
            " allowed: --grow-to GPU=N,CPU=N for what it may grow to, or --set resources.gpu=0 to train on CPUs"
        )


def raise_if_draining() -> None:
    """Raises, on a node that Ray was told will be gone (drained, as after a spot node's warning), what Tune takes for
    the node's death: it goes on elsewhere, and counts no failure."""
    # Nothing public tells; Ray Train looks here too.
    if this_node() in ray._private.state.state.get_draining_nodes():
        raise ray.exceptions.RayActorError(error_msg="its node will be gone", preempted=True)


def on_node(node: str) -> NodeAffinitySchedulingStrategy:
    """On that node or not at all."""
    return NodeAffinitySchedulingStrategy(node, soft=False)


def this_node() -> str:
    return ray.get_runtime_context().get_node_id()


def largest_node() -> str:
    """The node with most CPUs; of equals this one."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    return max(
        alive, key=lambda node: (node["Resources"].get("CPU", 0), node["NodeID"] == this_node())
    )["NodeID"]


def node_with_room(bundle: Mapping[str, float], count: int) -> str:
    """A node on which so much is free `count` times at once; waits for one, which makes an autoscaler bring it."""
    group = ray.util.placement_group([dict(bundle)] * count, strategy="STRICT_PACK")
    try:
        ray.get(group.ready())
        return next(iter(ray.util.placement_group_table(group)["bundles_to_node_id"].values()))
    finally:
        ray.util.remove_placement_group(group)


def describe() -> list[dict[str, Any]]:
    """Host and resources of every node that is there now; GPUs stand among them with their type."""
    return [
        {"host": node["NodeManagerHostname"], "resources": node["Resources"]}
        for node in ray.nodes()
        if node["Alive"]
    ]


@contextmanager
def cluster(address: str | None = None) -> Iterator[str | None]:
    """Ray for the length of a run: the one that is there, the one at `address`, or a local one that is stopped after.

    Yields a line for people, where a local one is and its token. A local Ray is told of one CPU more than the machine
    has: the one that is left to Ray Data. To a cluster goes the token that the user has set for it, by Ray's variables.
    """
    if ray.is_initialized():
        yield None
        return
    os.environ.setdefault("RAY_task_oom_retries", str(MAX_FAILURES))  # Ray's default is for ever
    if not address:
        cpus = len(os.sched_getaffinity(0)) + 1
        # Above this number Ray ends workers that are idle for a second, and with them what they have imported. By itself it
        # takes the CPUs, and counts the few actors too that are there for the whole run.
        with local_ray(num_cpus=cpus, _system_config={"num_workers_soft_limit": cpus + 4}) as place:
            yield place
        return
    try:
        ray.init(
            address=address, log_to_driver=False, logging_level="error", job_config=WorkerPath()
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"--address {address}: no Ray cluster answers there ({reason})") from None
    try:
        yield None
    finally:
        ray.shutdown()
