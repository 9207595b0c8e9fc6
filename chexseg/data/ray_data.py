"""Shards streamed in order by Ray Data, or mapped file by file by workers that keep their model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from chexseg import code_version
from chexseg.code_version import CodeVersion
from chexseg.errors import DamagedArtifactError

if TYPE_CHECKING:
    from ray.data import DataContext


#: Bytes of a block of Ray Data, several of which are under way at once. Its own 128 MiB are more than a file of ours has.
BLOCK = 16 * 2**20


def _context() -> DataContext:
    """Ray Data's settings of this process: small blocks, in order, no progress bars of its own."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    context.target_max_block_size = BLOCK
    return context


def stream(
    paths: Sequence[str], columns: Sequence[str], batch_size: int = 256
) -> Iterator[pa.Table]:
    """Batches of the named columns of shards, in the order of the paths and of their rows, by Ray Data.

    One file is read ahead, on this process's node, and only the batches under way are in memory. Reading holds no CPU: it would
    wait for ever for one where cells hold all that are left after a node has died. The batches have lost the schema's
    metadata: give `array` the layout.
    """
    import ray

    from chexseg.data.ray_source import ShardSource

    _context()
    source, own = ShardSource(paths, columns), node_label()
    elsewhere = [
        {"label_selector": {name: f"!{value}" for name, value in own.items()}}
    ]  # where a node that's drained refuses
    dataset = ray.data.read_datasource(
        source,
        num_cpus=0,
        concurrency=1,
        override_num_blocks=len(source.paths),
        label_selector=own,
        fallback_strategy=elsewhere,
    )
    with _damage_unwrapped():
        yield from dataset.iter_batches(batch_size=batch_size, batch_format="pyarrow")


def map_files(
    paths: Sequence[str],
    worker: type,
    arguments: Mapping[str, Any],
    *,
    workers: int = 1,
    num_cpus: float = 1,
    num_gpus: float = 0,
    single_node: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Apply a stateful worker to every path: ``worker(**arguments)(path) -> dict``.

    Several workers are actors of Ray Data. A single one runs in this process, which has imported what it needs.

    The unit of work is a file, so a worker that skips files it finds finished makes the whole resumable. Answers come back
    in the order of the paths. here: all workers are on this process's node, one a CPU or a GPU at most. Progress counts files.
    """
    answers: list[dict[str, Any]] = []
    if min(workers, len(paths)) <= 1:
        work = worker(**arguments) if paths else None
        for path in paths:
            answers.append(work(path))
            progress(len(answers), len(paths))
        return answers
    import ray
    from ray.data import ActorPoolStrategy

    _context()
    if (
        single_node
    ):  # an autoscaler would bring nodes for what waits, and these could take none of it
        workers = min(workers, _devices("GPU" if num_gpus else "CPU"))
    most = max(1, min(workers, len(paths)))
    # All start at once, or the second would wait for the first to have its model; one that finds no room holds nobody up.
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
        answer = json.loads(row["answer"])
        if "damaged" in answer:
            raise DamagedArtifactError(answer["damaged"])
        answers.append(answer)
        progress(len(answers), len(paths))
    return answers


@contextmanager
def _damage_unwrapped() -> Iterator[None]:
    """Raise a `DamagedArtifactError` of one of Ray Data's tasks as itself, without what Ray wraps it in."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, DamagedArtifactError):
            cause = getattr(cause, "cause", None) or cause.__cause__
        if cause is None:
            raise
        raise DamagedArtifactError(
            str(getattr(cause, "cause", cause)).splitlines()[0]
        ) from None  # Ray adds advice below it


def node_label() -> dict[str, str]:
    """The labels of Ray that only this process's node has."""
    import ray

    return {"ray.io/node-id": ray.get_runtime_context().get_node_id()}


def _devices(kind: str) -> int:
    """What this process's node has of a resource, taken or not."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    return int(sum(node["Resources"].get(kind, 0) for node in ray.nodes() if node["NodeID"] == own))


class _PathWorker:
    """Ray Data hands over batches of one path; the worker sees only the path."""

    def __init__(self, worker: type, arguments: dict[str, Any], code: CodeVersion):
        code_version.require(code)
        self.work = worker(**arguments)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        return {"answer": [json.dumps(self._answer(str(path))) for path in batch["path"]]}

    def _answer(self, path: str) -> dict[str, Any]:
        try:
            return self.work(path)
        except (
            DamagedArtifactError,
            pa.ArrowException,
            OSError,
        ) as error:  # Ray Data's own errors would hide which it was
            return {"damaged": str(error)}
