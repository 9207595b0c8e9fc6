"""The cells that share a GPU with `resources.gpu: auto`.

Measured on one H200 (docs/explanation/performance.md): one captured cell nearly fills the GPU while
it trains, and processes that share a GPU take turns. A second cell fills the gaps in which the
first one starts, selects its epoch and is scored. Eager cells wait for Python most of the time, and
four of them are done twice as fast as one after another.
"""

from __future__ import annotations

from typing import Any, cast

import ray

from chexseg.config import search_space
from chexseg.config.study import Study
from chexseg.run.cluster import MAX_FAILURES, Capacity, remote

#: Cells at once on a GPU, by `execution.graphs`.
CELLS = {"auto": 2, "off": 4}
#: Memory of a cell's process in bytes, and what it needs more for each pixel of a batch. Measured:
#: four cells with ResNet18, 8 images of 320 px in a batch and their sets on the GPU, 15.8 GB.
PROCESS, PIXEL = 2**30, 3 * 2**30 / (8 * 320**2)


def resolved(study: Study, capacity: Capacity) -> Study:
    """Return the study with a number for `resources.gpu`. Ray must be connected."""
    resources = study.resources
    if resources.gpu != "auto":
        return study
    if resources.workers > 1:
        share = 1.0
    else:
        memory = _memory() if capacity.gpus else None
        share = 1 / cells(study, memory)
    return study.model_copy(update={"resources": resources.model_copy(update={"gpu": share})})


def cells(study: Study, memory: int | None) -> int:
    """Return the number of cells to run at once on a GPU with this much memory, in bytes.

    memory: None for a GPU that the cluster has yet to add; it is taken to suffice.
    """
    most = CELLS[study.execution.graphs]
    if memory is None:
        return most
    batch = max(_batch_size(member) for member in study.members or (study,))
    needed = PROCESS + PIXEL * batch * study.settings.size**2
    return max(1, min(most, int(memory / needed)))


def _batch_size(study: Study) -> int:
    """Return the largest batch of a study's fits."""
    axis = study.axes.get("fit.batch_size", (study.settings.fit.batch_size,))
    return int(max(search_space.ends(axis)))


def _memory() -> int:
    """Return the memory of one of the cluster's GPUs, in bytes."""
    return cast(int, ray.get(cast(Any, _memory_task).remote()))


@remote(num_cpus=0, num_gpus=0.01, max_retries=MAX_FAILURES)
def _memory_task() -> int:
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory)
