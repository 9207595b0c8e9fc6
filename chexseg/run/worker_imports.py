"""Check that the workers of every node import the same code as the driver."""

from __future__ import annotations

import types

import ray

from chexseg import code_version
from chexseg.errors import UserError
from chexseg.run.cluster import alive_nodes, on_node

#: Seconds to wait for the nodes. A slower node is left to the check in each worker (`attempt`).
PATIENCE = 60


def check_nodes() -> None:
    """Raise `UserError` if the workers of a node import other code than this process, or none.

    A command calls `code_version.running` when it begins: sources that are edited while it plans
    and starts Ray are found here too.
    """
    # The function is sent by value: a worker with another chexseg must not answer with its copy.
    describe = types.FunctionType(code_version.describe.__code__, {"__name__": "__main__"})
    task = ray.remote(num_cpus=0, max_retries=0)(describe)
    hosts = {}
    for node in alive_nodes():
        request = task.options(name="check code", scheduling_strategy=on_node(node["NodeID"]))
        hosts[request.remote()] = node["NodeManagerHostname"]
    answered, _ = ray.wait(list(hosts), num_returns=len(hosts), timeout=PATIENCE)
    expected = code_version.running()
    for answer in answered:
        version: object
        try:
            version = code_version.CodeVersion(*ray.get(answer))
        except ray.exceptions.RayTaskError as error:
            version = f"none ({error.cause})"
        except ray.exceptions.RayError:  # the node is gone, or takes no more tasks
            continue
        if not (isinstance(version, code_version.CodeVersion) and version.same_code(expected)):
            raise UserError(code_version.mismatch(f"node {hosts[answer]}", version, expected))
