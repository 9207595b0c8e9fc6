"""Stand-ins for another machine, and for a `ray stop` that stops only the test's own Ray.

`ssh` runs the command on this machine, with another home directory. `rsync` copies what git would.
`ray` is the real one with two changes. `start` gets free ports and a separate directory, and `stop`
ends only what this `start` began. The real `stop` would end every Ray.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from tests import processes

ROOT = Path(__file__).resolve().parents[2]

SSH = """#!/bin/bash
# Options, then user@host, then the command, as a shell there would be given it.
while [[ "$1" != *@* ]]; do shift; done
shift
exec env HOME={remote} bash -c "$*"
"""

RSYNC = """#!{python}
import shutil, subprocess, sys
from pathlib import Path

source, target = sys.argv[-2:]
target = Path(target.partition(":")[2].replace("~", {remote!r}, 1))
if source.endswith("/"):
    assert "dir-merge,- .gitignore" in sys.argv, "the checkout is sent with what git ignores"
    listed = subprocess.run(
        ["git", "-C", source, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True, check=True, text=True,
    )
    for name in filter(None, listed.stdout.split("\\0")):
        if (Path(source) / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(Path(source) / name, target / name)
else:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
"""

RAY = """#!/bin/bash
case "$1" in
start)
    shift
    # Run like a daemon, but with a known process. Ray gives a node 30 s to start, too few on a
    # busy machine.
    for _ in 1 2 3; do
        setsid {python} -m ray.scripts.scripts start --num-cpus=3 "$@" --port={port} \\
            --dashboard-port={dashboard} --dashboard-agent-listen-port={agent} \\
            --temp-dir={temporary} --object-store-memory=200000000 \\
            --block > {temporary}/start.log 2>&1 < /dev/null &
        echo $! > {temporary}/pid
        for _ in $(seq 240); do
            grep -q "Ray runtime started" {temporary}/start.log && exit 0
            kill -0 $(cat {temporary}/pid) 2> /dev/null || break
            sleep 0.5
        done
        $0 stop
        sleep 5
    done
    cat {temporary}/start.log
    exit 1
    ;;
stop)
    [ -e {temporary}/pid ] || exit 0
    kill -TERM $(cat {temporary}/pid) 2> /dev/null
    for _ in $(seq 120); do kill -0 $(cat {temporary}/pid) 2> /dev/null || break; sleep 0.5; done
    rm -f {temporary}/pid
    ;;
status)
    # Of several Rays on this machine, this one.
    exec {python} -m ray.scripts.scripts status --address=$(cat {temporary}/ray_current_cluster)
    ;;
*)
    exec {python} -m ray.scripts.scripts "$@"
    ;;
esac
"""


class Machine:
    """Emulate two machines: a launcher (`home`), and one reached by `ssh` (`remote`)."""

    def __init__(self) -> None:
        self.top = Path(
            tempfile.mkdtemp(prefix="cxr-", dir="/tmp")
        )  # short: Ray puts its sockets below it
        self.home, self.remote, self.bin = self.top / "home", self.top / "remote", self.top / "bin"
        self.temporary, self.scratch = self.top / "ray", self.top / "tmp"
        for directory in (self.home, self.remote, self.bin, self.temporary, self.scratch):
            directory.mkdir()
        self.port, self.dashboard = free_port(), free_port()
        agent = (
            free_port()
        )  # another Ray of this machine uses Ray's default port, and jobs would find no agent
        words = {
            "python": sys.executable,
            "remote": str(self.remote),
            "temporary": self.temporary,
            "port": self.port,
            "dashboard": self.dashboard,
            "agent": agent,
        }
        for name, text in {"ssh": SSH, "rsync": RSYNC, "ray": RAY}.items():
            self.write(self.bin / name, text.format(**words))
        self.environment = {
            "HOME": str(self.home),
            "PATH": f"{self.bin}:{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "TMPDIR": str(self.scratch),
            "RAY_TMPDIR": str(self.temporary),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{self.dashboard}",
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "passive",
            "PYTHONUNBUFFERED": "1",  # `ray job logs` follows this file while it is written
            "CHEXSEG_CACHE": str(self.top / "copies"),
            "CHEXSEG_TEST_SESSION": os.environ.get(
                "CHEXSEG_TEST_SESSION", ""
            ),  # see tests/leftovers.py
            # Processes find chexseg and its dependencies here, also in environments made by a test.
            "PYTHONPATH": os.pathsep.join(
                [str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))]
            ),
        }

    @staticmethod
    def write(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def run(
        self, command: str, timeout: float = 600, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell line in the checkout; return output and errors together."""
        return subprocess.run(
            ["bash", "-c", command],
            env=self.environment | environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=timeout,
        )

    def close(self) -> None:
        # Ray takes half a minute to stop. All of its processes name this directory, and no others
        # do.
        for process in processes.find(str(self.top)):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        shutil.rmtree(self.top, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def wait_until(true, seconds: float, pause: float = 0.5) -> bool:
    """Wait until `true()` is true; return whether it was within `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(pause)
    return bool(true())
