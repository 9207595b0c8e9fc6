"""Records of running studies, which protect the results that they need from `store gc`.

A run holds a lock for its whole length (a flock in a directory, a lease on an object store) and
writes the names its plan needs to ``.live/<id>.json``. If the lock is free, the run is dead. Its
progress is in ``.live/<id>.progress``.

Garbage collection has a lock too. A run writes its record and then checks that lock; `store gc`
takes the lock and then reads the records. So at least one of the two sees the other.
"""

from __future__ import annotations

import os
import platform
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from chexseg.errors import UserError, printable
from chexseg.store.backend import encode, unfinished
from chexseg.store.provenance import StageRun
from chexseg.store.store import Store
from chexseg.untrusted import bounded_json

LIVE = ".live"
#: Ends the name of a run's progress.
PROGRESS = ".progress"
GC = "gc/store"
#: What the names of runs in `Backend.in_progress` begin with.
_RUNS = "run-"
#: Largest number of a progress that is shown.
_MOST = 1e15
#: Seconds between two checks whether garbage collection has ended.
POLL = 1.0


@dataclass(frozen=True)
class LiveRun:
    """A running study and the artifacts that it protects, by name.

    searches: also protects all results made from these, and unfinished fits, because the points of
    a search aren't known in advance.
    """

    title: str
    names: frozenset[str]
    searches: bool


@contextmanager
def holding(
    store: Store,
    study: str,
    nodes: Iterable[StageRun],
    searches: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Protect the results of these nodes from `store gc`. Waits while garbage is collected.

    Yields a function that writes the run's progress, as JSON (`progress`).
    """
    run = f"run/{uuid.uuid4().hex}"
    record = {
        "study": study,
        "host": platform.node(),
        "process": os.getpid(),
        "names": sorted(f"{node.stage}/{node.key[:20]}" for node in nodes),
        "searches": searches,
    }
    with store.backend.exclusive(run):
        store.write(_record(run), record)
        try:
            in_progress = store.backend.in_progress()
            if unfinished(GC) in in_progress:
                say(f"waiting for the garbage collection in {store} to end")
            while unfinished(GC) in in_progress:
                time.sleep(POLL)
                in_progress = store.backend.in_progress()
            yield lambda document: store.backend.write(_progress(run), encode(document))
        finally:
            with suppress(UserError):  # no answer; a record without its lock counts as dead
                store.backend.delete(_record(run))
                store.backend.delete(_progress(run))


@contextmanager
def collecting(store: Store) -> Iterator[list[LiveRun]]:
    """Yield the runs that are alive. No other run starts during the context."""
    with store.backend.exclusive(GC):
        yield live_runs(store, forget_dead=True)


def live_runs(store: Store, forget_dead: bool = False) -> list[LiveRun]:
    """Return the runs that are alive. forget_dead: delete the records of the others.

    Raises `UserError` for a run that is alive and has no record that can be read: what it needs is
    unknown.
    """
    records = {
        file: entry for file, entry in store.backend.tree(LIVE).items() if file.endswith(".json")
    }
    in_progress = store.backend.in_progress()
    for work in sorted(in_progress):
        name = f"{work.removeprefix(_RUNS)}.json"
        if work.startswith(_RUNS) and name not in records:
            raise UserError(
                f"{store}/{LIVE}/{name}: found no such file, and its run is alive;"
                " hint: wait until the run has ended"
            )
    runs = []
    for name, content in store.backend.read(
        {f"{LIVE}/{file}": entry for file, entry in records.items()}
    ).items():
        run = f"run/{name.removeprefix(f'{LIVE}/').removesuffix('.json')}"
        if unfinished(run) in in_progress:
            runs.append(_read(f"{store}/{name}", content))
        elif forget_dead and name == _record(run):
            store.backend.delete(name)
            store.backend.delete(_progress(run))
            # Its process is dead, and no other has the same id.
            (store.backend.local / ".partial" / f"{unfinished(run)}.lock").unlink(missing_ok=True)
    return runs


def protected(
    runs: Iterable[LiveRun], manifests: Mapping[str, Mapping[str, Any]], partials: Iterable[str]
) -> dict[str, str]:
    """Return name -> title of the run that protects it, for all protected artifacts.

    manifests: name -> manifest of all artifacts. partials: names of unfinished ones.
    """
    titles: dict[str, str] = {}
    for run in runs:
        names = set(run.names)
        if run.searches:
            keys = {name.rpartition("/")[2] for name in names}
            inputs_of = {
                name: {key[:20] for key in manifest["inputs"].values()}
                for name, manifest in manifests.items()
            }
            while more := {
                name for name, inputs in inputs_of.items() if name not in names and inputs & keys
            }:
                names |= more
                keys |= {name.rpartition("/")[2] for name in more}
            names |= {name for name in partials if name.startswith("fit/")}
        titles |= dict.fromkeys(names, run.title)
    return titles


def progress(store: Store) -> dict[str, dict[str, Any]]:
    """Return key -> progress of each stage that a run on any host is working on.

    Fields as of `run.progress.counts.StageProgress.as_record`. Unreadable files, and stages with
    other fields or values, as of another version, are left out.
    """
    files = {
        f"{LIVE}/{file}": entry
        for file, entry in store.backend.tree(LIVE).items()
        if file.endswith(PROGRESS)
    }
    in_progress = store.backend.in_progress() if files else set()
    stages: dict[str, dict[str, Any]] = {}
    for name, content in store.backend.read(files).items():
        run = f"run/{name.removeprefix(f'{LIVE}/').removesuffix(PROGRESS)}"
        if unfinished(run) in in_progress:
            with suppress(ValueError, KeyError, TypeError, AttributeError):
                running = bounded_json.loads(content)["running"].items()
                stages |= {key: record for key, record in running if _is_progress(record)}
    return stages


def _is_progress(record: Mapping[str, Any]) -> bool:
    """Return whether a stage's progress has all fields, and values that can be shown."""
    optional = [record[name] for name in ("epoch", "rate", "seconds_left")]
    numbers = [record["done"], record["total"], *(n for n in optional if n is not None)]
    return isinstance(record["unit"], str) and all(
        type(number) in (int, float) and 0 <= number <= _MOST for number in numbers
    )


def _record(run: str) -> str:
    return f"{LIVE}/{run.rpartition('/')[2]}.json"


def _progress(run: str) -> str:
    return f"{LIVE}/{run.rpartition('/')[2]}{PROGRESS}"


def _read(location: str, content: bytes) -> LiveRun:
    try:
        record = bounded_json.loads(content)
        title = f"{record['study']} on {record['host']}, process {record['process']}"
        return LiveRun(printable(title), frozenset(record["names"]), record["searches"])
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{location}: cannot be read, and its run is alive; hint: wait until the run has ended"
        ) from None
