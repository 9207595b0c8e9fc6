"""What running studies need of a store, so that `store gc` leaves it alone.

A run holds a lock (in a directory a flock, on an object store a claim) for its length, and writes what its plan needs into
``.live/<id>.json``. A record whose lock nobody holds is of a run that died. Collecting garbage has a lock too: a run
writes its record and then looks for that lock, `store gc` takes the lock and then looks for records. So one of them always
sees the other.
"""

from __future__ import annotations

import json
import os
import platform
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from chexseg.errors import UserError
from chexseg.store.backend import unfinished
from chexseg.store.store import StageRun, Store

LIVE = ".live"
GC = "gc/store"
#: Seconds between two looks at whether the garbage is collected.
LOOK = 1.0


@dataclass(frozen=True)
class LiveRun:
    """A run and what it holds. names: of artifacts. searches: it also holds all that was made from these, and unfinished
    fits, because nothing tells which points it will ask for.
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
) -> Iterator[None]:
    """Keep `store gc` from the results of these nodes for the length of the context. Waits while garbage is collected."""
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
                say(f"waiting until garbage is collected in {store}")
            while unfinished(GC) in in_progress:
                time.sleep(LOOK)
                in_progress = store.backend.in_progress()
            yield
        finally:
            with suppress(
                UserError
            ):  # the store doesn't answer; without its lock the record counts for nothing
                store.backend.delete(_record(run))


@contextmanager
def collecting(store: Store) -> Iterator[list[LiveRun]]:
    """The runs that are alive; for the length of the context, no other starts."""
    with store.backend.exclusive(GC):
        yield live_runs(store, forget_dead=True)


def live_runs(store: Store, forget_dead: bool = False) -> list[LiveRun]:
    """The runs that are alive. forget_dead: delete the records of those that aren't."""
    records = store.backend.tree(LIVE)
    in_progress = store.backend.in_progress() if records else set()
    out = []
    for name, content in store.backend.read(
        {f"{LIVE}/{file}": entry for file, entry in records.items()}
    ).items():
        run = f"run/{name.removeprefix(f'{LIVE}/').removesuffix('.json')}"
        if unfinished(run) in in_progress:
            out.append(_read(f"{store}/{name}", content))
        elif forget_dead and name == _record(run):
            store.backend.delete(name)
            # Its process is dead, and no other has the same id.
            (store.backend.local / ".partial" / f"{unfinished(run)}.lock").unlink(missing_ok=True)
    return out


def held(
    runs: Iterable[LiveRun], manifests: Mapping[str, Mapping[str, Any]], partials: Iterable[str]
) -> dict[str, str]:
    """Name -> title of the run that holds it, of all artifacts that some run holds.

    manifests: name -> manifest of all artifacts. partials: names of unfinished ones.
    """
    out: dict[str, str] = {}
    for run in runs:
        names = set(run.names)
        if run.searches:
            keys = {name.rpartition("/")[2] for name in names}
            made_from = {
                name: {key[:20] for key in manifest["inputs"].values()}
                for name, manifest in manifests.items()
                if isinstance(manifest.get("inputs"), dict)
            }
            while more := {
                name for name, inputs in made_from.items() if name not in names and inputs & keys
            }:
                names |= more
                keys |= {name.rpartition("/")[2] for name in more}
            names |= {name for name in partials if name.startswith("fit/")}
        out |= dict.fromkeys(names, run.title)
    return out


def _record(run: str) -> str:
    return f"{LIVE}/{run.rpartition('/')[2]}.json"


def _read(place: str, content: bytes) -> LiveRun:
    try:
        record = json.loads(content)
        title = f"{record['study']} on {record['host']}, process {record['process']}"
        return LiveRun(title, frozenset(record["names"]), record["searches"])
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{place}: can't be read, and its run is alive; hint: wait until the run has ended"
        ) from None
