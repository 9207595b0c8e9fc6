"""Report progress: bars on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, TypedDict

from rich.console import Console, RenderableType
from rich.markup import escape
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

from chexseg.errors import printable

#: Seconds between two lines on the same task without a terminal.
LINE_EVERY = 5.0

#: Figures that a stage reports with its progress. The keys are also their labels for people.
ProgressNote = TypedDict(
    "ProgressNote",
    {
        "epoch": int,  # from 1
        "loss": float,
        "accuracy": float,  # of MoCo's pretext task
        "selection mIoU": float | None,  # after the last epoch
        "step s": float,  # running mean
        "data wait s": float,  # running mean
    },
    total=False,
)


class Reporter:
    """Show the progress of long tasks; a name identifies one from its first update to its end."""

    def update(
        self, name: str, done: int, total: int, unit: str, note: Mapping[str, Any] | None = None
    ) -> None: ...

    def finish(self, name: str, text: str) -> None: ...

    def say(self, text: str) -> None: ...

    def headline(self, text: str) -> None: ...

    def close(self) -> None: ...


class Quiet(Reporter):
    """Show nothing."""


class Lines(Reporter):
    """Print plain lines with the time of day to a stream that is not a terminal."""

    def __init__(self, console: Console):
        self.console = console
        self.started: dict[str, float] = {}
        self.printed: dict[str, float] = {}
        self.head = ""

    def update(
        self, name: str, done: int, total: int, unit: str, note: Mapping[str, Any] | None = None
    ) -> None:
        now = time.monotonic()
        started = self.started.setdefault(name, now)
        self.printed.setdefault(name, now)
        if now - self.printed[name] >= LINE_EVERY:
            self.printed[name] = now
            rate = done / (now - started) if now > started else 0
            left = f", {(total - done) / rate:.0f} s left" if rate else ""
            self.say(f"{name}: {done}/{total} {unit}, {rate:.0f}/s{left}{_figures(note)}")

    def finish(self, name: str, text: str) -> None:
        self.started.pop(name, None)
        self.printed.pop(name, None)
        self.say(f"{name}: {text}")

    def say(self, text: str) -> None:
        now = time.strftime("%H:%M:%S")
        for line in text.splitlines():
            line = printable(f"{now} {line}")
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def headline(self, text: str) -> None:
        """Print the headline if it has changed, at most every `LINE_EVERY` seconds."""
        now = time.monotonic()
        if text != self.head and now - self.printed.get("", -LINE_EVERY) >= LINE_EVERY:
            self.head, self.printed[""] = text, now
            self.say(text)


class _Table(Progress):
    """Show progress bars below a headline."""

    head = ""

    def get_renderables(self) -> Iterator[RenderableType]:
        if self.head:
            yield Text(self.head, style="bold")
        yield from super().get_renderables()


class Bars(Reporter):
    """Show a progress bar for each running task; a finished task leaves a line."""

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
            label = escape(printable(name))
            self.tasks[name] = self.progress.add_task(label, total=total, unit=unit, note="")
        self.progress.update(
            self.tasks[name],
            completed=done,
            total=total,
            unit=unit,
            note=_figures(note).lstrip(", "),
        )

    def finish(self, name: str, text: str) -> None:
        if name in self.tasks:
            self.progress.remove_task(self.tasks.pop(name))
        self.say(f"{name}: {text}")

    def say(self, text: str) -> None:
        text = printable(text, "\n\t")
        self.progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def headline(self, text: str) -> None:
        self.progress.head = printable(text)

    def close(self) -> None:
        self.progress.stop()


def reporter(quiet: bool) -> closing[Reporter]:
    """Return the reporter that suits stderr, closed at the end of a `with` statement."""
    console = Console(stderr=True)
    return closing(Quiet() if quiet else Bars(console) if console.is_terminal else Lines(console))


def duration(seconds: float) -> str:
    """Return seconds as text: "42 s", "7 min", "3 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _figures(note: Mapping[str, Any] | None) -> str:
    return "".join(
        f", {name} {value:.3g}"
        for name, value in (note or {}).items()
        if isinstance(value, (int, float))
    )
