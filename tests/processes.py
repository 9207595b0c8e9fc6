"""Find the processes of tests among all of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil


def find(
    text: str = "", mark: str = "", among: Iterable[psutil.Process] | None = None
) -> dict[int, str]:
    """Return number -> command line of the other processes whose command line has a text.

    mark: NAME=VALUE that their environment has. among: all processes by default. A worker of Ray
    has its title, such as ray::IDLE, for its command line. Other users' processes and those that
    have ended are left out.
    """
    variable, _, value = mark.partition("=")
    processes = {}
    for process in psutil.process_iter() if among is None else among:
        with suppress(psutil.Error):
            line = " ".join(process.cmdline()).strip()
            if process.pid == os.getpid() or text not in line:
                continue
            if not mark or process.environ().get(variable) == value:
                processes[process.pid] = line
    return processes


def title(line: str) -> str:
    """Return the title of a worker of Ray, or the name of a program, of a command line."""
    return line if line.startswith("ray::") else Path(line.split(" ")[0]).name


def descendants(process: int) -> list[psutil.Process]:
    """Return the processes that a process, or one of these, has started."""
    with suppress(psutil.Error):
        return psutil.Process(process).children(recursive=True)
    return []


def listening(process: psutil.Process) -> list[tuple[str, int]]:
    """Return the (address, TCP port) pairs on which a process listens."""
    with suppress(psutil.Error):
        return [
            (connection.laddr.ip, connection.laddr.port)
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        ]
    return []
