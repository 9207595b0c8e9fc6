"""Where workers anywhere on the cluster write how far they are, and the driver reads it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ray

from chexseg.progress import Reporter, duration
from chexseg.run.cluster import on_node, this_node
from chexseg.run.metrics import FIGURES, Metrics, Rate

#: What metrics tell and a line for people has no room for.
UNTOLD = ("step s", "data wait s")


@dataclass
class RunCounts:
    """How the cells of a run stand, or the points of a search.

    done: with those that were in the store before. best: (selection mIoU, name) of the best fit. times: of the first
    cell's start and of the last one's end, in seconds of one clock.
    """

    total: int
    done: int = 0
    failed: int = 0
    best: tuple[float, str] | None = None
    running: set[str] = field(default_factory=set)
    ended: int = 0
    times: list[float] = field(default_factory=list)
    unit: str = "cells"
    study: str = ""

    def begin(self, cell: str, now: float) -> None:
        """A cell may begin again after its worker died."""
        self.times = self.times or [now, now]
        self.running.add(cell)

    def end(self, cell: str, whole: bool, miou: float | None, now: float) -> None:
        self.running.discard(cell)
        self.done, self.failed = self.done + whole, self.failed + (not whole)
        self.ended += 1
        self.times = [*self.times[:1], now]
        if miou is not None:
            self.best = max(self.best or (miou, cell), (miou, cell))

    def states(self) -> dict[str, int]:
        """How many are in which state."""
        known = {"done": self.done, "running": len(self.running), "failed": self.failed}
        return known | {"waiting": self.total - sum(known.values())}

    def text(self) -> str:
        """One line for people, nothing where there are no cells; the estimate is by those that have ended so far, so it knows
        how many run at once."""
        if not self.total:
            return ""
        words = [
            f"{self.done} of {self.total} {self.unit} done",
            f"{len(self.running)} running",
            f"{self.failed} failed",
        ]
        if self.best:
            words.append(f"best selection mIoU {self.best[0]:.3f} ({self.best[1]})")
        left = self.total - self.done - self.failed
        if self.ended and left:
            words.append(
                f"about {duration((self.times[1] - self.times[0]) / self.ended * left)} left"
            )
        return ", ".join(words)


@dataclass
class Work:
    """A stage under way. tags: its cell and stage, for metrics."""

    tags: Mapping[str, str]
    done: int
    total: int
    unit: str
    note: Mapping[str, Any]
    rate: Rate

    def figures(self) -> dict[str, float]:
        """What metrics tell of it."""
        found = {
            **self.note,
            "images/s": self.rate.value() if self.unit in ("images", "samples") else None,
        }
        return {name: found[name] for name in FIGURES if isinstance(found.get(name), (int, float))}


# Its calls, several a second, would bury the stages in the dashboard's list of tasks.
@ray.remote(num_cpus=0, enable_task_events=False)
class ProgressActor:
    """The latest progress of everything under way, and what has finished since it was last read."""

    def __init__(self, counts: RunCounts) -> None:
        self.counts, self.metrics = counts, Metrics(counts.study)
        self.running: dict[str, Work] = {}
        self.finished: list[tuple[str, str]] = []

    def update(
        self,
        name: str,
        tags: Mapping[str, str],
        done: int,
        total: int,
        unit: str,
        note: Mapping[str, Any],
    ) -> None:
        rate = (
            self.running[name].rate
            if name in self.running and self.running[name].unit == unit
            else Rate()
        )
        rate.add(time.monotonic(), done)
        self.running[name] = Work(tags, done, total, unit, note, rate)

    def finish(self, name: str, text: str) -> None:
        if work := self.running.pop(name, None):
            self.metrics.end_stage(work.tags, work.figures())
        self.finished.append((name, text))

    def begin_cell(self, name: str) -> None:
        self.counts.begin(name, time.monotonic())

    def end_cell(self, name: str, whole: bool, miou: float | None) -> None:
        self.counts.end(name, whole, miou, time.monotonic())

    def read(
        self,
    ) -> tuple[dict[str, tuple[int, int, str, dict[str, Any]]], list[tuple[str, str]], str]:
        """What a reporter is told: the stages under way, what has finished, the headline. Metrics are brought up to date."""
        if self.counts.total:
            self.metrics.set_cells(self.counts.states())
        self.metrics.set_stages((work.tags, work.figures()) for work in self.running.values())
        running = {
            name: (
                work.done,
                work.total,
                work.unit,
                {key: work.note[key] for key in work.note if key not in UNTOLD},
            )
            for name, work in self.running.items()
        }
        finished, self.finished = self.finished, []
        return running, finished, self.counts.text()


def start_progress_actor(counts: RunCounts) -> Any:
    """A board on the driver's node: another may go at any time, and the run would end with it."""
    return ProgressActor.options(scheduling_strategy=on_node(this_node())).remote(counts)


class ProgressWriter:
    """A stage's `progress` callback: writes to the board, at most twice a second, and its end. The latest figures stay in
    the note.

    name: for people. cell, stage: for metrics.
    """

    def __init__(self, progress_actor: Any, name: str, cell: str, stage: str):
        self.progress_actor, self.name, self.tags = (
            progress_actor,
            name,
            {"cell": cell, "stage": stage},
        )
        self.note: dict[str, Any] = {}
        self.written = 0.0

    def __call__(
        self, done: int, total: int, unit: str, note: dict[str, Any] | None = None
    ) -> None:
        self.note |= {name: value for name, value in (note or {}).items() if value is not None}
        now = time.monotonic()
        if now - self.written >= 0.5 or done == total:
            self.written = now
            self.progress_actor.update.remote(self.name, self.tags, done, total, unit, self.note)


class ProgressDisplay:
    """Shows the board on a reporter from a thread of its own while the driver waits for Ray, and ends it."""

    def __init__(self, progress_actor: Any, reporter: Reporter, every: float = 0.5):
        self.progress_actor, self.reporter, self.every = progress_actor, reporter, every
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> ProgressDisplay:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()
        self.show()
        # With it ends the process of its gauges. Ray would keep both for as long as the driver lives: what its workers were
        # sent has handles of the board.
        ray.kill(self.progress_actor)

    def show(self) -> None:
        running, finished, head = ray.get(self.progress_actor.read.remote())
        self.reporter.headline(head)
        for name, text in finished:
            self.reporter.finish(name, text)
        for name, (done, total, unit, note) in running.items():
            self.reporter.update(name, done, total, unit, note)

    def _watch(self) -> None:
        while not self.over.wait(self.every):
            self.show()
