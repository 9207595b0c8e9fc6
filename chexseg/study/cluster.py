"""The Ray cluster that a run uses: reached or started, and what it has room for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray

from chexseg.errors import UserError
from chexseg.study.spec import Resources

#: Times that work is tried again after its worker died.
MAX_FAILURES = 2


@dataclass(frozen=True)
class Capacity:
    """What the cluster has for us. One CPU is always left to Ray Data: without it readers would wait for ever."""

    cpus: int
    gpus: float
    node_cpus: int  # of the largest node
    node_gpus: int

    @classmethod
    def of_cluster(cls) -> Capacity:
        """Raises `UserError` for a cluster on which a study would hang."""
        total = ray.cluster_resources()
        if total.get("CPU", 0) < 2:
            raise UserError(
                f"--address: the cluster has {total.get('CPU', 0):g} CPU; allowed: at least 2, one of them for Ray Data"
            )
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        largest = [int(max(node.get(name, 0) for node in alive)) for name in ("CPU", "GPU")]
        return cls(int(total["CPU"]) - 1, total.get("GPU", 0), *largest)

    def cells_at_once(self, resources: Resources) -> int:
        """How many cells run side by side. Raises `UserError` if not one fits: Tune would wait for ever."""
        room = min(self.cpus, self.node_cpus)
        if resources.cpu > room:
            raise UserError(f"resources.cpu: found {resources.cpu:g}; allowed: at most {room}, what one node has free")
        if self.gpus and resources.gpu > self.node_gpus:
            raise UserError(f"resources.gpu: found {resources.gpu:g}; allowed: at most {self.node_gpus}, the largest node's")
        # A worker of Ray Train holds whole CPUs.
        cpus = resources.cpu if resources.workers == 1 else max(1, int(resources.cpu)) * resources.workers
        slots = [int(self.cpus / cpus)]
        if self.gpus and resources.gpu:
            slots.append(int(self.gpus / (resources.gpu * resources.workers)))
        if resources.workers > 1 and not min(slots):
            raise UserError(f"resources.workers: found {resources.workers}; allowed: as many as the cluster has room for")
        return max(1, min(slots))


def describe() -> list[dict[str, Any]]:
    """Host and resources of every node that is there now; GPUs stand among them with their type."""
    return [{"host": node["NodeManagerHostname"], "resources": node["Resources"]} for node in ray.nodes() if node["Alive"]]


@contextmanager
def cluster(address: str | None = None) -> Iterator[None]:
    """Ray for the length of a run: the one that is there, the one at `address`, or a local one that is stopped after.

    A local Ray is told of one CPU more than the machine has: the one that is left to Ray Data.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_task_oom_retries", str(MAX_FAILURES))  # Ray's default is for ever
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address:
        try:
            ray.init(address=address, **common)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"--address {address}: no Ray cluster answers there ({reason})") from None
    else:  # "local": else Ray would join any cluster that it finds on the machine
        ray.init(address="local", num_cpus=len(os.sched_getaffinity(0)) + 1, dashboard_host="127.0.0.1", **common)
    try:
        yield
    finally:
        ray.shutdown()
