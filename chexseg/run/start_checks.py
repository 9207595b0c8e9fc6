"""Check before a run that every node has the driver's code, and that all networks can be built."""

from __future__ import annotations

import types
from collections.abc import Iterable, Sequence

import ray

from chexseg import code_version
from chexseg.errors import UserError
from chexseg.plan.graph import Node
from chexseg.plan.preflight import Workers, check, to_check
from chexseg.run.cluster import MAX_FAILURES, alive_nodes, on_node, remote

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
