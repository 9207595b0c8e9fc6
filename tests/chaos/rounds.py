"""Rounds of disturbances: each begins with an empty store and must end with the same tables."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.chaos.arena import Arena, End, small_disk
from tests.chaos.disturbances import WEIGHTS, kill_driver, kill_raylet

#: Runs without disturbance that may be needed until the study is complete.
LAST_RUNS = 8
#: A result's directory in the store, as messages name it.
RESULT = re.compile(r"\b([a-z]+/[0-9a-f]{20})\b")


@dataclass
class Round:
    """The disturbances of a round and their outcome.

    last_runs: runs without disturbance. decisions: lines that asked a person to do something, each
    of which was done. faults: what shouldn't have happened.
    """

    seed: int
    seconds: float = 0
    runs: int = 0
    last_runs: int = 0
    done: Counter[str] = field(default_factory=Counter)
    ends: Counter[int] = field(default_factory=Counter)
    decisions: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


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
    expected: dict[str, bytes],
    megabytes: int,
    write: Callable[[str], None],
) -> Round:
    """Disturb a study a number of times, and run it to its end.

    longest: seconds of a disturbance at most; the time between two is at most half. expected:
    tables of a quiet run. megabytes: size of its store; the disk is twice as large. write: logs a
    line.
    """
    draw, result, started = random.Random(seed), Round(seed), time.monotonic()

    def note(text: str) -> None:
        write(f"{time.monotonic() - started:7.1f} s  {text}")

    def note_end(end: End, killed: set[int]) -> None:
        result.runs += 1
        result.ends[end.code] += 1
        last = next((line for line in reversed(end.text.splitlines()) if line.strip()), "")
        note(f"the run ended with {end.code}: {last.strip()[:200]}")
        if end.fault and end.code not in killed:
            result.faults.append(f"{end.fault}:\n{end.text[-3000:]}")

    try:
        with small_disk(arena.store, 2 * megabytes) as mounted:
            if not mounted:
                note("no file system can be mounted here: the disk is never full")
            killed: set[int] = set()
            while result.done.total() < number:
                if arena.driver is None:
                    killed = set()
                    arena.start()
                if arena.ended(draw.uniform(1, longest / 2)):
                    note_end(end := arena.end(), killed)
                    if end.code == 2:
                        _decide(arena, [end], result, note)
                disturb = draw.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
                if what := disturb(arena, draw, draw.uniform(1, longest)):
                    result.done[disturb.__name__] += 1
                    note(what)
                    # What the end of Ray or a SIGKILL makes of the driver isn't in its hands.
                    if disturb in (kill_driver, kill_raylet):
                        killed.add(137)
            if arena.driver:
                note_end(arena.wait(), killed)
            arena.settle()

            while result.last_runs < LAST_RUNS:
                result.last_runs += 1
                arena.start()
                end = arena.wait()
                note_end(end, set())
                ends = [end, arena.run("store", "verify", "--quiet"), arena.report()]
                result.faults += [
                    f"{other.fault}:\n{other.text[-3000:]}" for other in ends[1:] if other.fault
                ]
                if not _decide(arena, ends, result, note) and not any(one.code for one in ends):
                    break
            tables = arena.tables()
            different = [
                name for name in expected | tables if tables.get(name) != expected.get(name)
            ]
            if different:
                result.faults.append(f"other tables than the quiet run's: {', '.join(different)}")
            arena.settle()
    except (AssertionError, subprocess.TimeoutExpired) as error:
        result.faults.append(str(error))
        arena.close()
    shutil.rmtree(arena.store, ignore_errors=True)
    result.seconds = time.monotonic() - started
    return result


def _decide(arena: Arena, ends: Sequence[End], result: Round, note: Callable[[str], None]) -> bool:
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
        note(f"a person is asked: {line[:200]}")
        unwanted = RESULT.findall(line)
        for name in unwanted:
            shutil.rmtree(arena.store / name, ignore_errors=True)
            for manifest in arena.store.glob("[!.]*/*/manifest.json"):
                if name.rpartition("/")[2] in manifest.read_text(errors="replace"):
                    unwanted.append(manifest.parent.relative_to(arena.store).as_posix())
    result.decisions += lines
    return bool(lines)
