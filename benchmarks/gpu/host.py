"""Part: classifiers trained on a streamed set, against the same set on the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from chexseg.data import radiographs
from chexseg.data.sampling import radiograph_samplers
from chexseg.data.sampling.samplers import Streamed
from chexseg.stages import classify
from chexseg.stages.configs import ClassifyConfig
from gpu import inputs
from gpu.rows import Row, Task
from gpu.timing import stage_ms
from gpu.worker import Context

#: Rows of the shuffle buffer.
BUFFER = 250
#: Architecture -> seconds that the three measurements take.
ARCHITECTURES = {"densenet121": 30, "resnet18": 25}


def tasks(context: Context) -> list[Task]:
    """Return the part's tasks, those of the smaller network in a dry run."""
    return [
        Task(f"{how}, {name}", partial(measure, context, name, how), seconds)
        for name in list(ARCHITECTURES)[-1 if context.dry else 0 :]
        for how, seconds in (("from memory", 7), ("by Ray Data", 15))
    ]


def from_memory(
    artifact: Path,
    image_ids: Sequence[str],
    columns: Mapping[str, torch.Tensor],
    seed: int,
    device: str,
    *_: object,
) -> Streamed:
    """Do what `radiograph_samplers.source` does for a large set, but read arrays in memory."""
    arrays = {"images": radiographs.pixels(artifact, image_ids).numpy()}
    arrays |= {name: values.numpy() for name, values in columns.items()}

    def open_pass(number: int) -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, len(image_ids), 64):
            yield {name: values[start : start + 64] for name, values in arrays.items()}

    return Streamed(open_pass, len(image_ids), seed, device, BUFFER)


def measure(context: Context, architecture: str, how: str) -> Iterator[Row]:
    """Measure a training on a resident set and on a streamed one, within its first pass."""
    batch = context.batch(16)
    config = ClassifyConfig(
        architecture=architecture, batch_size=batch, epochs=1000, precision="bfloat16"
    )
    files = inputs.directories(context, "train", "valid")
    steps = partial(stage_ms, context, classify.train, config, files, skip=20, count=60)
    resident = steps()
    if how == "from memory":
        with mock.patch.object(radiograph_samplers, "source", from_memory):
            ms = steps()
    else:
        ms = by_ray_data(context, steps)
    setting, more = f"{architecture}, bfloat16, batch {batch}", f"{resident / ms:.2f} of resident"
    more += f" ({1e3 * batch / resident:,.0f} images/s)"
    goal = "0.9 of resident"
    yield Row(f"streamed {how}", setting, ms, 1e3 * batch / ms, "images/s", more, goal)


def by_ray_data(context: Context, steps: Any) -> float:
    """Return the milliseconds of a step of a set that is too large for its share of memory."""
    from bare import own_ray

    buffer_bytes = BUFFER * context.size**2 / radiograph_samplers.BUFFER_SHARE
    with own_ray():
        return steps(resident_bytes=0 if context.dry else int(buffer_bytes))
