"""Part: several processes share the device, each with a captured cell. `gpu.mps` does it under MPS.

All processes start at once and capture; then the first one, the first two and so on work for a
while, the others wait.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from gpu.cells import Cell
from gpu.graphs import CapturedStep, memory, wait
from gpu.precisions import BFLOAT16, TF32, Precision
from gpu.rows import Row, Task
from gpu.streams import COUNTS, cells_row
from gpu.worker import Context

#: Seconds that one count is measured for.
SECONDS = 2.5
PRECISIONS = (BFLOAT16, TF32)


def tasks(context: Context) -> list[Task]:
    """Return the part's task."""
    return [Task("processes", partial(shared, context, "processes"), 40, 130)]


def shared(context: Context, what: str) -> Iterator[Row]:
    """Measure one, two, four and eight processes side by side, in bfloat16, then in TF32.

    This process leaves the device alone: under MPS it would be one more client.
    """
    counts = COUNTS[:2] if context.dry else COUNTS
    phases = [(precision, count) for precision in PRECISIONS for count in counts]
    spawn = multiprocessing.get_context("spawn")
    barrier, answers = spawn.Barrier(counts[-1] + 1), spawn.Queue()
    arguments = (context, phases, barrier, answers)
    processes = [
        spawn.Process(target=_work, args=(number, *arguments), daemon=True)
        for number in range(counts[-1])  # one a cell
    ]
    for process in processes:
        process.start()
    try:
        barrier.wait(900 if context.dry else 90)
        for precision, count in phases:
            barrier.wait(60)
            replies = [answers.get(timeout=60) for _ in range(count)]
            barrier.wait(60)
            rate = sum(steps / seconds for steps, seconds, _ in replies)
            yield cells_row(what, precision, count, rate, replies[0][2])
    finally:
        for process in processes:
            process.join(3)
            if process.is_alive():
                process.terminate()


def _work(
    number: int,
    context: Context,
    phases: list[tuple[Precision, int]],
    barrier: Any,
    answers: Any,
) -> None:
    """Capture a cell of each precision, then replay in the phases that this process is in."""
    try:
        captured = {precision: _captured(context, precision, number) for precision in PRECISIONS}
        barrier.wait(900)
        for precision, count in phases:
            barrier.wait(900)
            if number < count:
                answers.put(_replay(captured[precision], context))
            barrier.wait(900)
    except BaseException:
        barrier.abort()
        raise


def _captured(context: Context, precision: Precision, number: int) -> CapturedStep:
    """Return a captured cell that has run a few steps."""
    torch.set_num_threads(1)
    precision.set(benchmark=True, plans=5)
    captured = CapturedStep(Cell(context, precision, number).step, context.device)
    for _ in range(1 if context.dry else 10):
        captured.replay()
    wait(context.device)
    return captured


def _replay(captured: CapturedStep, context: Context) -> tuple[int, float, str]:
    """Return (steps, seconds, memory in use) of a while of work."""
    most_seconds = 0.5 if context.dry else SECONDS
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < most_seconds:
        for _ in range(1 if context.dry else 10):
            captured.replay()
            steps += 1
        wait(context.device)
    return steps, time.perf_counter() - started, memory(context.device)
