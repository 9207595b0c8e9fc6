"""One worker at a time on an object store, which has no locks: claims, ordered by the store's own clock.

A contender puts an object, waits a little longer than the clock's grain, and lists: of the claims that live, the one that was
put first has the work. Its claim lives as long as a second object, its beat, is put again every few seconds. The times
compared are all the store's own (``LastModified``), so that no host's clock matters. This needs what S3 promises: a
listing shows every put that has ended, and an object put in one piece carries the time of that put.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from chexseg.errors import UserError
from chexseg.store.backend import Entry

CLAIMS = ".claims"
BEAT = ".beat"


@dataclass(frozen=True)
class Timing:
    """Seconds. settle: after a put, before its rank is looked up; above the clock's grain, S3's 1 s. beat: between two
    beats. dead: a claim without a beat for so long is over. look: the longest time between two looks while waiting.
    """

    settle: float = 1.5
    heartbeat: float = 15
    dead: float = 60
    look: float = 15


@dataclass(frozen=True)
class Objects:
    """What claims need of an object store: put an object in one piece, delete one if it's there, list all below `CLAIMS`."""

    put: Callable[[str, bytes], None]
    delete: Callable[[str], None]
    tree: Callable[[], Mapping[str, Entry]]


@dataclass
class Lease:
    """One contender's claim to some work."""

    objects: Objects
    timing: Timing
    work: str
    #: For people who look into the store.
    who: str
    owner: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def name(self) -> str:
        return f"{self.work}.{self.owner}"

    def put(self) -> None:
        # The beat first: there must always be one to tell the time by.
        self.heartbeat()
        self.objects.put(f"{CLAIMS}/{self.name}", self.who.encode())

    def heartbeat(self) -> None:
        self.objects.put(f"{CLAIMS}/{self.name}{BEAT}", b"")

    def delete(self) -> None:
        _delete(self.objects, self.name)

    def rank(self) -> int | None:
        """0 for whose turn it is; None for a claim that others took for dead. Deletes claims that are dead."""
        entries = self.objects.tree()
        own = entries.get(f"{self.name}{BEAT}")
        if own is None or self.name not in entries:
            return None
        living, dead = _split(entries, own.modified_ns, self.timing.dead)
        for name in dead:
            _delete(self.objects, name)
        order = sorted(
            (entries[name].modified_ns, name)
            for name in living
            if _work(name) == self.work and name in entries
        )
        return [name for _, name in order].index(self.name)

    def holds(self) -> bool:
        """Whether the work is still this claim's, which it isn't after a pause of the process or of the network."""
        return self.rank() == 0


@contextmanager
def acquire(objects: Objects, work: str, who: str, timing: Timing) -> Iterator[Lease]:
    """Wait for one's turn at some work, and keep it for the length of the context.

    Waiting takes two requests every `timing.look` seconds: one beat and one listing.
    """
    claim, over = Lease(objects, timing, work, who), threading.Event()
    beating = threading.Thread(target=_keep_beating, args=(claim, over), daemon=True)
    claim.put()
    beating.start()
    try:
        pause = timing.settle
        while not over.wait(pause):
            rank = claim.rank()
            if rank == 0:
                break
            if rank is None:
                claim.put()
            pause = timing.settle if rank is None else min(1.5 * pause, timing.look)
        yield claim
    finally:
        over.set()
        beating.join()
        with suppress(UserError):  # then it dies of itself
            claim.delete()


def active_leases(objects: Objects, timing: Timing) -> set[str]:
    """The work that someone has claimed and is alive."""
    clock = Lease(objects, timing, "clock", "")
    clock.heartbeat()
    try:
        entries = objects.tree()
        now = entries[f"{clock.name}{BEAT}"].modified_ns
        return {_work(name) for name in _split(entries, now, timing.dead)[0] if name in entries}
    finally:
        clock.delete()


def _keep_beating(claim: Lease, over: threading.Event) -> None:
    while not over.wait(claim.timing.heartbeat):
        with suppress(UserError):  # the store may answer again before the claim is dead
            claim.heartbeat()


def _split(entries: Mapping[str, Entry], now_ns: int, dead: float) -> tuple[set[str], set[str]]:
    """Names of the claims that live, and of those that don't; both may be of claims of which only the beat is there."""
    newest: dict[str, int] = {}
    for name, entry in entries.items():
        claim = name.removesuffix(BEAT)
        newest[claim] = max(entry.modified_ns, newest.get(claim, 0))
    alive = {name for name, seen in newest.items() if seen >= now_ns - dead * 1e9}
    return alive, set(newest) - alive


def _work(name: str) -> str:
    return name.rpartition(".")[0]


def _delete(objects: Objects, claim: str) -> None:
    # The claim first: a beat alone claims nothing.
    objects.delete(f"{CLAIMS}/{claim}")
    objects.delete(f"{CLAIMS}/{claim}{BEAT}")
