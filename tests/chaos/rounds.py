"""Rounds of disturbances: each begins with an empty store and must end with the same tables."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos.arena import Arena, End, small_disk
from tests.chaos.disturbances import WEIGHTS, kill_driver, kill_raylet

#: Runs without disturbance that may be needed until the study is complete.
LAST_RUNS = 8
#: A result's directory in the store, as messages name it.
RESULT = re.compile(r"\b([a-z]+/[0-9a-f]{20})\b")


@dataclass
class Round:
    """A round: what disturbs the study of an arena, and what comes of it.

    write: logs a line. last_runs: runs without disturbance. decisions: lines that asked a person to
    do something, each of which was done. faults: what shouldn't have happened.
    """

    arena: Arena
    seed: int
    write: Callable[[str], None]
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0
    runs: int = 0
    last_runs: int = 0
    done: Counter[str] = field(default_factory=Counter)
    ends: Counter[int] = field(default_factory=Counter)
    decisions: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def disturb(self, number: int, longest: float) -> None:
        """Disturb runs a number of times; start another one whenever none goes on."""
        arena, draw = self.arena, random.Random(self.seed)
        killed: set[int] = set()  # exit codes of the present run that aren't the driver's fault
        while self.done.total() < number:
            if arena.driver is None:
                killed = set()
                arena.start()
            if arena.ended(draw.uniform(1, longest / 2)):
                self._end(end := arena.end(), killed)
                if end.code == 2:
                    self._decide([end])
            disturb = draw.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            if what := disturb(arena, draw, draw.uniform(1, longest)):
                self.done[disturb.__name__] += 1
                self._note(what)
                # What the end of Ray or a SIGKILL makes of the driver isn't in its hands.
                if disturb in (kill_driver, kill_raylet):
                    killed.add(137)
        if arena.driver:
            self._end(arena.wait(), killed)
        arena.settle()

    def complete(self) -> None:
        """Run the study until nothing is missing or damaged, and write its report."""
        complete = False
        while not complete and self.last_runs < LAST_RUNS:
            self.last_runs += 1
            self.arena.start()
            self._end(end := self.arena.wait(), set())
            ends = [end, self.arena.run("store", "verify", "--quiet"), self.arena.report()]
            self.faults += [other.fault for other in ends[1:] if other.fault]
            complete = not self._decide(ends) and not any(one.code for one in ends)

    def compare(self, expected: Mapping[str, bytes]) -> None:
        """Compare the report's tables with those of a quiet run."""
        tables = self.arena.tables()
        names = expected.keys() | tables.keys()
        different = [name for name in sorted(names) if tables.get(name) != expected.get(name)]
        if different:
            self.faults.append(f"other tables than the quiet run's: {', '.join(different)}")

    def _note(self, text: str) -> None:
        self.write(f"{time.monotonic() - self.started:7.1f} s  {text}")

    def _end(self, end: End, killed: Collection[int]) -> None:
        self.runs += 1
        self.ends[end.code] += 1
        last = next((line for line in reversed(end.text.splitlines()) if line.strip()), "")
        self._note(f"the run ended with {end.code}: {last.strip()[:200]}")
        if end.fault and end.code not in killed:
            self.faults.append(end.fault)

    def _decide(self, ends: Sequence[End]) -> bool:
        """Delete the results that lines name as damaged or lost, and all that were made from them.

        Return whether there were any.
        """
        lines = [
            line
            for end in ends
            for line in end.text.splitlines()
            if RESULT.search(line) and re.search("^damaged|delete", line)
        ]
        for line in lines:
            self._note(f"a person is asked: {line[:200]}")
            unwanted = RESULT.findall(line)
            for name in unwanted:
                shutil.rmtree(self.arena.store / name, ignore_errors=True)
                unwanted += self._made_from(name.rpartition("/")[2])
        self.decisions += lines
        return bool(lines)

    def _made_from(self, key: str) -> list[str]:
        """Return the results whose manifests name a key."""
        return [
            manifest.parent.relative_to(self.arena.store).as_posix()
            for manifest in self.arena.store.glob("[!.]*/*/manifest.json")
            if key in manifest.read_text(errors="replace")
        ]


def quiet_run(arena: Arena) -> tuple[dict[str, bytes], int, float]:
    """Return the tables of an undisturbed run, the megabytes of its store, and its seconds."""
    started = time.monotonic()
    arena.start()
    end = arena.wait()
    seconds = time.monotonic() - started
    for quiet in (end, arena.report()):
        if quiet.code or quiet.fault:
            raise AssertionError(f"a quiet command ended with {quiet.code}:\n{quiet.text}")
    tables = arena.tables()
    size = sum(path.stat().st_size for path in arena.store.rglob("*") if path.is_file())
    shutil.rmtree(arena.store)
    return tables, size // 2**20 + 1, seconds


def disturbed_round(
    arena: Arena,
    seed: int,
    number: int,
    longest: float,
    expected: Mapping[str, bytes],
    megabytes: int,
    write: Callable[[str], None],
) -> Round:
    """Disturb a study a number of times, and run it to its end.

    longest: seconds of a disturbance at most; the time between two is at most half. expected:
    tables of a quiet run. megabytes: size of its store; the disk is twice as large. write: logs a
    line.
    """
    this = Round(arena, seed, write)
    try:
        with small_disk(arena.store, 2 * megabytes) as mounted:
            if not mounted:
                write("no file system can be mounted here: the disk is never full")
            this.disturb(number, longest)
            this.complete()
            this.compare(expected)
            arena.settle()
    except (AssertionError, subprocess.TimeoutExpired) as error:
        this.faults.append(str(error))
        arena.close()
    shutil.rmtree(arena.store, ignore_errors=True)
    this.seconds = time.monotonic() - this.started
    return this
