"""Run the parts one after another against a clock, print each row as it comes, rewrite the table.

Each part is a process (`gpu.worker`). Where a task fails, hangs or kills its process, its row shows
the first line of the error, and a new process goes on with the tasks behind it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from gpu.rows import Row, line, markdown

#: In order of value. A part is a module of this package.
#: The figure is the seconds after which a part begins no more tasks.
PARTS = {
    "device": 20,
    "inputs": 40,
    "correctness": 70,
    "steps": 55,
    "upstream": 95,
    "cells": 100,
    "inference": 35,
    "host": 40,
    "mps": 45,
    "compiled": 60,
}
#: Seconds kept for ending a process and writing the table.
RESERVE = 5


@dataclass
class Clock:
    """The seconds that are left of those that the run may take."""

    seconds: float
    started: float = field(default_factory=time.time)

    @property
    def deadline(self) -> float:
        """Return the time, as of `time.time`, at which everything must have ended."""
        return self.started + self.seconds - RESERVE

    def left(self) -> float:
        """Return the seconds until the deadline."""
        return self.deadline - time.time()


class Table:
    """The rows so far; each is printed and written when it is added."""

    def __init__(self, path: Path):
        self.path, self.lines = path, []

    def add(self, part: str, row: Row) -> None:
        """Add a row of a part."""
        texts = row.cells(part)
        self.lines.append(texts)
        print(line(texts), flush=True)
        self.path.write_text(markdown(self.lines))


class Part:
    """One part: the processes that it takes, and which of its tasks are behind it."""

    def __init__(self, name: str, table: Table, clock: Clock, work: Path, dry: bool):
        self.name, self.table, self.clock = name, table, clock
        self.dry, self.work = dry, work
        self.events, self.log = work / f"{name}.jsonl", work / f"{name}.log"
        self.events.write_text("")
        self.finished: list[str] = []
        self.current: str | None = None
        self.ends = 0.0
        self.stops = min(clock.deadline, time.time() + PARTS[name] * (9 if dry else 1))
        self.read_bytes = 0

    def run(self) -> None:
        """Run all tasks for which there is time."""
        started = time.time()
        while self.clock.left() > 5:
            count = len(self.finished)
            if self._process() or len(self.finished) == count:
                break
        seconds = time.time() - started
        print(f"-- {self.name}: {seconds:.0f} s, {self.clock.left():.0f} s left", flush=True)

    def _process(self) -> bool:
        """Run one process; return whether it went through all tasks that it was to run."""
        command = [sys.executable, "-m", "gpu.worker", self.name, "--events", str(self.events)]
        command += ["--work", str(self.work)] + ["--dry"] * self.dry
        command += ["--deadline", str(self.stops), "--finished", json.dumps(self.finished)]
        self.ends = time.time() + 90  # imports and the device's start
        with self.log.open("a") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            reason = ""
            while process.poll() is None and not reason:
                time.sleep(0.1)
                self._read_events()
                if time.time() > min(self.ends, self.clock.deadline):
                    reason = "out of time"
            if reason:
                _end(process)
        self._read_events()
        if process.returncode == 0:
            return True
        if self.current is not None:
            self._fail(self.current, reason or f"the process ended with {process.returncode}")
        elif reason or not self.finished:
            text = reason or f"no task began: {_last_line(self.log)}"
            self.table.add(self.name, Row(f"failed: {self.name}", more=text))
        return False

    def _read_events(self) -> None:
        with self.events.open() as file:
            file.seek(self.read_bytes)
            for text in iter(file.readline, ""):
                if not text.endswith("\n"):
                    break
                self.read_bytes += len(text.encode())
                self._take(json.loads(text))

    def _take(self, event: dict) -> None:
        if event["kind"] == "start":
            self.current, self.ends = event["task"], time.time() + event["limit"]
        elif event["kind"] == "row":
            self.table.add(self.name, Row(**event["row"]))
        elif event["kind"] == "failure":
            self._fail(event["task"], event["error"])
        elif event["kind"] == "skip":
            self.finished.append(event["task"])
            self.table.add(self.name, Row(f"skipped: {event['task']}", more=event["error"]))
        else:
            self.finished.append(event["task"])
            self.current, self.ends = None, time.time() + 60

    def _fail(self, task: str, error: str) -> None:
        self.finished.append(task)
        self.current = None
        self.table.add(self.name, Row(f"failed: {task}", more=error))


def _end(process: subprocess.Popen) -> None:
    """End a process and those that it started: they are a session of their own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(8)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
    process.wait()


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"


def main() -> int:
    """Run what the command line asks for; return 1 if anything has failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--out", type=Path, default=Path("gpu-benchmark"), help="directory")
    parser.add_argument("--seconds", type=float, help="for all (default: 470; dry: 1800)")
    parser.add_argument("--parts", default=",".join(PARTS), help="names (default: all)")
    arguments = parser.parse_args()
    clock = Clock(arguments.seconds or (1800 if arguments.dry else 470))
    arguments.out.mkdir(parents=True, exist_ok=True)
    table = Table(arguments.out / "table.md")
    with tempfile.TemporaryDirectory(prefix="gpu-benchmark-") as work:
        for name in arguments.parts.split(","):
            if clock.left() > 10:
                part = Part(name, table, clock, Path(work), arguments.dry)
                part.run()
                with (arguments.out / "log.txt").open("a") as log:
                    log.write(f"== {name}\n{part.log.read_text(errors='replace')}")
            else:
                table.add(name, Row("skipped", more="out of time"))
    seconds = time.time() - clock.started
    failed = sum(what.startswith("failed") for _, what, *_ in table.lines)
    summary = f"{len(table.lines)} rows in {seconds:.0f} s, {failed} failed: {table.path}"
    print(summary, flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
