"""Progress bars on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

#: Seconds between two lines about the same task where there's no terminal.
LINE_EVERY = 5.0


class Reporter(Protocol):
    """What long-running work tells. A name stands for one piece of work from its first update to its finish."""

    def update(
        self, name: str, done: int, total: int, unit: str, note: Mapping[str, Any] | None = None
    ) -> None: ...

    def finish(self, name: str, text: str) -> None: ...

    def say(self, text: str) -> None: ...

    def headline(self, text: str) -> None: ...

    def close(self) -> None: ...


class Quiet:
    """Says nothing."""

    def update(
        self, name: str, done: int, total: int, unit: str, note: Mapping[str, Any] | None = None
    ) -> None:
        pass

    def finish(self, name: str, text: str) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def headline(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


class Lines:
    """Plain lines on a stream that is no terminal."""

    def __init__(self, console: Console):
        self.console = console
        self.started: dict[str, float] = {}
        self.said: dict[str, float] = {}
        self.head = ""

    def update(
        self, name: str, done: int, total: int, unit: str, note: Mapping[str, Any] | None = None
    ) -> None:
        now = time.monotonic()
        started = self.started.setdefault(name, now)
        self.said.setdefault(name, now)
        if now - self.said[name] >= LINE_EVERY:
            self.said[name] = now
            rate = done / (now - started) if now > started else 0
            left = f", {(total - done) / rate:.0f} s left" if rate else ""
            self.say(f"{name}: {done}/{total} {unit}, {rate:.0f}/s{left}{_figures(note)}")

    def finish(self, name: str, text: str) -> None:
        self.started.pop(name, None)
        self.said.pop(name, None)
        self.say(f"{name}: {text}")

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def headline(self, text: str) -> None:
        """At most every few seconds, and only what is new."""
        now = time.monotonic()
        if text != self.head and now - self.said.get("", -LINE_EVERY) >= LINE_EVERY:
            self.head, self.said[""] = text, now
            self.say(text)

    def close(self) -> None:
        pass


class _Table(Progress):
    """Progress bars below a headline."""

    head = ""

    def get_renderables(self) -> Iterator[RenderableType]:
        if self.head:
            yield Text(self.head, style="bold")
        yield from super().get_renderables()


class Bars:
    """Progress bars on a terminal, one a piece of work under way; finished work leaves a line."""

    def __init__(self, console: Console):
        self.progress = _Table(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
            console=console,
            transient=True,
        )
        self.tasks: dict[str, TaskID] = {}
        self.progress.start()

    def update(
        self, name: str, done: int, total: int, unit: str, note: Mapping[str, Any] | None = None
    ) -> None:
        if name not in self.tasks:
            self.tasks[name] = self.progress.add_task(name, total=total, unit=unit, note="")
        self.progress.update(
            self.tasks[name],
            completed=done,
            total=total,
            unit=unit,
            note=_figures(note).lstrip(", "),
        )

    def finish(self, name: str, text: str) -> None:
        task = self.tasks.pop(name, None)
        if task is not None:
            self.progress.remove_task(task)
        self.say(f"{name}: {text}")

    def say(self, text: str) -> None:
        self.progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def headline(self, text: str) -> None:
        self.progress.head = text

    def close(self) -> None:
        self.progress.stop()


def reporter(quiet: bool = False) -> Reporter:
    """The right one for where stderr goes."""
    console = Console(stderr=True)
    return Quiet() if quiet else Bars(console) if console.is_terminal else Lines(console)


def duration(seconds: float) -> str:
    """For people: "42 s", "7 min", "3 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _figures(note: Mapping[str, Any] | None) -> str:
    parts = [
        f"{name} {value:.3g}"
        for name, value in (note or {}).items()
        if isinstance(value, (int, float))
    ]
    return ", " + ", ".join(parts) if parts else ""
