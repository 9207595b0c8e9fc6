"""The parts of a run's progress: counts, and the stages that run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chexseg.errors import counted
from chexseg.progress import duration
from chexseg.run.progress.metrics import FIGURES, Rate


@dataclass
class RunCounts:
    """Count the cells of a run, or the points of a search, by state.

    done: including those stored before the run. best: (selection mIoU, name) of the best fit.
    times: start of the first cell and end of the last one, in seconds of one clock.
    stages, stages_done: the shared stages that the store lacked at the start, and those that have
    ended since.
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
    stages: int = 0
    stages_done: int = 0

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

    def seconds_left(self) -> float | None:
        """Return the expected seconds to the end, from the cells that have ended.

        It reflects how many run at once. None before the first one, or if none is left.
        """
        left = self.total - self.done - self.failed
        if not (self.ended and left):
            return None
        return (self.times[1] - self.times[0]) / self.ended * left

    def text(self, seconds_left: float | None = None) -> str:
        """Return the counts as a line and the best cell as another, as far as there are any."""
        words = []
        if self.stages:
            words.append(f"{self.stages_done} of {counted(self.stages, 'shared stage')}")
        if self.total:
            words.append(f"{self.done} of {self.total} {self.unit} done")
        if self.running:
            words.append(f"{len(self.running)} running")
        if self.failed:
            words.append(f"{self.failed} failed")
        if words and seconds_left:
            words.append(f"about {duration(seconds_left)} left")
        lines = [", ".join(words)] if words else []
        if self.best:
            lines.append(f"best selection mIoU {self.best[0]:.3f} ({self.best[1]})")
        return "\n".join(lines)


@dataclass(frozen=True)
class StageProgress:
    """Hold the latest progress of a running stage.

    key: of its node. tags: `cell` and `stage`, for metrics. seconds: since its first report.
    note: figures, as `chexseg.progress.ProgressNote`.
    """

    key: str
    tags: Mapping[str, str]
    seconds: float
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

    def as_record(self) -> dict[str, Any]:
        """Return the progress as JSON. rate: units a second. seconds_left: to the stage's end."""
        rate = self.rate.value()
        return {
            "done": self.done,
            "total": self.total,
            "unit": self.unit,
            "epoch": self.note.get("epoch"),
            "rate": rate and round(rate, 3),
            "seconds_left": round((self.total - self.done) / rate) if rate else None,
        }


@dataclass(frozen=True)
class ProgressReport:
    """The progress of a run. running: name -> stage.

    finished: (name, text) of the stages that have ended since the last report. lines: (name, line)
    about stages that go on. ended: name -> last progress of the stages that have ended.
    """

    running: dict[str, StageProgress]
    finished: list[tuple[str, str]]
    counts: RunCounts
    lines: list[tuple[str, str]] = field(default_factory=list)
    ended: dict[str, StageProgress] = field(default_factory=dict)
