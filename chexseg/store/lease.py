"""Leases: one worker at a time on an object store, which has no locks, ordered by its clock.

A contender puts an object, waits a little longer than the resolution of the clock, and lists: among
the leases that are alive, the one put first holds the work. A lease is alive while a second object,
its heartbeat, is put again every few seconds. All times compared are the store's
(``LastModified``), so no host's clock matters.

This needs two promises of S3: a listing shows every put that has ended, and an object put in one
piece carries the time of that put.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from chexseg.errors import UserError
from chexseg.store.backend import Backend, Entry

#: Folder of the leases in a store, and what a heartbeat's name adds to its lease's.
LEASES = ".claims"
HEARTBEAT = ".beat"


@dataclass(frozen=True)
class Timing:
    """Durations in seconds.

    settle: between a put and its first listing; above the clock's resolution, S3's 1 s.
    heartbeat: between two heartbeats. expiry: a lease without a heartbeat for this long is dead.
    poll: longest time between two listings while waiting.
    """

    settle: float = 1.5
    heartbeat: float = 15
    expiry: float = 60
    poll: float = 15


@dataclass
class Lease:
    """One contender's lease on some work. holder: for people who look into the store."""

    backend: Backend
    timing: Timing
    work: str
    holder: str
    owner: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def name(self) -> str:
        return f"{self.work}.{self.owner}"

    def put(self) -> None:
        # The heartbeat first: `rank` reads the current time from it.
        self.heartbeat()
        self.backend.write(f"{LEASES}/{self.name}", self.holder.encode())

    def heartbeat(self) -> None:
        self.backend.write(f"{LEASES}/{self.name}{HEARTBEAT}", b"")

    def rank(self) -> int | None:
        """Return the number of leases before this one, or None if others took it for dead.

        Deletes leases that are dead. A long pause of the process can cost it the work.
        """
        entries = self.backend.tree(LEASES)
        heartbeat = entries.get(f"{self.name}{HEARTBEAT}")
        if heartbeat is None or self.name not in entries:
            return None
        alive, dead = _split(entries, heartbeat.modified_ns, self.timing.expiry)
        for name in dead:
            _delete(self.backend, name)
        order = sorted(
            (entries[name].modified_ns, name)
            for name in alive
            if _work(name) == self.work and name in entries
        )
        return [name for _, name in order].index(self.name)


@contextmanager
def acquire(backend: Backend, work: str, holder: str, timing: Timing) -> Iterator[Lease]:
    """Wait until this process holds the work, and keep the lease for the length of the context.

    Waiting takes two requests every `timing.poll` seconds: a heartbeat and a listing.
    """
    lease, over = Lease(backend, timing, work, holder), threading.Event()
    heartbeats = threading.Thread(target=_keep_alive, args=(lease, over), daemon=True)
    lease.put()
    heartbeats.start()
    try:
        pause = timing.settle
        while not over.wait(pause):
            rank = lease.rank()
            if rank == 0:
                break
            if rank is None:
                lease.put()
            pause = timing.settle if rank is None else min(1.5 * pause, timing.poll)
        yield lease
    finally:
        over.set()
        heartbeats.join()
        with suppress(UserError):  # it expires
            _delete(backend, lease.name)


def active_leases(backend: Backend, timing: Timing) -> set[str]:
    """Return the work on which a lease is alive."""
    clock = Lease(backend, timing, "clock", "")
    clock.heartbeat()
    try:
        entries = backend.tree(LEASES)
        now = entries[f"{clock.name}{HEARTBEAT}"].modified_ns
        alive, _ = _split(entries, now, timing.expiry)
        return {_work(name) for name in alive if name in entries}
    finally:
        _delete(backend, clock.name)


def _keep_alive(lease: Lease, over: threading.Event) -> None:
    while not over.wait(lease.timing.heartbeat):
        with suppress(UserError):  # the store may answer again before the lease expires
            lease.heartbeat()


def _split(entries: Mapping[str, Entry], now_ns: int, expiry: float) -> tuple[set[str], set[str]]:
    """Return the names of the leases that are alive and of those that are dead.

    Both include leases of which only the heartbeat exists.
    """
    newest: dict[str, int] = {}
    for name, entry in entries.items():
        lease = name.removesuffix(HEARTBEAT)
        newest[lease] = max(entry.modified_ns, newest.get(lease, 0))
    alive = {name for name, seen in newest.items() if seen >= now_ns - expiry * 1e9}
    return alive, set(newest) - alive


def _work(name: str) -> str:
    return name.rpartition(".")[0]


def _delete(backend: Backend, lease: str) -> None:
    # The lease first: a heartbeat alone holds nothing.
    backend.delete(f"{LEASES}/{lease}")
    backend.delete(f"{LEASES}/{lease}{HEARTBEAT}")
