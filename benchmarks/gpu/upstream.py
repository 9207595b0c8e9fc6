"""Part: training before the cells, as the stages do it and captured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from gpu.graphs import CapturedStep, milliseconds
from gpu.precisions import BFLOAT16, FLOAT32, TF32, Precision
from gpu.rows import Row, Task
from gpu.training import Training
from gpu.trainings import Boundaries, Classification, Contrast
from gpu.worker import Context

#: Plans that cuDNN tries; all ten would take longer than what they are tried for.
PLANS = 4
#: Name -> (build, batch sizes, precisions, goal, seconds that the stage's steps take here).
KINDS: dict[str, tuple[Callable[..., Training], tuple[int, ...], tuple[Precision, ...], str, float]]
KINDS = {
    "DenseNet121 classifier": (
        lambda *where, batch: Classification(*where, "densenet121", batch),
        (16, 64),
        (BFLOAT16, TF32),
        "1,200 images/s at batch 16",
        9,
    ),
    "MoCo, ResNet18": (
        lambda *where, batch: Contrast(*where, batch),
        (16, 64),
        (BFLOAT16, TF32),
        "",
        6,
    ),
    "IRNet, ResNet50": (
        lambda *where, batch: Boundaries(*where, batch),
        (16,),
        (TF32, BFLOAT16, FLOAT32),
        "500 images/s",
        12,
    ),
    "ResNet18 classifier": (
        lambda *where, batch: Classification(*where, "resnet18", batch),
        (16, 64),
        (BFLOAT16, TF32),
        "4,000 images/s",
        4,
    ),
}


def tasks(context: Context) -> list[Task]:
    """Return the part's tasks: of each training first what decides, then the other settings."""
    part_tasks = []
    rounds = [(index, name) for index in range(4) for name in KINDS]
    for index, name in rounds:
        build, batches, precisions, goal, seconds = KINDS[name]
        settings = [(precision, batch) for batch in batches for precision in precisions]
        if index >= len(settings):
            continue
        precision, batch = settings[index]
        arguments = (context, name, build, precision, batch, goal)
        label = f"{name}, {precision.name}, batch {batch}"
        part_tasks.append(Task(f"stage, {label}", partial(measure, *arguments, False), seconds))
        part_tasks.append(Task(f"captured, {label}", partial(measure, *arguments, True), 4))
    return part_tasks


def measure(
    context: Context,
    name: str,
    build: Callable[..., Training],
    precision: Precision,
    batch: int,
    goal: str,
    captured: bool,
) -> Iterator[Row]:
    """Measure one training's step, as the stage runs it or captured."""
    precision.set(benchmark=True, plans=PLANS)
    training = build(context, precision, batch=batch)
    if captured:
        step: Callable[[], None] = CapturedStep(training.step, context.device).replay
        count = 60
    else:
        step, count = training.as_stage, 30
    ms = milliseconds(step, context.device, count=count)
    setting = f"{precision.label}, batch {training.batch}"
    more = f"{len(training.constants)} constants kept on the device" if captured else ""
    if context.device.type == "cuda":
        more += f"; peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
        torch.cuda.reset_peak_memory_stats()
    rate = 1e3 * training.batch / ms
    how = "captured" if captured else "as the stage, cuDNN benchmark on"
    yield Row(f"{name}: {how}", setting, ms, rate, "images/s", more.lstrip("; "), goal)
