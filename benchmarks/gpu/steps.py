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
#: GFLOP of an image forward at 320 px; a step is three times as much.
GFLOP = 14.3


def tasks(context: Context) -> list[Task]:
    """Return the part's tasks, the most telling first."""
    return [
        *(Task(name, partial(steps, context, name), 9) for name in ("bfloat16", "tf32", "float32")),
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


def steps(context: Context, precision: str) -> Iterator[Row]:
    """Measure a cell and a bare loop, with cuDNN as the stages set it."""
    cell = cell_ms(context, precision)
    goal = GOALS.get(precision, "")
    yield step_row(context, "cell, captured", precision, cell, goal=goal)
    stage_context(context).prepare()
    precisions.use(precision)
    bare = fit_step.Bare(config_of(context, precision), context.size, context.device.type)
    ms = milliseconds(captured(bare.step, context.device), context.device)
    more = f"the cell's step takes {cell / ms:.3f} of this"
    yield step_row(context, "bare loop, captured", precision, ms, more, "1.05")
    eager = cell_ms(context, precision, graphs=False)
    more = f"{eager / cell:.2f} times as long as captured"
    yield step_row(context, "cell, eager", precision, eager, more)
    precisions.use(precision)
    bare = fit_step.Bare(config_of(context, precision), context.size, context.device.type)
    ms = milliseconds(bare.step, context.device, count=30)
    more = f"the cell's step takes {eager / ms:.3f} of this"
    yield step_row(context, "bare loop, eager", precision, ms, more)


def searching(context: Context, precision: str) -> Iterator[Row]:
    """Measure the captured cell with cuDNN's fastest algorithms."""
    ms = cell_ms(context, precision, search=True)
    yield step_row(context, "cell, captured, cuDNN searches", precision, ms)


def contiguous(context: Context) -> Iterator[Row]:
    """Measure the captured cell in the other memory layout."""
    ms = cell_ms(context, "bfloat16", channels_last=False)
    yield step_row(context, "cell, captured, contiguous", "bfloat16", ms)
