"""Connect to a Ray cluster or start a local one, and compute how much work it can hold."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from chexseg.errors import RayLostError, UserError, reason
from chexseg.run import ray_internals
from chexseg.run.cluster_limits import CURRENT_SIZE, OPTION, ClusterLimits
from chexseg.run.local_ray import local_ray

if TYPE_CHECKING:  # the processes of progress and gauges import this module without a study
    from chexseg.config.study import Resources
    from chexseg.plan.preflight import Workers

#: Retries of a task, trial or training after its worker died. Ray's tasks, Tune and Train don't
#: count a death on a draining node, as after a spot notice. A node that dies without notice counts
#: as a failure, because the task itself may be crashing nodes.
MAX_FAILURES = 2

#: `ray.remote` with options that Ray documents and its type hints lack.
remote = cast("Callable[..., Callable[[Callable[..., object]], Any]]", ray.remote)


@dataclass(frozen=True)
class Capacity:
    """Resources available to a run now, and those that the cluster may grow to.

    One CPU is always left out: for the Ray Data actors of upstream stages, and for reads beside
    the cells, which reserve none. Pending demand makes an autoscaler add nodes, so a run submits
    as much as the full cluster could hold.
    """

    cpus: int
    gpus: float
    node_cpus: int  # of the largest node
    node_gpus: int
    limits: ClusterLimits = CURRENT_SIZE
    nodes: int = 1
    #: CPUs and GPUs of each node; empty if they aren't known.
    sizes: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of_cluster(cls, limits: ClusterLimits = CURRENT_SIZE) -> Capacity:
        """Return the cluster's capacity. Raise `UserError` if a study would hang on it."""
        total = ray.cluster_resources()  # type: ignore[no-untyped-call]
        if max(total.get("CPU", 0), limits.cpus) < 2:
            raise UserError(
                f"--address: found a cluster with {total.get('CPU', 0):g} CPU; expected at least 2,"
                f" one of them for Ray Data (hint: {OPTION} CPU=N if it can grow)"
            )
        nodes = [node["Resources"] for node in alive_nodes()]
        return cls(
            cpus=max(int(total.get("CPU", 0)) - 1, 0),
            gpus=total.get("GPU", 0),
            node_cpus=int(max(node.get("CPU", 0) for node in nodes)),
            node_gpus=int(max(node.get("GPU", 0) for node in nodes)),
            limits=limits,
            nodes=len(nodes),
            sizes=tuple((int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes),
        )

    @property
    def one_node(self) -> bool:
        """Return True for a single machine that can't grow."""
        return self.nodes == 1 and self.limits == CURRENT_SIZE

    @property
    def stage_cpus(self) -> int:
        """Return the CPUs that a stage may use on any node that it may run on."""
        beside_gpus = [cpus for cpus, gpus in self.sizes if gpus]
        return max(1, min([self.cpus, self.node_cpus, *beside_gpus]))

    @property
    def max_cpus(self) -> int:
        return max(self.cpus, self.limits.cpus - 1)

    @property
    def max_gpus(self) -> float:
        return max(self.gpus, self.limits.gpus)

    def gpus_of(self, resources: Resources) -> float:
        """Return the GPU share that a cell reserves: 0 if the cluster has no GPU.

        `resources.gpu` must be a number (`plan.gpu_share.resolved`).
        """
        return float(resources.gpu) if self.max_gpus else 0

    def gpu_memory(self) -> int | None:
        """Return the memory of one of the cluster's GPUs in bytes; None if it has none yet."""
        return cast(int, ray.get(_gpu_memory.remote())) if self.gpus else None

    def workers(self, resources: Resources) -> Workers:
        """Return how many workers share each training, and which of them have GPUs.

        Raises `UserError` for more workers of a stage than the cluster can hold: they would be
        waited for, or the stage never started.
        """
        from chexseg.plan.preflight import Workers

        most = int(self.max_gpus) or self.max_cpus
        if resources.stage_workers > max(1, most):
            raise UserError(
                f"resources.stage_workers: found {resources.stage_workers}; expected at most"
                f" {max(1, most)}, the cluster's {'GPUs' if self.max_gpus >= 1 else 'free CPUs'}"
            )
        return Workers(
            resources.workers,
            resources.stage_workers,
            cells_on_gpu=self.gpus_of(resources) > 0,
            stages_on_gpu=self.max_gpus >= 1,
        )

    def cells_at_once(self, resources: Resources) -> int:
        """Return the number of concurrent cells.

        Raises `UserError` if not even one fits, because Tune would wait forever.
        """
        # The size of nodes that an autoscaler may add is unknown.
        cpus_per_node = min(self.max_cpus, max(self.node_cpus, self.limits.cpus))
        if resources.cpu > cpus_per_node:
            raise UserError(
                f"resources.cpu: found {resources.cpu:g};"
                f" expected at most {cpus_per_node}, the free CPUs of one node"
            )
        largest = max(self.node_gpus, self.limits.gpus)
        gpu = self.gpus_of(resources)
        if gpu > largest:
            raise UserError(
                f"resources.gpu: found {gpu:g};"
                f" expected at most {largest}, the GPUs of the largest node"
            )
        if gpu and self.sizes and self.limits == CURRENT_SIZE:
            self._check_node(resources.cpu, gpu)
        cpus = resources.cpu if resources.workers == 1 else _worker_cpus(resources)
        slots = [int(self.max_cpus / cpus)]
        if gpu:
            slots.append(int(self.max_gpus / (gpu * resources.workers)))
        if resources.workers > 1 and not min(slots):
            raise UserError(
                f"resources.workers: found {resources.workers};"
                " expected no more than the cluster can hold"
            )
        return max(1, min(slots))

    def _check_node(self, cpu: float, gpu: float) -> None:
        """Raise `UserError` if no node has these CPUs and GPUs together."""
        if not any(cpus >= cpu and gpus >= gpu for cpus, gpus in self.sizes):
            cpus, gpus = max(self.sizes, key=lambda size: (size[1], size[0]))
            raise UserError(
                f"resources: found cpu {cpu:g} and gpu {gpu:g} for a cell; expected at most what"
                f" one node has together, such as cpu {cpus} and gpu {gpus}"
            )

    def check_one_node(self, resources: Resources) -> None:
        """Raise `UserError` if the workers that share a fit don't fit on one node.

        Needed for stores outside a shared directory: a worker's files are on its own node only.
        """
        if _worker_cpus(resources) > max(self.node_cpus, self.limits.cpus) or self.gpus_of(
            resources
        ) * resources.workers > max(self.node_gpus, self.limits.gpus):
            raise UserError(
                f"resources.workers: found {resources.workers} with a --store that is no directory;"
                " expected no more than one node can hold (hint: use a shared directory)"
            )

    def without_gpus(self, resources: Resources, address: str | None) -> str | None:
        """Return a note if cells ask for GPUs and this machine has none; else None.

        On a cluster raises `UserError`: its head would train on CPUs for days.
        """
        if not resources.gpu or self.max_gpus:
            return None
        wanted = resources.gpu if resources.gpu == "auto" else f"{resources.gpu:g}"
        if address is None:
            return f"no GPU found: cells run on CPUs and `resources.gpu: {wanted}` is ignored"
        raise UserError(
            f"--address {address}: found a cluster with no GPU; expected one for resources.gpu:"
            f" {wanted} (hint: {OPTION} GPU=N,CPU=N if the cluster can grow,"
            " or --set resources.gpu=0 to train on CPUs)"
        )


@remote(num_cpus=0, num_gpus=0.01, max_retries=MAX_FAILURES)
def _gpu_memory() -> int:
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory)


def _worker_cpus(resources: Resources) -> int:
    """Return the CPUs of all workers of a shared fit; one of Ray Train reserves whole CPUs."""
    return max(1, int(resources.cpu)) * resources.workers


def raise_if_draining() -> None:
    """Raise `RayActorError` on a draining node, so that Tune retries elsewhere.

    Tune then takes the node for dead and counts no failure.
    """
    if ray_internals.is_draining(this_node()):
        raise ray.exceptions.RayActorError(error_msg="its node is being drained", preempted=True)


def on_node(node: str) -> NodeAffinitySchedulingStrategy:
    """Return the strategy that schedules on this node or not at all."""
    return NodeAffinitySchedulingStrategy(node, soft=False)


def this_node() -> str:
    return str(ray.get_runtime_context().get_node_id())


def start_here(actor: Any, *arguments: object) -> Any:
    """Start an actor on this node, the driver's: losing it elsewhere would end the run.

    On another node it could keep an idle node alive.
    """
    return actor.options(scheduling_strategy=on_node(this_node())).remote(*arguments)


def alive_nodes() -> list[dict[str, Any]]:
    """Return Ray's records of the nodes that are alive."""
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def largest_node() -> str:
    """Return the id of the node with the most CPUs; among equals, this one."""
    here = this_node()
    largest = max(
        alive_nodes(),
        key=lambda node: (node["Resources"].get("CPU", 0), node["NodeID"] == here),
    )
    return str(largest["NodeID"])


def node_with_room(bundle: Mapping[str, float], count: int) -> str:
    """Return a node with room for `count` bundles of resources at once.

    Waits for one; the pending demand makes an autoscaler add it.
    """
    group = ray.util.placement_group([dict(bundle)] * count, strategy="STRICT_PACK")
    try:
        ray.get(group.ready())
        table = ray.util.placement_group_table(group)
        return str(next(iter(table["bundles_to_node_id"].values())))
    finally:
        ray.util.remove_placement_group(group)


def describe() -> list[dict[str, Any]]:
    """Return host and resources of every node; the type of a GPU is one of its resources."""
    return [
        {"host": node["NodeManagerHostname"], "resources": node["Resources"]}
        for node in alive_nodes()
    ]


def _check_home() -> None:
    """Raise `UserError` for a user without a home directory; Ray Train asks for it, hours later."""
    try:
        Path.home()
    except RuntimeError:
        raise UserError(
            "HOME: not set, and this user has no entry in the list of users; expected: a home"
            " directory, for Ray; hint: set HOME to any directory"
        ) from None


@contextmanager
def cluster(address: str | None = None) -> Iterator[str | None]:
    """Connect to the Ray at `address`, or start a local one and stop it at the end.

    Yields the local Ray's addresses as text, otherwise None. A connection that exists is reused.
    A local Ray gets one CPU more than the machine has: the one that is left to Ray Data.
    A cluster's token is taken from Ray's environment variables. Raises `UserError`, and
    `RayLostError` if Ray ends during the context.
    """
    with _losses_explained(), _connected(address) as location:
        yield location


@contextmanager
def _losses_explained() -> Iterator[None]:
    """Raise `RayLostError` for an error of Ray itself. A task's error keeps its traceback."""
    try:
        yield
    except ray.exceptions.RayTaskError:
        raise
    except ray.exceptions.RayError as error:
        raise RayLostError(
            f"Ray has ended, or has lost a node ({type(error).__name__}: {reason(error)});"
            " hint: the same command resumes the run"
        ) from error


@contextmanager
def _connected(address: str | None) -> Iterator[str | None]:
    """As `cluster`, with Ray's own errors."""
    if ray.is_initialized():
        yield None
        return
    _check_home()
    os.environ.setdefault("RAY_task_oom_retries", str(MAX_FAILURES))  # Ray's default is no limit
    if not address:
        cpus = len(os.sched_getaffinity(0)) + 1
        # Four more than Ray's default, which counts the actors that exist for the whole run too.
        with local_ray(num_cpus=cpus, **ray_internals.idle_worker_limit(cpus + 4)) as location:
            yield location
        return
    ray_internals.skip_usage_tags()
    try:
        try:
            with ray_internals.signals_after_start(), ray_internals.same_environment():
                ray.init(
                    address=address,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    job_config=ray_internals.WorkerPath(),
                )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(
                f"--address {address}: no Ray cluster answers there ({reason(error)})"
            ) from None
        yield None
    finally:
        ray_internals.shutdown()
