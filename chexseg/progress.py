"""Report progress: bars on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any, TypedDict

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from chexseg.errors import printable

#: Seconds between two lines on the same task without a terminal. If more than `TASKS` run, their
#: lines come less often.
LINE_EVERY = 4.0
TASKS = 4
#: Seconds without a line after which one says what the command waits for.
SILENCE = 4.5
#: Columns of a terminal from which a task's figures, such as its loss, are shown.
WIDE = 100

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

    #: Returns the name that a bar has room for.
    short_name: Callable[[str], str] = staticmethod(lambda name: name)
    #: Returns dotted setting -> value of the training with a name.
    settings_of: Callable[[str], Mapping[str, Any]] = staticmethod(lambda name: {})

    def update(
        self, name: str, done: int, total: int, unit: str, note: Mapping[str, Any] | None = None
    ) -> None: ...

    def finish(self, name: str, text: str) -> None: ...

    def say(self, text: str) -> None: ...

    def headline(self, text: str) -> None: ...

    def doing(self, text: str) -> None:
        """Say what goes on while no task reports, as "starting Ray"; an empty text ends it."""

    def close(self) -> None: ...


class Quiet(Reporter):
    """Show nothing."""


#: For functions whose caller shows nothing.
QUIET = Quiet()


class Lines(Reporter):
    """Print plain lines with the time of day to a stream that is not a terminal.

    A thread prints one after `SILENCE`, so that nobody takes a long wait for the end.
    """

    def __init__(self, console: Console):
        self.console = console
        self.started: dict[str, float] = {}
        self.printed: dict[str, float] = {}
        self.head = ""
        self.activity, self.since = "", 0.0
        self.last = time.monotonic()
        self.lock = threading.RLock()
        self.over = threading.Event()
        self.thread: threading.Thread | None = None

    def update(
        self, name: str, done: int, total: int, unit: str, note: Mapping[str, Any] | None = None
    ) -> None:
        now = time.monotonic()
        with self.lock:
            started = self.started.setdefault(name, now)
            self.printed.setdefault(name, now)
            if now - self.printed[name] < LINE_EVERY * max(1, len(self.started) / TASKS):
                return
            self.printed[name] = now
        rate = done / (now - started) if now > started else 0
        left = f", {duration((total - done) / rate)} left" if rate else ""
        self.say(f"{name}: {done:,}/{total:,} {unit}, {rate_text(rate)}{left}{_figures(note)}")

    def finish(self, name: str, text: str) -> None:
        with self.lock:
            self.started.pop(name, None)
            self.printed.pop(name, None)
        self.say(f"{name}: {text}")

    def say(self, text: str) -> None:
        now = time.strftime("%H:%M:%S")
        with self.lock:
            self.last = time.monotonic()
            for line in text.splitlines():
                line = printable(f"{now} {line}")
                self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def headline(self, text: str) -> None:
        """Print the lines of the headline that have changed, at most every `LINE_EVERY` seconds."""
        now = time.monotonic()
        if text != self.head and now - self.printed.get("", -LINE_EVERY) >= LINE_EVERY:
            new = [line for line in text.splitlines() if line not in self.head.splitlines()]
            self.head, self.printed[""] = text, now
            self.say("\n".join(new))

    def doing(self, text: str) -> None:
        with self.lock:
            self.activity, self.since = text, time.monotonic()
        if self.thread is None:
            self.thread = threading.Thread(target=self._break_silence, daemon=True)
            self.thread.start()

    def close(self) -> None:
        self.over.set()
        if self.thread:
            self.thread.join()

    def _break_silence(self) -> None:
        while not self.over.wait(0.25):
            with self.lock:
                activity = self.activity or self.head
                if activity and time.monotonic() - self.last >= SILENCE:
                    passed = duration(time.monotonic() - self.since)
                    self.say(f"{activity}: {passed}" if self.activity else activity.splitlines()[0])


class _Table(Progress):
    """Show progress bars below a headline, and what goes on."""

    head = ""
    activity, since = "", 0.0

    def get_renderables(self) -> Iterator[RenderableType]:
        if self.head:
            yield Text(self.head, style="bold")
        if self.activity:
            yield Text(f"{self.activity}: {duration(time.monotonic() - self.since)}")
        yield from super().get_renderables()


class _Figures(ProgressColumn):
    """Show a task's figures, such as its loss, if the terminal is wide."""

    def __init__(self, console: Console) -> None:
        super().__init__(table_column=Column(no_wrap=True, overflow="ellipsis"))
        self.console = console

    def render(self, task: Task) -> Text:
        return Text(task.fields["note"] if self.console.width >= WIDE else "", style="dim")


class Bars(Reporter):
    """Show a progress bar for each running task; a finished task leaves a line.

    A row fits in 80 columns: of a long name the end is left out.
    """

    def __init__(self, console: Console):
        def whole(text: str) -> TextColumn:
            return TextColumn(text, justify="right", table_column=Column(no_wrap=True))

        name = Column(no_wrap=True, overflow="ellipsis", ratio=3)
        self.progress = _Table(
            TextColumn("{task.description}", table_column=name, markup=False),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=8)),
            whole("{task.completed:,}/{task.total:,} {task.fields[unit]}"),
            whole("{task.fields[rate]}"),
            whole("{task.fields[left]}"),
            _Figures(console),
            console=console,
            transient=True,
            expand=True,
        )
        self.tasks: dict[str, TaskID] = {}
        self.progress.start()

    def update(
        self, name: str, done: int, total: int, unit: str, note: Mapping[str, Any] | None = None
    ) -> None:
        if name not in self.tasks:
            self.tasks[name] = self.progress.add_task(
                printable(self.short_name(name)), total=total, unit=unit, note="", rate="", left=""
            )
        number = self.tasks[name]
        self.progress.update(number, completed=done, total=total, unit=unit)
        task = next(task for task in self.progress.tasks if task.id == number)
        speed, left = task.speed, task.time_remaining
        self.progress.update(
            number,
            note=_figures(note).lstrip(", "),
            rate="" if speed is None else rate_text(speed),
            left="" if left is None else duration(left),
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

    def doing(self, text: str) -> None:
        self.progress.activity, self.progress.since = text, time.monotonic()

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


def rate_text(per_second: float) -> str:
    """Return a rate as text: "1,234/s", "0.4/s"."""
    return f"{per_second:,.0f}/s" if per_second >= 10 else f"{per_second:.2g}/s"


def _figures(note: Mapping[str, Any] | None) -> str:
    return "".join(
        f", {name} {value:.3g}"
        for name, value in (note or {}).items()
        if isinstance(value, (int, float))
    )
