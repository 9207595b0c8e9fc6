"""Collect the progress of workers anywhere on the cluster."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from chexseg.run.cluster import remote
from chexseg.run.progress.counts import ProgressReport, RunCounts, StageProgress
from chexseg.run.progress.metrics import Metrics, Rate

#: Figures for metrics only: a terminal line has no room for them.
METRICS_ONLY = ("step s", "data wait s")


# Its calls, several a second, would bury the stages in the dashboard's list of tasks.
@remote(num_cpus=0, enable_task_events=False)
class ProgressActor:
    """Hold the latest progress of all running stages, and what has finished since the last read."""

    def __init__(self, counts: RunCounts) -> None:
        self.counts, self.metrics = counts, Metrics(counts.study)
        self.running: dict[str, StageProgress] = {}
        self.since: dict[str, float] = {}  # first report of each running stage
        self.finished: list[tuple[str, str]] = []
        self.ended: dict[str, StageProgress] = {}
        self.lines: list[tuple[str, str]] = []
        self.begun: set[str] = set()

    def update(
        self,
        name: str,
        key: str,
        tags: Mapping[str, str],
        done: int,
        total: int,
        unit: str,
        note: Mapping[str, Any],
    ) -> None:
        stage, now = self.running.get(name), time.monotonic()
        rate = stage.rate if stage and stage.unit == unit else Rate()
        rate.add(now, done)
        seconds = now - self.since.setdefault(name, now)
        self.running[name] = StageProgress(key, tags, seconds, done, total, unit, note, rate)

    def finish(self, name: str, text: str) -> None:
        """Remove a stage that has ended; `text` says how."""
        self.since.pop(name, None)
        if stage := self.running.pop(name, None):
            self.metrics.end_stage(stage.tags, stage.figures())
            self.ended[name] = stage
        self.finished.append((name, text))

    def start(self, key: str) -> None:
        """Take note that the task of a stage has begun to run."""
        self.begun.add(key)

    def started(self) -> set[str]:
        return self.begun

    def say(self, name: str, line: str) -> None:
        """Show a line about a stage that goes on."""
        self.lines.append((name, line))

    def begin_cell(self, name: str) -> None:
        self.counts.begin(name, time.monotonic())

    def end_cell(self, name: str, succeeded: bool, miou: float | None) -> None:
        self.counts.end(name, succeeded, miou, time.monotonic())

    def end_stage(self) -> None:
        """Count a shared stage that has ended."""
        self.counts.stages_done += 1

    def read(self) -> ProgressReport:
        """Return the progress for a reporter, and update the metrics."""
        if self.counts.total:
            self.metrics.set_cells(self.counts.states())
        self.metrics.set_stages((stage.tags, stage.figures()) for stage in self.running.values())
        running, ended = _for_people(self.running), _for_people(self.ended)
        report = ProgressReport(running, self.finished, self.counts, self.lines, ended)
        self.finished, self.lines, self.ended = [], [], {}
        return report


def _for_people(stages: Mapping[str, StageProgress]) -> dict[str, StageProgress]:
    """Return the stages without the figures for metrics only."""
    return {
        name: replace(stage, note={k: v for k, v in stage.note.items() if k not in METRICS_ONLY})
        for name, stage in stages.items()
    }


class ProgressWriter:
    """Send a stage's progress to the actor, at most twice a second and at its end.

    name: for people. key: of the stage's node. cell, stage: tags of the metrics. The note keeps the
    latest value of every figure.
    """

    def __init__(self, progress_actor: Any, name: str, key: str, cell: str, stage: str) -> None:
        self.progress_actor, self.name, self.key = progress_actor, name, key
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
            self.progress_actor.update.remote(
                self.name, self.key, self.tags, done, total, unit, self.note
            )

    def say(self, line: str) -> None:
        self.progress_actor.say.remote(self.name, line)
