"""Collect the progress of workers anywhere on the cluster, and show it in the driver."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import ray

from chexseg.progress import Reporter, duration
from chexseg.run.cluster import remote
from chexseg.run.metrics import FIGURES, Metrics, Rate

#: Figures for metrics only: a terminal line has no room for them.
METRICS_ONLY = ("step s", "data wait s")


@dataclass
class RunCounts:
    """Count the cells of a run, or the points of a search, by state.

    done: including those stored before the run. best: (selection mIoU, name) of the best fit.
    times: start of the first cell and end of the last one, in seconds of one clock.
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
        """Count a cell as running; it may start again after its worker died."""
        self.times = self.times or [now, now]
        self.running.add(cell)

    def end(self, cell: str, succeeded: bool, miou: float | None, now: float) -> None:
        self.running.discard(cell)
        self.done, self.failed = self.done + succeeded, self.failed + (not succeeded)
        self.ended += 1
        self.times = [*self.times[:1], now]
        if miou is not None:
            self.best = max(self.best or (miou, cell), (miou, cell))

    def states(self) -> dict[str, int]:
        """Return the number of cells in each state."""
        counts = {"done": self.done, "running": len(self.running), "failed": self.failed}
        return counts | {"waiting": self.total - sum(counts.values())}

    def text(self) -> str:
        """Return the counts as one line, empty without cells.

        The remaining time is estimated from the cells that have ended, so it reflects how many
        run at once.
        """
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
            seconds = (self.times[1] - self.times[0]) / self.ended * left
            words.append(f"about {duration(seconds)} left")
        return ", ".join(words)


@dataclass(frozen=True)
class StageProgress:
    """Hold the latest progress of a running stage.

    tags: `cell` and `stage`, for metrics. note: figures, as `chexseg.progress.ProgressNote`.
    """

    tags: Mapping[str, str]
    done: int
    total: int
    unit: str
    note: Mapping[str, Any]
    rate: Rate

    def figures(self) -> dict[str, float]:
        """Return the figures for metrics."""
        rate = self.rate.value() if self.unit in ("images", "samples") else None
        figures = {**self.note, "images/s": rate}
        return {
            name: figures[name] for name in FIGURES if isinstance(figures.get(name), (int, float))
        }


@dataclass(frozen=True)
class ProgressReport:
    """The progress of a run. running: name -> stage. finished: (name, text) since the last one."""

    running: dict[str, StageProgress]
    finished: list[tuple[str, str]]
    headline: str


# Its calls, several a second, would bury the stages in the dashboard's list of tasks.
@remote(num_cpus=0, enable_task_events=False)
class ProgressActor:
    """Hold the latest progress of all running stages, and what has finished since the last read."""

    def __init__(self, counts: RunCounts) -> None:
        self.counts, self.metrics = counts, Metrics(counts.study)
        self.running: dict[str, StageProgress] = {}
        self.finished: list[tuple[str, str]] = []
        self.begun: set[str] = set()

    def update(
        self,
        name: str,
        tags: Mapping[str, str],
        done: int,
        total: int,
        unit: str,
        note: Mapping[str, Any],
    ) -> None:
        stage = self.running.get(name)
        rate = stage.rate if stage and stage.unit == unit else Rate()
        rate.add(time.monotonic(), done)
        self.running[name] = StageProgress(tags, done, total, unit, note, rate)

    def finish(self, name: str, text: str) -> None:
        """Remove a stage that has ended; `text` says how."""
        if stage := self.running.pop(name, None):
            self.metrics.end_stage(stage.tags, stage.figures())
        self.finished.append((name, text))

    def start(self, key: str) -> None:
        """Take note that the task of a stage has begun to run."""
        self.begun.add(key)

    def started(self) -> set[str]:
        return self.begun

    def say(self, name: str, line: str) -> None:
        """Show a line about a stage that goes on."""
        self.finished.append((name, line))

    def begin_cell(self, name: str) -> None:
        self.counts.begin(name, time.monotonic())

    def end_cell(self, name: str, succeeded: bool, miou: float | None) -> None:
        self.counts.end(name, succeeded, miou, time.monotonic())

    def read(self) -> ProgressReport:
        """Return the progress for a reporter, and update the metrics."""
        if self.counts.total:
            self.metrics.set_cells(self.counts.states())
        self.metrics.set_stages((stage.tags, stage.figures()) for stage in self.running.values())
        running = {
            name: replace(
                stage, note={k: v for k, v in stage.note.items() if k not in METRICS_ONLY}
            )
            for name, stage in self.running.items()
        }
        finished, self.finished = self.finished, []
        return ProgressReport(running, finished, self.counts.text())


class ProgressWriter:
    """Send a stage's progress to the actor, at most twice a second and at its end.

    name: for people. cell, stage: tags of the metrics. The note keeps the latest value of every
    figure.
    """

    def __init__(self, progress_actor: Any, name: str, cell: str, stage: str) -> None:
        self.progress_actor, self.name = progress_actor, name
        self.tags = {"cell": cell, "stage": stage}
        self.note: dict[str, Any] = {}
        self.written = 0.0

    def __call__(
        self, done: int, total: int, unit: str, note: Mapping[str, Any] | None = None
    ) -> None:
        self.note |= {name: value for name, value in (note or {}).items() if value is not None}
        now = time.monotonic()
        if now - self.written >= 0.5 or done == total:
            self.written = now
            self.progress_actor.update.remote(self.name, self.tags, done, total, unit, self.note)

    def say(self, line: str) -> None:
        self.progress_actor.say.remote(self.name, line)


class ProgressDisplay:
    """Show the actor's progress on a reporter from a thread while the driver waits for Ray.

    interval: seconds between two reads. The actor is killed at the end.
    """

    def __init__(self, progress_actor: Any, reporter: Reporter, interval: float = 0.5) -> None:
        self.progress_actor, self.reporter, self.interval = progress_actor, reporter, interval
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> ProgressDisplay:
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.over.set()
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        self.thread.join(2 if interrupted else None)
        if interrupted:  # Ray ends next; it may have had the signal too, and would not answer
            return
        self.show()
        # The process of its gauges ends with it. Ray would keep both for as long as the driver
        # lives, because the jobs sent to workers hold handles of the actor.
        ray.kill(self.progress_actor)
        # Ray ends the driver with exit code 1 if a notification comes while it disconnects.
        with suppress(ray.exceptions.RayError):
            ray.get(self.progress_actor.read.remote(), timeout=10)

    def show(self) -> None:
        report: ProgressReport = ray.get(self.progress_actor.read.remote())
        self.reporter.headline(report.headline)
        for name, text in report.finished:
            self.reporter.finish(name, text)
        for name, stage in report.running.items():
            self.reporter.update(name, stage.done, stage.total, stage.unit, stage.note)

    def _watch(self) -> None:
        while not self.over.wait(self.interval):
            try:
                self.show()
            except ray.exceptions.RayError:
                if not self.over.is_set():
                    raise
