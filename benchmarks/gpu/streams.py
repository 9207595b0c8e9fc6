"""Part: several cells in one process, as graphs on streams of their own or fused into one model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import torch

from gpu import cells
from gpu.graphs import CapturedStep, memory, milliseconds, wait
from gpu.precisions import BFLOAT16, CONTIGUOUS, TF32, Precision
from gpu.rows import Row, Task
from gpu.worker import Context

COUNTS = (1, 2, 4, 8)


def tasks(context: Context) -> list[Task]:
    """Return the part's tasks; one task goes through all counts, and builds on what it has."""
    part_tasks = [
        Task(f"streams, {precision.label}", partial(on_streams, context, precision), 14, 60)
        for precision in (BFLOAT16, TF32)  # the two of the goals
    ]
    for precision in CONTIGUOUS[:2]:
        for count in (2, 4, 8):
            run = partial(fused, context, precision, count)
            part_tasks.append(Task(f"fused, {count} cells, {precision.name}", run, 8))
    return part_tasks


class Group:
    """Captured cells, each on its own stream; `round` is a step of each."""

    def __init__(self, context: Context, precision: Precision, count: int, dropout: bool = True):
        self.context, self.precision, self.dropout = context, precision, dropout
        self.cells: list[cells.Cell] = []
        self.captured: list[CapturedStep] = []
        self.streams: list[torch.cuda.Stream | None] = []
        self.grow(count)

    def grow(self, count: int) -> None:
        """Add cells until there are so many, each as it is before its first step."""
        device = self.context.device
        while len(self.cells) < count:
            seed = len(self.cells)
            cell = cells.Cell(self.context, self.precision, seed, dropout=self.dropout)
            stream = torch.cuda.Stream(device) if device.type == "cuda" else None
            state = cell.state()
            self.captured.append(CapturedStep(cell.step, device, stream=stream))
            cell.restore(state)
            self.cells.append(cell)
            self.streams.append(stream)
        wait(device)

    def round(self) -> None:
        """Replay every cell once, in turn, without waiting for any."""
        for captured, stream in zip(self.captured, self.streams, strict=True):
            with torch.cuda.stream(stream):  # a None changes nothing
                captured.replay()


def on_streams(context: Context, precision: Precision) -> Iterator[Row]:
    """Measure more and more cells that are replayed in turn by one thread."""
    precision.set(benchmark=True)
    group = Group(context, precision, 0)
    for count in COUNTS[:2] if context.dry else COUNTS:
        group.grow(count)
        rounds = 2 if context.dry else max(30, 160 // count)
        for _ in range(1 if context.dry else 10):
            group.round()
        wait(context.device)
        started = time.perf_counter()
        for _ in range(rounds):
            group.round()
        queued = time.perf_counter() - started
        wait(context.device)
        seconds = time.perf_counter() - started
        host = f"host busy {100 * queued / seconds:.0f}%"
        notes = (memory(context.device), host)
        rate = count * rounds / seconds
        yield cells_row("streams of one process", precision, count, rate, *notes)


def fused(context: Context, precision: Precision, count: int) -> Iterator[Row]:
    """Measure so many cells as one model, captured."""
    precision.set(benchmark=True, plans=5)
    model = cells.FusedCells(context, precision, 2 if context.dry else count)
    step = CapturedStep(model.step, context.device)
    ms = milliseconds(step.replay, context.device, count=51)
    rate = 1e3 * model.cells / ms
    yield cells_row("fused by vmap", precision, model.cells, rate, memory(context.device))


def cells_row(what: str, precision: Precision, count: int, rate: float, *notes: str) -> Row:
    """Return the row of several cells; rate: steps a second of all together."""
    texts = (cells.teraflops(cells.BATCH * rate), *notes)
    more = "; ".join(text for text in texts if text)
    setting = f"{precision.label}, {count} cells"
    return Row(f"cells: {what}", setting, 1e3 * count / rate, rate, "steps/s", more)
