"""Disturb a running study. Each function returns what it did, or "" if nothing."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from chexseg.store.manifest import MANIFEST
from tests.chaos.arena import Arena
from tests.damage import damages

Disturbance = Callable[[Arena, random.Random, float], str]
#: Damages of files that a user may read. A manifest is only truncated or deleted.
DAMAGES = {
    "truncated": damages.truncated,
    "one bit flipped in": damages.flipped,
    "deleted": damages.deleted,
    "emptied": damages.empty,
}


def kill_worker(arena: Arena, draw: random.Random, seconds: float) -> str:
    return _signal(arena, draw, signal.SIGKILL, "ray::")


def kill_raylet(arena: Arena, draw: random.Random, seconds: float) -> str:
    return _signal(arena, draw, signal.SIGKILL, "raylet")


def kill_driver(arena: Arena, draw: random.Random, seconds: float) -> str:
    return _signal_driver(arena, signal.SIGKILL)


def end_driver(arena: Arena, draw: random.Random, seconds: float) -> str:
    return _signal_driver(arena, draw.choice([signal.SIGTERM, signal.SIGINT]))


def stop_process(arena: Arena, draw: random.Random, seconds: float) -> str:
    """Stop a process for some seconds, as a debugger or a suspended machine does."""
    processes = arena.processes("ray::", "raylet", "gcs_server", "python")
    if not processes:
        return ""
    number = draw.choice(list(processes))
    try:
        os.kill(number, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(number, signal.SIGCONT)
    except ProcessLookupError:
        return ""
    return f"stopped {processes[number]} for {seconds:.0f} s"


def fill_disk(arena: Arena, draw: random.Random, seconds: float) -> str:
    """Fill the disk of the store, and free it after some seconds."""
    if not arena.store.is_mount():
        return ""
    filler = arena.store / ".filler"
    try:
        with filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(2**20))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    time.sleep(seconds)
    filler.unlink()
    return f"filled the disk for {seconds:.0f} s"


def damage_result(arena: Arena, draw: random.Random, seconds: float) -> str:
    files = arena.results()
    if not files:
        return ""
    path, how = draw.choice(files), draw.choice(list(DAMAGES))
    if path.name == MANIFEST and how == "emptied":
        how = "truncated"
    with suppress(FileNotFoundError):  # a run has just dropped the result
        DAMAGES[how](path, path)
        return f"{how} {path.relative_to(arena.store)}"
    return ""


def edit_data(arena: Arena, draw: random.Random, seconds: float) -> str:
    """Put another file of its kind in a file's place, and bring it back after some seconds."""
    path = draw.choice(arena.inputs())
    others = [other for other in arena.inputs() if other.suffix == path.suffix and other != path]
    if not others:
        return ""
    with _brought_back(path):
        shutil.copy(draw.choice(others), path)
        time.sleep(seconds)
    return f"edited {path.relative_to(arena.data)} for {seconds:.0f} s"


@contextmanager
def _brought_back(path: Path) -> Iterator[None]:
    content, status = path.read_bytes(), path.stat()
    try:
        yield
    finally:
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _signal(arena: Arena, draw: random.Random, number: signal.Signals, title: str) -> str:
    processes = arena.processes(title)
    if not processes:
        return ""
    process = draw.choice(list(processes))
    with suppress(ProcessLookupError):
        os.kill(process, number)
        return f"{number.name} to {processes[process]}"
    return ""


def _signal_driver(arena: Arena, number: signal.Signals) -> str:
    if arena.ended():
        return ""
    assert arena.driver
    arena.driver.send_signal(number)
    return f"{number.name} to the driver"


#: Disturbance -> how often it is drawn, relative to the others.
WEIGHTS: dict[Disturbance, int] = {
    kill_worker: 4,
    kill_raylet: 1,
    kill_driver: 2,
    end_driver: 2,
    stop_process: 3,
    fill_disk: 2,
    damage_result: 5,
    edit_data: 2,
}
