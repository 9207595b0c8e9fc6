"""Find what a test session leaves behind: processes, temporary files, open ports."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
from pathlib import Path

import psutil

from tests import processes

#: Seconds that processes have to end: workers of a killed driver notice its end late.
PATIENCE = 60
#: What PyTorch keeps for the next process, once per user; and an empty directory of multiprocessing
#: in Ray's dashboard, which Ray ends by a signal.
KEPT = ("torchinductor_", "chexseg-compiler-", "pymp-")
#: Ends of the names of empty directories that wandb makes when it is imported. Ray Tune imports it
#: in each worker where it is installed, and Ray ends workers before wandb can delete them.
OF_WANDB = ("wandb-media", "wandb-artifacts")


class Leftovers:
    """Find processes and temporary files that were created after this object.

    Processes are identified by an environment variable, which they inherit from this session.
    Temporary files are in a directory of this session, except the short directories of Rays and
    their sockets.
    """

    def __init__(self) -> None:
        self.mark = f"CHEXSEG_TEST_SESSION={uuid.uuid4().hex}"
        name, _, value = self.mark.partition("=")
        os.environ[name] = value
        self.rays_before = set(Path("/tmp").glob("cxr-*"))
        os.environ.setdefault(
            "PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir()
        )  # pytest keeps what failed tests have made
        self.temporary = Path(tempfile.mkdtemp(prefix="cxt-"))
        os.environ["TMPDIR"], tempfile.tempdir = str(self.temporary), None

    def wait(self) -> list[str]:
        """Wait for processes to end; return one line for each leftover."""
        deadline = time.monotonic() + PATIENCE
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.2)
        running = [f"process {number}: {command}" for number, command in self.processes().items()]
        paths = {*self.temporary.glob("*"), *Path("/tmp").glob("cxr-*")} - self.rays_before
        files = [
            f"file {path}"
            for path in sorted(paths)
            if not path.name.startswith(KEPT) and not path.name.endswith(OF_WANDB)
        ]
        return running + files

    def close(self) -> None:
        shutil.rmtree(self.temporary, ignore_errors=True)

    def processes(self) -> dict[int, str]:
        """Return number -> command line of the live processes that this session started."""
        return {
            number: line
            for number, line in processes.find(mark=self.mark).items()
            if "multiprocessing.resource_tracker" not in line  # it ends with this process
        }


def listening_ports() -> set[int]:
    """Return the TCP ports on which this process listens."""
    return {port for _, port in processes.listening(psutil.Process())}
