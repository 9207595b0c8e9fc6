"""Part: the trainings before the cells, captured and eager."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from chexseg.stages import classify, irnet, moco
from chexseg.stages.configs import ClassifyConfig, IRNetConfig, MoCoConfig, PretrainConfig
from gpu import inputs
from gpu.rows import Row, Task
from gpu.timing import stage_ms
from gpu.worker import Context


@dataclass(frozen=True)
class Training:
    """A stage's training: its function, its config without batch size and precision, its inputs.

    goal: of issue 20, in images/s. seconds: that a captured and an eager measurement take.
    """

    train: Callable[..., object]
    config: Callable[..., Any]
    inputs: tuple[str, ...]
    goal: str
    seconds: tuple[float, float]


def trainings(context: Context) -> dict[str, Training]:
    """Return the trainings by name. They have more epochs than anybody waits for."""
    both, epochs = ("train", "valid"), {"epochs": 1000}
    small = {"radius": 4} if context.dry else {}
    return {
        "DenseNet121 classifier": Training(
            classify.train, partial(ClassifyConfig, **epochs), both, "1,200 at batch 16", (5, 6)
        ),
        "ResNet18 classifier": Training(
            classify.train, partial(PretrainConfig, **epochs), both, "4,000", (3, 3)
        ),
        "MoCo, ResNet18": Training(
            moco.train, partial(MoCoConfig, **epochs), ("train",), "", (3, 3)
        ),
        "IRNet, ResNet50": Training(
            irnet.train,
            partial(IRNetConfig, **epochs, **small),
            ("train", "valid", "saliency"),
            "500",
            (6, 9),
        ),
    }


#: (precision, batch size, captured): of each training first what decides.
SETTINGS = (
    ("bfloat16", 16, True),
    ("bfloat16", 16, False),
    ("tf32", 16, True),
    ("bfloat16", 64, True),
    ("tf32", 16, False),
)


def tasks(context: Context) -> list[Task]:
    """Return the part's tasks."""
    part_tasks = []
    for precision, batch, graphs in SETTINGS[: 2 if context.dry else None]:
        for name, training in trainings(context).items():
            if batch == 64 and training.train is not classify.train:
                continue
            run = partial(measure, context, name, training, precision, batch, graphs)
            label = f"{name}, {precision}, batch {batch}, {'captured' if graphs else 'eager'}"
            part_tasks.append(Task(label, run, training.seconds[not graphs]))
    name = "DenseNet121 classifier"
    run = partial(measure, context, name, trainings(context)[name], "bfloat16", 16, True, True)
    part_tasks.insert(5, Task("DenseNet121, cuDNN's search", run, 8))
    return part_tasks


def measure(
    context: Context,
    name: str,
    training: Training,
    precision: str,
    batch: int,
    graphs: bool,
    search: bool = False,
) -> Iterator[Row]:
    """Measure the steps of one training. search: cuDNN tries its algorithms."""
    batch = context.batch(batch)
    config = training.config(batch_size=batch, precision=precision)
    roles = inputs.directories(context, *training.inputs)
    if not context.dry:
        torch.cuda.reset_peak_memory_stats()
    ms = stage_ms(context, training.train, config, roles, graphs=graphs, search=search)
    more = "" if context.dry else f"peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
    how = ("captured" if graphs else "eager") + (", cuDNN searches" if search else "")
    setting = f"{precision}, batch {batch}"
    yield Row(f"{name}, {how}", setting, ms, 1e3 * batch / ms, "images/s", more, training.goal)
