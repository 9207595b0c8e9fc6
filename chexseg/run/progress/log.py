"""Keep what a run says in a log file of its store."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from chexseg.errors import UserError, printable
from chexseg.progress import Reporter
from chexseg.run.progress import trackers as tracking
from chexseg.run.progress.tensorboard import Scalars
from chexseg.store.store import Store

#: Seconds between two headlines in the log.
HEADLINE_EVERY = 60.0
#: Starts of the text with which a failed stage ends (`run.worker`).
FAILURES = ("failed: ", "refused: ")


class Logged(Reporter):
    """Pass everything on to a reporter, lines also to a log, and figures to TensorBoard.

    Lines of the log begin with the time (UTC).
    """

    def __init__(self, reporter: Reporter, append: Callable[[str], None], scalars: Scalars) -> None:
        self.reporter, self.append, self.scalars = reporter, append, scalars
        self.head, self.headed = "", 0.0

    def update(
        self, name: str, done: int, total: int, unit: str, note: Mapping[str, Any] | None = None
    ) -> None:
        self.reporter.short_name = self.short_name
        self.reporter.update(name, done, total, unit, note)
        self.scalars.add(name, done, note or {})

    def finish(self, name: str, text: str) -> None:
        self.scalars.end(name, failed=text.startswith(FAILURES))
        self._log(f"{name}: {text}")
        self.reporter.finish(name, text)

    def say(self, text: str) -> None:
        self._log(text)
        self.reporter.say(text)

    def headline(self, text: str) -> None:
        now = time.monotonic()
        if text != self.head and now - self.headed >= HEADLINE_EVERY:
            new = [line for line in text.splitlines() if line not in self.head.splitlines()]
            self.head, self.headed = text, now
            self._log("\n".join(new))
        self.reporter.headline(text)

    def doing(self, text: str) -> None:
        if text:
            self._log(text)
        self.reporter.doing(text)

    def _log(self, text: str) -> None:
        now = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S}"
        lines = printable(text, "\n\t").splitlines()  # people read the file on a terminal
        self.append("".join(f"{now} {line}\n" for line in lines))


def tensorboard_folder(store: Store, name: str) -> Path:
    """Return the folder of TensorBoard's files of a run, on this host. name: of its log."""
    return store.backend.local / _tensorboard_name(name)


def _tensorboard_name(name: str) -> str:
    return f"{name.removesuffix('.log')}/tensorboard"


@contextmanager
def logged(
    store: Store, name: str, reporter: Reporter, interval: float, trackers: Sequence[str] = ()
) -> Iterator[Logged]:
    """Yield a reporter that also writes to a file of the store.

    name: of the file; TensorBoard's folder is beside it. interval: seconds between two writes; the
    last one is at the end. trackers: names of tools that get the figures too. A store that can't
    be written to doesn't stop a run here: its stages will say so.
    """
    lines: list[str] = []
    over = threading.Event()

    def write() -> None:
        count = len(lines)
        text = "".join(lines[:count])
        if text:
            with suppress(UserError, OSError):
                store.backend.append(name, text.encode())
                del lines[:count]

    def keep_writing() -> None:
        while not over.wait(interval):
            write()

    thread = threading.Thread(target=keep_writing, daemon=True)
    thread.start()
    scalars = Scalars(store.backend.local, _tensorboard_name(name))
    writer = Logged(reporter, lines.append, scalars)
    study, run = Path(name).parent.name, Path(name).stem
    scalars.trackers = tracking.opened(
        trackers, study, run, writer.say, lambda name: writer.settings_of(name)
    )
    try:
        yield writer
    finally:
        scalars.close()
        over.set()
        thread.join()
        write()
