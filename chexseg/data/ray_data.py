"""Streaming shards in order by Ray Data, and mapping files by workers that keep their model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from chexseg import code_version
from chexseg.errors import DamagedArtifactError, UserError

#: A worker of `map_files`: called with a path, it returns what can be written as JSON.
FileWorker: TypeAlias = Callable[[str], dict[str, Any]]
#: Bytes per block of Ray Data, which processes several at a time. Its default of 128 MiB is more
#: than one of our files.
BLOCK = 16 * 2**20


def _configure() -> None:
    """Configure Ray Data in this process: small blocks, in order, without progress bars."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    context.target_max_block_size = BLOCK


def stream(
    paths: Sequence[str], columns: Sequence[str], batch_size: int = 256
) -> Iterator[pa.Table]:
    """Yield batches of the named columns of shards, in the order of the paths and their rows.

    Ray Data reads one file ahead on this process's node; only the current batches are in memory.
    Reading reserves no CPU: after a node has died, cells may hold all others, and it would wait
    forever. Batches lack the schema's metadata, so `shards.array` needs the layout.
    """
    import ray

    from chexseg.data.ray_source import ShardSource

    _configure()
    source, this_node = ShardSource(paths, columns), node_label()
    # A node that is being drained refuses tasks.
    other_nodes = [{"label_selector": {name: f"!{value}" for name, value in this_node.items()}}]
    dataset = ray.data.read_datasource(
        source,
        num_cpus=0,
        concurrency=1,
        override_num_blocks=len(source.paths),
        label_selector=this_node,
        fallback_strategy=other_nodes,
    )
    try:
        yield from dataset.iter_batches(batch_size=batch_size, batch_format="pyarrow")
    except Exception as error:
        # Unwrap a task's error from the exceptions that Ray adds.
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, DamagedArtifactError | UserError):
            cause = getattr(cause, "cause", None) or cause.__cause__
        if cause is None:
            raise
        kind = DamagedArtifactError if isinstance(cause, DamagedArtifactError) else UserError
        # Ray appends advice on further lines.
        raise kind(str(getattr(cause, "cause", cause)).splitlines()[0]) from None


def map_files(
    paths: Sequence[str],
    worker: Callable[..., FileWorker],
    arguments: Mapping[str, Any],
    *,
    workers: int = 1,
    num_cpus: float = 1,
    num_gpus: float = 0,
    single_node: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Apply a stateful worker to each path, ``worker(**arguments)(path) -> dict``; keep the order.

    Several workers are Ray Data actors. A single one runs in this process, which has the modules
    loaded. Work is resumable if the worker skips files that it has finished. single_node: run all
    workers on this process's node, at most one per CPU or GPU. Progress counts files.
    """
    results: list[dict[str, Any]] = []
    if min(workers, len(paths)) <= 1:
        if paths:
            work = worker(**arguments)
        for path in paths:
            results.append(work(path))
            progress(len(results), len(paths))
        return results
    import ray
    from ray.data import ActorPoolStrategy

    _configure()
    if single_node:  # pending actors would make an autoscaler add nodes that they can't use
        workers = min(workers, _devices("GPU" if num_gpus else "CPU"))
    most = max(1, min(workers, len(paths)))
    # All actors start together; otherwise the second would wait until the first has its model. One
    # that lacks resources doesn't delay the others (min_size=1).
    pool = ActorPoolStrategy(min_size=1, initial_size=most, max_size=most)
    dataset = ray.data.from_items(
        [{"path": path} for path in paths], override_num_blocks=len(paths)
    ).map_batches(
        _PathWorker,
        fn_constructor_args=(worker, dict(arguments), code_version.running()),
        batch_size=1,
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        compute=pool,
        label_selector=node_label() if single_node else None,
    )
    for row in dataset.iter_rows():
        result = json.loads(row["result"])
        if "damaged" in result:
            raise DamagedArtifactError(result["damaged"])
        if "refused" in result:
            raise UserError(result["refused"])
        results.append(result)
        progress(len(results), len(paths))
    return results


def node_label() -> dict[str, str]:
    """Return the Ray label that identifies this process's node."""
    import ray

    return {"ray.io/node-id": ray.get_runtime_context().get_node_id()}


def _devices(kind: str) -> int:
    """Return this node's total number of CPUs or GPUs, used or not."""
    import ray

    (this_node,) = node_label().values()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's
    return int(sum(n["Resources"].get(kind, 0) for n in nodes if n["NodeID"] == this_node))


class _PathWorker:
    """The actor class that Ray Data calls with batches of one path."""

    def __init__(
        self,
        worker: Callable[..., FileWorker],
        arguments: dict[str, Any],
        code: code_version.CodeVersion,
    ):
        self.refusal = ""
        try:
            code_version.require(code)
            self.work = worker(**arguments)
        except UserError as error:  # Ray would say at length that an actor has died
            self.refusal = str(error)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        return {"result": [json.dumps(self._run(str(path))) for path in batch["path"]]}

    def _run(self, path: str) -> dict[str, Any]:
        if self.refusal:
            return {"refused": self.refusal}
        try:
            return self.work(path)
        except UserError as error:
            return {"refused": str(error)}
        except (DamagedArtifactError, pa.ArrowException, OSError) as error:
            return {"damaged": str(error)}  # an exception would be wrapped in one of Ray Data's
