"""How long the steps of a training loop take, and how long of it they wait for their samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Batch = TypeVar("Batch")


class Pace:
    """Means over about the last twenty steps, in seconds. What happens between two steps, as scoring, counts for neither.
    The first step, which warms everything up, is forgotten with the second.

    On a GPU, which works while the loop goes on, the mean over many steps is right and a single one isn't.
    """

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}
        self._began = self._waited = 0.0
        self._steps = 0

    def wait(self, take: Callable[[], Batch]) -> Batch:
        """``take()``, with which a step begins."""
        self._began = time.perf_counter()
        batch = take()
        self._waited = time.perf_counter() - self._began
        return batch

    def over(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches of an epoch; each begins a step."""
        iterator, end = iter(batches), object()
        while (batch := self.wait(lambda: next(iterator, end))) is not end:
            yield batch

    def step(self) -> dict[str, float]:
        """Of a step that ends here: what `StageContext.progress` is to be told."""
        self._steps += 1
        kept = 0.95 if self._steps > 2 else 0.0
        for name, value in (
            ("step s", time.perf_counter() - self._began),
            ("data wait s", self._waited),
        ):
            self.figures[name] = kept * self.figures.get(name, value) + (1 - kept) * value
        return self.figures
