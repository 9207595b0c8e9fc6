"""Map a function over items in several processes, with results in order.

Also keeps new Python processes from importing modules or loading libraries of the current
directory, and signals from interrupting their start.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from chexseg.errors import ChexsegError
from chexseg.library_search import load_careless_libraries

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Items that a process gets at a time, and such groups that wait for each process.
CHUNK, WAITING = 8, 3


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ordered(
    function: Callable[[Item], Result], items: Iterable[Item], processes: int
) -> Generator[Result, None, None]:
    """Yield function(item) of each item, in order; with one process, in this one.

    The function and all items are pickled. Few results are in memory at a time, however many items
    there are. Raises `ChexsegError` if a process ends before its work.
    """
    if processes <= 1:
        yield from map(function, items)
        return
    # Not forked: this process may have threads. The first pool starts the resource tracker too.
    with safe_path():
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(processes, context, initializer=load_careless_libraries)
    source = iter(items)
    pending: deque[Future[list[Result]]] = deque()
    try:
        while True:
            while len(pending) < WAITING * processes and (chunk := list(islice(source, CHUNK))):
                # A process is started when there is work for it.
                with safe_path(), signals_deferred(), _interrupts_blocked():
                    pending.append(pool.submit(_each, function, chunk))
            if not pending:
                return
            yield from pending.popleft().result()
    except BrokenProcessPool:
        raise ChexsegError(
            "a process ended before its work, as one does that is killed for want of memory"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _each(function: Callable[[Item], Result], chunk: list[Item]) -> list[Result]:
    return [function(item) for item in chunk]


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait until the body has ended, and put their handlers back.

    A start of processes that is interrupted leaves some that fail or live on. Off the main thread
    nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    arrived: list[signal.Signals] = []
    try:
        for number, handler in before.items():
            if handler not in (signal.SIG_IGN, None):
                signal.signal(number, lambda late, frame: arrived.append(signal.Signals(late)))
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # else Python has not installed it, and can't
                signal.signal(number, handler)
        for late in arrived[:1]:
            if callable(kept := before[late]):
                kept(late, None)
            else:
                signal.raise_signal(late)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Start processes that don't get a terminal's Ctrl-C, which ends them through their parent."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def safe_path() -> Iterator[None]:
    """Keep processes that are started meanwhile from importing from their current directory.

    Python imports from there first if it is started with `-c`, as by multiprocessing.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before
