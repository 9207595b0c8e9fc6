"""A data set, a study of 20 cells and its store, and the run that is being disturbed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from chexseg.phantom import dataset
from tests import plain_install, processes
from tests.report.rendered import repeatable_tables

#: Cells of 4 values of p, CAM and IRNet, 2 trials; and students of 3 fractions.
STUDY = """
name: chaos
axes:
  labels.p: [0, 0.5, 0.9, 1]
  labels.weak: [cam, irnet]
  trial: [0, 1]
also:
  - {distil.fraction: 0.25}
  - {distil.fraction: 0.5}
  - {distil.fraction: 1}
  - {distil.fraction: 0.25, trial: 1}
  - {distil.fraction: 0.5, trial: 1}
  - {distil.fraction: 1, trial: 1}
settings:
  size: 32
  pathologies: [Cardiomegaly, Edema, Pleural Effusion]
  encoder: {architecture: mobilenet_v2, init: random}
  labels: {weak_images: 8, expert_split: {train: 8, select: 4}}
  classify: {architecture: resnet18, epochs: 1}
  irnet: {architecture: resnet18, epochs: 1, radius: 4}
  saliency: {images: 24}
  fit: {epochs: 2, samples_per_epoch: 16}
"""
MARK = "CHEXSEG_CHAOS"
#: Exit codes that documentation names: done, stages failed, bad input, interrupted, terminated.
EXIT_CODES = {0, 1, 2, 130, 143}
#: What no user may see.
TRACEBACK = re.compile(
    r"Traceback \(most recent|Fatal Python error|\*\*\* SIG|StackTrace Info", re.I
)
#: Seconds after which a run hangs.
PATIENCE = 900


@dataclass(frozen=True)
class End:
    """The exit code of an ended run, as a shell gives it, and its output."""

    code: int
    text: str

    @property
    def fault(self) -> str:
        """Return what no user may see, a traceback or an exit code, and the text there; or ""."""
        # Ray's C++ handler prints a stack if SIGTERM comes while the driver connects.
        text = (
            re.sub(r".*\*\*\* SIGTERM received.*", "", self.text) if self.code == 143 else self.text
        )
        if match := TRACEBACK.search(text):
            return text[max(0, match.start() - 500) : match.end() + 2500]
        return "" if self.code in EXIT_CODES else f"exit code {self.code}:\n{text[-3000:]}"


class Arena:
    """Files below a directory with a short name, where all processes of the runs can be found."""

    def __init__(self, root: Path) -> None:
        self.root, self.data, self.study = root, root / "data", root / "study.yaml"
        self.store, self.rays = root / "store", root / "r"
        self.rays.mkdir()
        dataset.write(
            self.data, dataset.Config(train=24, valid=20, test=12, size=64, prevalence=0.5)
        )
        self.study.write_text(STUDY)
        self.environment = (
            os.environ
            | plain_install.VARIABLES
            | {
                MARK: str(root),
                "RAY_TMPDIR": str(self.rays),
                "TMPDIR": str(self.rays),
                "OMP_NUM_THREADS": "1",
            }
        )
        self.driver: subprocess.Popen[bytes] | None = None
        self._printed = root / "printed.txt"

    def command(self, *arguments: object) -> list[str]:
        common = ["--store", str(self.store)]
        return [sys.executable, "-m", "chexseg", *map(str, arguments), *common]

    def start(self) -> None:
        """Start a run."""
        with self._printed.open("wb") as printed:
            self.driver = subprocess.Popen(
                self.command("study", "run", self.study, "--data", self.data),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
            )

    def ended(self, seconds: float = 0) -> bool:
        """Return whether no run goes on, after waiting for its end for some seconds."""
        with suppress(subprocess.TimeoutExpired):
            if self.driver:
                self.driver.wait(seconds)
                return True
        return self.driver is None

    def end(self) -> End:
        """Return how the run that has ended did so."""
        assert self.driver and self.driver.returncode is not None
        code, self.driver = self.driver.returncode, None
        return End(code if code >= 0 else 128 - code, self._printed.read_text(errors="replace"))

    def wait(self) -> End:
        """Wait for the end of the run. Raises `subprocess.TimeoutExpired` if it hangs."""
        assert self.driver
        self.driver.wait(PATIENCE)
        return self.end()

    def run(self, *arguments: object) -> End:
        """Run another command to its end."""
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
        )
        return End(done.returncode, done.stdout.decode(errors="replace"))

    def report(self) -> End:
        """Write the report anew."""
        shutil.rmtree(self.root / "report", ignore_errors=True)
        return self.run(
            "report", self.study, "--data", self.data, "--out", self.root / "report", "--quiet"
        )

    def tables(self) -> dict[str, bytes]:
        """Return the tables of the last report, but for those of stage times."""
        return repeatable_tables(self.root / "report")

    def processes(self, *titles: str) -> dict[int, str]:
        """Return number -> title of the runs' processes, those that begin with one of the titles.

        A worker of Ray calls itself ray::NAME.
        """
        running = processes.find(mark=f"{MARK}={self.root}")
        named = {number: processes.title(line) for number, line in sorted(running.items())}
        return {number: name for number, name in named.items() if name.startswith(titles)}

    def settle(self) -> None:
        """Wait for the end of all processes: the Ray of a killed run ends by itself."""
        deadline = time.monotonic() + 90
        while (left := self.processes("")) and time.monotonic() < deadline:
            time.sleep(0.5)
        if left:
            raise AssertionError(f"still running 90 s after their run: {left}")

    def results(self) -> list[Path]:
        """Return all files of finished results."""
        return sorted(
            path
            for manifest in self.store.glob("[!.]*/*/manifest.json")
            for path in manifest.parent.rglob("*")
            if path.is_file() and not path.is_symlink()
        )

    def inputs(self) -> list[Path]:
        """Return all files of the data set."""
        return sorted(path for path in self.data.rglob("*") if path.is_file())

    def close(self) -> None:
        """Kill what still runs."""
        for number in self.processes(""):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        if self.driver:
            self.driver.wait()
            self.driver = None


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[bool]:
    """Mount a file system of this size on a folder, and tell whether that was permitted."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    mounted = _succeeds(mount)
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _succeeds(command: Sequence[str]) -> bool:
    try:
        return subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0
    except FileNotFoundError:
        return False
