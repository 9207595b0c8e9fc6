"""Part: a step of a cell, by `fit` and in a bare loop, captured and eager."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import fit_step

from chexseg.stages import fit
from chexseg.stages.configs import FitConfig
from chexseg.stages.training import precision as precisions
from gpu import inputs
from gpu.graphs import captured
from gpu.rows import Row, Task
from gpu.timing import milliseconds, stage_context, stage_ms
from gpu.worker import Context

GOALS = {"tf32": "7 ms", "bfloat16": "5 ms"}
#: Captured or not -> the word.
HOW = {True: "captured", False: "eager"}
#: (precision, captured) -> milliseconds of a cell's step, if this process has measured it.
MEASURED: dict[tuple[str, bool], float] = {}
#: GFLOP of an image forward at 320 px; a step is three times as much.
GFLOP = 14.3


def tasks(context: Context) -> list[Task]:
    """Return the part's tasks, the most telling first."""
    part_tasks = []
    for precision in ("bfloat16", "tf32", "float32")[: 1 if context.dry else None]:
        for graphs in (True, False):
            for what, run in (("cell", cell), ("bare loop", bare)):
                label = f"{what}, {HOW[graphs]}, {precision}"
                part_tasks.append(Task(label, partial(run, context, precision, graphs), 3))
    return [
        *part_tasks,
        Task("cuDNN's search", partial(searching, context, "bfloat16"), 5),
        Task("cuDNN's search, tf32", partial(searching, context, "tf32"), 5),
        Task("contiguous", partial(contiguous, context), 4),
    ]


def config_of(context: Context, precision: str, **settings: Any) -> FitConfig:
    """Return the config of a cell of Table 1, but with random initial weights."""
    settings = {"p": 0.5, "weak_images": 10 if context.dry else 100} | settings
    return FitConfig(
        init="random",
        weak="saliency",
        precision=precision,
        batch_size=context.batch(8),
        **inputs.expert(context),
        **settings,
    )


def cell_inputs(context: Context) -> dict[str, Any]:
    """Return the inputs of a cell."""
    weak = inputs.directory(context, "saliency")
    return inputs.directories(context, "train", "valid") | {"weak": weak}


def cell_ms(
    context: Context,
    precision: str,
    *,
    graphs: bool = True,
    search: bool = False,
    **settings: Any,
) -> float:
    """Return the milliseconds of a step within an epoch of `fit`."""
    config = config_of(context, precision, samples_per_epoch=10_000, **settings)
    inputs_of_cell = cell_inputs(context)
    return stage_ms(context, fit.train, config, inputs_of_cell, graphs=graphs, search=search)


def step_row(
    context: Context, what: str, precision: str, ms: float, more: str = "", goal: str = ""
) -> Row:
    """Return the row of a step with its rates."""
    rate = 1e3 * context.batch(8) / ms
    teraflops = f"{3 * GFLOP * rate / 1e3:.1f} TFLOP/s"
    more = "; ".join(text for text in (teraflops, more) if text)
    return Row(what, precision, ms, rate, "images/s", more, goal)


def cell(context: Context, precision: str, graphs: bool) -> Iterator[Row]:
    """Measure a cell, with cuDNN as the stages set it."""
    ms = MEASURED[precision, graphs] = cell_ms(context, precision, graphs=graphs)
    goal = GOALS.get(precision, "") if graphs else ""
    yield step_row(context, f"cell, {HOW[graphs]}", precision, ms, goal=goal)


def bare(context: Context, precision: str, graphs: bool) -> Iterator[Row]:
    """Measure network, loss and optimizer alone, with cuDNN as the stages set it."""
    stage_context(context).prepare()
    precisions.use(precision)
    loop = fit_step.Bare(config_of(context, precision), context.size, context.device.type)
    step = captured(loop.step, context.device) if graphs else loop.step
    ms = milliseconds(step, context.device, count=60 if graphs else 30)
    of_cell = MEASURED.get((precision, graphs))
    more = f"the cell's step takes {of_cell / ms:.3f} of this" if of_cell else ""
    goal = "1.05" if graphs else ""
    yield step_row(context, f"bare loop, {HOW[graphs]}", precision, ms, more, goal)


def searching(context: Context, precision: str) -> Iterator[Row]:
    """Measure the captured cell with cuDNN's fastest algorithms."""
    ms = cell_ms(context, precision, search=True)
    yield step_row(context, "cell, captured, cuDNN searches", precision, ms)


def contiguous(context: Context) -> Iterator[Row]:
    """Measure the captured cell in the other memory layout."""
    ms = cell_ms(context, "bfloat16", channels_last=False)
    yield step_row(context, "cell, captured, contiguous", "bfloat16", ms)
