"""Part: torch.compile of a cell's network, by itself and inside a captured step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import torch

from gpu import cells
from gpu.graphs import CapturedStep, milliseconds
from gpu.precisions import BFLOAT16, TF32, Precision
from gpu.rows import Row, Task
from gpu.steps import step_row
from gpu.worker import Context

#: Seconds that a compilation may take.
LIMIT = 75


def tasks(context: Context) -> list[Task]:
    """Return the part's tasks."""
    return [
        Task(f"{what}, {precision.label}", partial(run, context, precision), 30, LIMIT)
        for what, run, precision in (
            ("compiled, step captured", inside_a_capture, BFLOAT16),
            ("torch.compile reduce-overhead", reduce_overhead, BFLOAT16),
            ("compiled, step captured", inside_a_capture, TF32),
            ("torch.compile reduce-overhead", reduce_overhead, TF32),
        )
    ]


def compiled_cell(context: Context, precision: Precision, **options) -> cells.BareCell:
    """Return a bare cell whose network is compiled; a dry run leaves the compiling out."""
    precision.set(benchmark=True)
    cell = cells.BareCell(context, precision)
    if not context.dry:
        cell.network = torch.compile(cell.model, dynamic=False, **options)
    return cell


def first(step: Callable[[], None]) -> str:
    """Run a step for the first time and return how long that took."""
    started = time.perf_counter()
    step()
    return f"compiled in {time.perf_counter() - started:.0f} s"


def inside_a_capture(context: Context, precision: Precision) -> Iterator[Row]:
    """Measure fused kernels, the optimiser too, in one graph."""
    cell = compiled_cell(context, precision)
    note = first(cell.step)
    ms = milliseconds(CapturedStep(cell.step, context.device).replay, context.device)
    yield step_row("compiled, bare captured", precision, cell.batch, ms, note)


def reduce_overhead(context: Context, precision: Precision) -> Iterator[Row]:
    """Measure torch's own graphs of forward and backward pass; the optimiser stays eager."""
    cell = compiled_cell(context, precision, mode="reduce-overhead")

    def step() -> None:
        torch.compiler.cudagraph_mark_step_begin()
        cell.step()

    note = first(step)
    ms = milliseconds(step, context.device)
    yield step_row("torch.compile reduce-overhead", precision, cell.batch, ms, note)
