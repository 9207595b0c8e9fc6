"""Workers import what the driver has imported: where they look for modules, and the check that it is the same code."""

from __future__ import annotations

import os
import types
from collections.abc import Sequence

import ray
from ray.job_config import JobConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from chexseg import code_version
from chexseg.errors import UserError

#: Seconds that nodes have to answer. A node that takes longer is left to the check in each worker (`attempt`).
PATIENCE = 60


class WorkerPath(JobConfig):
    """Settings of a Ray job whose workers have `path`, in this order, before their own `sys.path`, and nothing else.

    Ray would put the driver's current directory first, where any file could take the place of an installed package.
    """

    def __init__(self, path: Sequence[str] = ()):
        super().__init__()
        self.path = path

    def _serialize(self) -> str:
        # Ray has added its directories by now. A worker inserts one after the other at the front.
        self._py_driver_sys_path = [os.path.abspath(directory) for directory in reversed(self.path)]
        self._cached_pb = None
        return super()._serialize()


def check_nodes() -> None:
    """Raise `UserError` if the workers of a node would run other code than this process, or find none."""
    # As code, by value: a worker that imports another chexseg must not answer with that one's.
    describe = types.FunctionType(code_version.describe.__code__, {"__name__": "__main__"})
    task = ray.remote(num_cpus=0, max_retries=0)(describe)
    hosts = {}
    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            hosts[task.options(name="check code", scheduling_strategy=there).remote()] = node[
                "NodeManagerHostname"
            ]
    answered, _ = ray.wait(list(hosts), num_returns=len(hosts), timeout=PATIENCE)
    expected = code_version.running()
    for answer in answered:
        found: object
        try:
            found = code_version.CodeVersion(*ray.get(answer))
        except ray.exceptions.RayTaskError as error:
            found = f"none ({error.cause})"
        except ray.exceptions.RayError:  # the node is gone, or takes no more tasks
            continue
        if not (isinstance(found, code_version.CodeVersion) and found.same_code(expected)):
            raise UserError(code_version.mismatch(f"node {hosts[answer]}", found, expected))
