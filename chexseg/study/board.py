"""Where workers anywhere on the cluster write how far they are, and the driver reads it."""

from __future__ import annotations

import threading
import time
from typing import Any

import ray

from chexseg.progress import Reporter


@ray.remote(num_cpus=0)
class Board:
    """The latest progress of everything under way, and what has finished since it was last read."""

    def __init__(self) -> None:
        self.running: dict[str, tuple[int, int, str, dict[str, Any]]] = {}
        self.finished: list[tuple[str, str]] = []

    def update(self, name: str, done: int, total: int, unit: str, note: dict[str, Any]) -> None:
        self.running[name] = (done, total, unit, note)

    def finish(self, name: str, text: str) -> None:
        self.running.pop(name, None)
        self.finished.append((name, text))

    def read(self) -> tuple[dict[str, tuple[int, int, str, dict[str, Any]]], list[tuple[str, str]]]:
        finished, self.finished = self.finished, []
        return self.running, finished


class Pen:
    """A stage's `progress` callback: writes to the board, at most twice a second. The latest figures stay in the note."""

    def __init__(self, board: Any, name: str):
        self.board, self.name = board, name
        self.note: dict[str, Any] = {}
        self.written = 0.0

    def __call__(self, done: int, total: int, unit: str, note: dict[str, Any] | None = None) -> None:
        self.note |= {name: value for name, value in (note or {}).items() if value is not None}
        now = time.monotonic()
        if now - self.written >= 0.5:
            self.written = now
            self.board.update.remote(self.name, done, total, unit, self.note)


class Watch:
    """Shows the board on a reporter from a thread of its own while the driver waits for Ray."""

    def __init__(self, board: Any, reporter: Reporter, every: float = 0.5):
        self.board, self.reporter, self.every = board, reporter, every
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watch:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()
        self.show()

    def show(self) -> None:
        running, finished = ray.get(self.board.read.remote())
        for name, text in finished:
            self.reporter.finish(name, text)
        for name, (done, total, unit, note) in running.items():
            self.reporter.update(name, done, total, unit, note)

    def _watch(self) -> None:
        while not self.over.wait(self.every):
            self.show()
