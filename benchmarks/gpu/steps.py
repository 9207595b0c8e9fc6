"""Part: a step of a cell as chexseg runs it today, bare, and captured."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import fit_step
import numpy as np

from chexseg.stages import fit
from chexseg.stages.api import StageContext
from gpu import cells
from gpu.graphs import CapturedStep, memory, milliseconds
from gpu.precisions import CHANNELS_LAST, CONTIGUOUS, Precision
from gpu.rows import Row, Task
from gpu.worker import Context

GOALS = {"TF32": "7 ms", "bfloat16": "5 ms"}


def tasks(context: Context) -> list[Task]:
    """Return the part's tasks, the most telling first."""
    part_tasks = []
    for precision in CHANNELS_LAST + CONTIGUOUS:
        seconds = 8 if precision.channels_last else 5
        label = precision.label
        part_tasks += [
            Task(f"bare eager, {label}", partial(bare, context, precision, False), seconds),
            Task(f"bare captured, {label}", partial(bare, context, precision, True), 3),
            Task(f"whole step captured, {label}", partial(whole, context, precision), 3),
        ]
    for precision in CHANNELS_LAST:
        run = partial(today, context, precision)
        part_tasks.append(Task(f"chexseg's own step, {precision.label}", run, 6))
    return part_tasks


def step_row(what: str, precision: Precision, batch: int, ms: float, more: str = "") -> Row:
    """Return the row of a step with its rates."""
    rate = 1e3 * batch / ms
    more = "; ".join(text for text in (cells.teraflops(rate), more) if text)
    goal = GOALS.get(precision.name, "") if "captured" in what else ""
    return Row(what, precision.label, ms, rate, "images/s", more, goal)


def bare(context: Context, precision: Precision, captured: bool) -> Iterator[Row]:
    """Measure network, loss and optimiser alone, with cuDNN's best plans."""
    precision.set(benchmark=True)
    cell = cells.BareCell(context, precision)
    step = CapturedStep(cell.step, context.device).replay if captured else cell.step
    ms = milliseconds(step, context.device)
    what = "bare captured" if captured else "bare eager"
    yield step_row(what, precision, cell.batch, ms, memory(context.device))


def whole(context: Context, precision: Precision) -> Iterator[Row]:
    """Measure the step from uint8 pixels and packed masks on, captured as a whole."""
    precision.set(benchmark=True)
    cell = cells.Cell(context, precision)
    captured = CapturedStep(cell.step, context.device)
    ms = milliseconds(captured.replay, context.device)
    more = f"largest loss {cell.losses_S.max().item():.4f}; goal against bare captured 1.05"
    yield step_row("whole step captured", precision, cell.batch, ms, more)


def today(context: Context, precision: Precision) -> Iterator[Row]:
    """Measure `fit.optimise` and, in turns with it, a bare loop in the same settings."""
    precision.set(benchmark=True)
    turn, turns, epochs = (1, 2, 2) if context.dry else (20, 3, 2)
    config = cells.config_of(precision)
    config = config.model_copy(update={"epochs": epochs, "checkpoint": "last"})
    device = context.device.type
    data = fit_step.training_set(context.size, 1 + turns * turn, device)
    stage_context = StageContext(device=device, threads=2 if context.dry else 8)
    stage_context.prepare()  # deterministic, no choice among plans: as in a study
    pace = fit_step.Turns(fit_step.Bare(config, context.size, device), turn)
    with tempfile.TemporaryDirectory() as out:
        stage_context = replace(stage_context, progress=pace)
        fit.optimise(config, fit.build(config), data, Path(out), stage_context)
    for what, seconds in (
        ("chexseg's own step", pace.cell_seconds),
        ("bare eager, chexseg's settings", pace.bare_seconds),
    ):
        ms = 1e3 * float(np.median(seconds[turns:]))
        yield step_row(what, precision, fit_step.BATCH, ms, "deterministic cuDNN, no benchmark")
