"""End a run on SIGINT and SIGTERM: what it holds is released, one line is printed."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

import typer

from chexseg.cli.streams import echo

#: The signals that end a run, with the word for each. Slurm and Kubernetes send SIGTERM.
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
#: Seconds until a run ends whose cleaning up hangs. Slurm and Kubernetes kill after 30 by default.
PATIENCE = 20.0
#: Seconds within which signals count as one: `timeout` sends one to its child and to its group.
AT_ONCE = 0.5
SHOW_CURSOR = b"\x1b[?25h"


@contextmanager
def handled() -> Iterator[None]:
    """Turn signals into a clean end of the body: exit code 130 after SIGINT, 143 after SIGTERM.

    The first signal raises `KeyboardInterrupt` in the body. A second one ends the process at once,
    and so does PATIENCE; a local Ray's processes end with it. Signals that this process ignores
    stay ignored, as SIGINT in a shell's background job. Off the main thread nothing is changed.
    """
    before = {number: signal.getsignal(number) for number in WORDS}
    numbers = [number for number in WORDS if before[number] not in (signal.SIG_IGN, None)]
    if threading.current_thread() is not threading.main_thread() or not numbers:
        yield
        return
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) == 1:
            raise KeyboardInterrupt  # Ray would replace a class of our own by this one

    # Python runs handlers between two lines of its code. The thread learns of a signal at once,
    # also while the main thread is in a long call of a library.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    thread = threading.Thread(target=_watch, args=(reader,), daemon=True)
    thread.start()
    descriptor = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        for number in numbers:
            signal.signal(number, interrupt)
        yield
    except BaseException:
        if not received:
            raise
        # Otherwise it is the interrupt, or what its end has caused elsewhere.
    finally:
        for number in numbers:
            signal.signal(number, before[number])
        signal.set_wakeup_fd(descriptor)
        os.close(writer)
        thread.join()
        os.close(reader)
    if received:
        echo(_line(received[0]), err=True)
        raise typer.Exit(128 + received[0])


def _watch(reader: int) -> None:
    """End the process at the second signal, or PATIENCE seconds after the first.

    reader: a pipe with a byte for each signal, closed when the body has ended.
    """
    first, last = 0.0, 0
    while True:
        left = max(first + PATIENCE - time.monotonic(), 0) if last else None
        readable, _, _ = select.select([reader], [], [], left)
        numbers = os.read(reader, 1) if readable else bytes([last])
        if not numbers:
            return
        if numbers[0] not in [int(number) for number in WORDS]:
            continue
        now = time.monotonic()
        if last and now - first > AT_ONCE:
            _end_now(numbers[0])
        if not last:
            first, last = now, numbers[0]


def _end_now(number: int) -> NoReturn:
    """End this process without cleaning up. Its locks end with it."""
    cursor = SHOW_CURSOR if sys.stderr.isatty() else b""  # which progress bars hide
    with suppress(OSError):  # the file of stderr may be full
        os.write(2, cursor + _line(number).encode() + b"\n")
    os._exit(128 + number)


def _line(number: int) -> str:
    return f"chexseg: {WORDS[signal.Signals(number)]}; hint: the same command resumes the run"
