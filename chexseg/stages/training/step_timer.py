"""Running means of a training loop's step time, and of the time spent waiting for data."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Batch = TypeVar("Batch")


class StepTimer:
    """Running means over about the last twenty steps, in seconds.

    Work between two steps, such as scoring, is not counted. The second step replaces the first,
    which includes the warm-up. A GPU runs asynchronously, so only the mean over many steps is
    right there, not a single one.
    """

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}
        self._started = self._waited = 0.0
        self._steps = 0

    def wait(self, take: Callable[[], Batch]) -> Batch:
        """Begin a step with ``take()`` and return its result."""
        self._started = time.perf_counter()
        batch = take()
        self._waited = time.perf_counter() - self._started
        return batch

    def finish_step(self) -> dict[str, float]:
        """End a step and return the means, for `StageContext.progress`."""
        self._steps += 1
        kept = 0.95 if self._steps > 2 else 0.0
        for name, value in (
            ("step s", time.perf_counter() - self._started),
            ("data wait s", self._waited),
        ):
            self.figures[name] = kept * self.figures.get(name, value) + (1 - kept) * value
        return self.figures
