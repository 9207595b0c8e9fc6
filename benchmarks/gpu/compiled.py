"""Part: the captured cell whose network torch.compile has fused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from gpu.rows import Row, Task
from gpu.steps import cell_ms, step_row
from gpu.worker import Context


def tasks(context: Context) -> list[Task]:
    """Return the part's task."""
    return [Task("compiled", partial(compiled, context), 50, 90)]


def compiled(context: Context) -> Iterator[Row]:
    """Measure it; a dry run leaves the compiling out."""
    started = time.perf_counter()
    ms = cell_ms(context, "bfloat16", compile=not context.dry)
    more = f"compiled and measured in {time.perf_counter() - started:.0f} s"
    yield step_row(context, "cell, captured, compiled", "bfloat16", ms, more)
