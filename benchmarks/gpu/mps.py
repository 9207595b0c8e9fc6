"""Part: the processes of `gpu.cells` under NVIDIA MPS, by a daemon of this part's own.

The daemon has its own directory for its pipes, so that no other process joins it, changes no
setting of the device, and is told to quit at the end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from gpu.cells import shared
from gpu.rows import Row, Task
from gpu.worker import Context

CONTROL = "nvidia-cuda-mps-control"


def tasks(context: Context) -> list[Task]:
    """Return the part's tasks."""
    return [Task("MPS", partial(under_mps, context), 40, 90)]


def under_mps(context: Context) -> Iterator[Row]:
    """Measure the processes while the daemon runs. Raises RuntimeError where it can't."""
    if context.dry:
        yield Row("cells under MPS", more="not in a dry run")
        return
    with daemon():
        yield from shared(context, "cells under MPS", ((2, True), (3, True)))


@contextmanager
def daemon() -> Iterator[None]:
    """Run the daemon in the foreground as a child, and have it quit at the end."""
    if not shutil.which(CONTROL):
        raise RuntimeError(f"{CONTROL} is not installed")
    with tempfile.TemporaryDirectory(prefix="mps-") as directory:
        folders = {"CUDA_MPS_PIPE_DIRECTORY": "pipe", "CUDA_MPS_LOG_DIRECTORY": "log"}
        for variable, name in folders.items():
            Path(directory, name).mkdir()
            os.environ[variable] = str(Path(directory, name))
        process = subprocess.Popen([CONTROL, "-f"], stdin=subprocess.DEVNULL)
        try:
            time.sleep(2)
            if process.poll() is not None:
                raise RuntimeError(f"{CONTROL} ended with {process.returncode}")
            yield
        finally:
            _quit(process)
            for variable in folders:
                del os.environ[variable]


def _quit(process: subprocess.Popen) -> None:
    """Have the daemon and its server end; kill the daemon where it doesn't."""
    try:
        subprocess.run([CONTROL], input=b"quit -t 5\n", timeout=10, check=False)
        process.wait(10)
    except (subprocess.TimeoutExpired, OSError):
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
