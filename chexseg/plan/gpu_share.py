"""The cells that share a GPU with `resources.gpu: auto`.

Measured on one H200 (docs/explanation/performance.md): one captured cell nearly fills the GPU while
it trains, and processes that share a GPU take turns. A second cell fills the gaps in which the
first one starts, selects its epoch and is scored. Eager cells wait for Python most of the time, and
four of them are done twice as fast as one after another.
"""

from __future__ import annotations

from collections.abc import Callable

from chexseg.config import search_space
from chexseg.config.study import Study

#: Cells at once on a GPU, by `execution.graphs`.
CELLS = {"auto": 2, "off": 4}
#: Memory of a cell's process in bytes, and what it needs more for each pixel of a batch. Measured:
#: four cells with ResNet18, 8 images of 320 px in a batch and their sets on the GPU, 15.8 GB.
PROCESS, PIXEL = 2**30, 3 * 2**30 / (8 * 320**2)


def resolved(study: Study, memory: Callable[[], int | None]) -> Study:
    """Return the study with a number for `resources.gpu`.

    memory: returns a GPU's, as for `cells`; called only if needed.
    """
    resources = study.resources
    if resources.gpu != "auto":
        return study
    share = 1.0 if resources.workers > 1 else 1 / cells(study, memory())
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
