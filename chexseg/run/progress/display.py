"""Show the progress of a run in the driver, and keep it in the store for `study status`."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import ray

from chexseg.errors import UserError
from chexseg.plan.scheduling.time_left import Running, TimeLeft
from chexseg.progress import Reporter
from chexseg.run.progress.counts import ProgressReport, StageProgress

#: Seconds between two writes of the progress to the store.
PUBLISHED_EVERY = 5.0

#: Writes the progress of a run, as JSON, where other processes find it.
Publish = Callable[[Mapping[str, Any]], None]


class ProgressDisplay:
    """Show the actor's progress on a reporter from a thread while the driver waits for Ray.

    time_left: of the run; without one, the time is estimated from the cells that have ended.
    interval: seconds between two reads. The actor is killed at the end.
    """

    def __init__(
        self,
        progress_actor: Any,
        reporter: Reporter,
        time_left: TimeLeft | None = None,
        publish: Publish | None = None,
        interval: float = 0.5,
    ) -> None:
        self.progress_actor, self.reporter, self.interval = progress_actor, reporter, interval
        self.time_left, self.publish, self.published = time_left, publish, 0.0
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
        seconds = self._seconds_left(report)
        if report.running or report.finished or report.lines:
            self.reporter.doing("")
        self.reporter.headline(report.counts.text(seconds))
        for name, line in report.lines:
            self.reporter.say(f"{name}: {line}")
        self._update(report.ended)  # a fit reports its last figures shortly before its end
        for name, text in report.finished:
            self.reporter.finish(name, text)
        self._update(report.running)
        if self.publish and time.monotonic() - self.published >= PUBLISHED_EVERY:
            self.published = time.monotonic()
            # The store doesn't answer, or its disk is full; the run shows that itself.
            with suppress(OSError, UserError):
                self.publish(_record(report, seconds))

    def _update(self, stages: Mapping[str, StageProgress]) -> None:
        for name, stage in stages.items():
            self.reporter.update(name, stage.done, stage.total, stage.unit, stage.note)

    def _seconds_left(self, report: ProgressReport) -> float | None:
        if self.time_left is None:
            return report.counts.seconds_left()
        return self.time_left.seconds(
            {
                stage.key: Running(stage.done / stage.total, stage.seconds)
                for stage in report.running.values()
                if stage.total
            }
        )

    def _watch(self) -> None:
        while not self.over.wait(self.interval):
            try:
                self.show()
            except ray.exceptions.RayError:
                if not self.over.is_set():
                    raise


def _record(report: ProgressReport, seconds_left: float | None) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {
        "written": now,
        "counts": report.counts.text(seconds_left).splitlines(),
        "running": {stage.key: stage.as_record() for stage in report.running.values()},
    }
