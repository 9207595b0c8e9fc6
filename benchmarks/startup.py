"""Benchmark seconds and CPU time from `chexseg study run` to a study's first training step.

    python benchmarks/startup.py [--rounds N]

Each row is a real command on a small phantom data set, in separate processes:

- cold Ray: the command starts Ray itself; the first step is a cell's (nothing shared is trained)
- warm Ray: the same with ``--address``, on a Ray that has just run another study
- second cell: on the same worker, from the first cell's scores in the store to the second one's
  first step
- cold Ray, classifier: the first step is that of the shared classifier

CPU time is that of all processes of the command and of its Ray, from the command's start to the
first step. Processes are sampled twenty times a second; one that has ended counts with its last
sample. All training loops use `chexseg.stages.training.step_timer.StepTimer`. A
``sitecustomize`` module on the processes' path makes it record the end of a loop's first step. The
reference of the last column is the CPU time of importing torch and segmentation-models-pytorch
once.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import median

MARKER = "CHEXSEG_STARTUP_BENCHMARK"
#: Writes "<time> <process id>" when the first step of a training loop has ended.
SITE = """
import importlib.abc, importlib.machinery, os, sys, time

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "chexseg.stages.training.step_timer":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module
        def exec_module(module):
            execute(module)
            finish_step = module.StepTimer.finish_step
            def first(self):
                if not getattr(self, "_marked", False):
                    self._marked = True
                    with open(os.environ["CHEXSEG_STARTUP_STEPS"], "a") as file:
                        file.write(f"{time.time()} {os.getpid()}\\n")
                return finish_step(self)
            module.StepTimer.finish_step = first
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""
CELLS = """
name: startup
axes: {{trial: [{trials}]}}
resources: {{cpu: {cpu}}}
settings:
  size: 64
  encoder: {{init: random}}
  labels: {{p: 1, expert_split: {{train: 8, select: 4}}}}
  fit: {{epochs: 1, samples_per_epoch: 16}}
"""
CLASSIFIER = """
name: startup-classifier
axes: {trial: [0]}
settings:
  size: 64
  encoder: {init: random}
  labels: {weak: cam, p: 0, weak_images: 8, expert_split: {train: 8, select: 4}}
  classify: {architecture: resnet18, epochs: 1}
  fit: {epochs: 1, samples_per_epoch: 16}
"""


class Machine:
    """Run commands whose processes are marked by an environment variable."""

    def __init__(self, scratch: Path):
        self.scratch, self.steps = scratch, scratch / "steps"
        (scratch / "site").mkdir()
        (scratch / "site" / "sitecustomize.py").write_text(SITE)
        path = os.pathsep.join(filter(None, [str(scratch / "site"), os.environ.get("PYTHONPATH")]))
        self.environment = os.environ | {
            "PYTHONPATH": path,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_TMPDIR": str(scratch / "ray"),
            "TMPDIR": str(scratch),
            "RAY_USAGE_STATS_ENABLED": "0",
            "CHEXSEG_STARTUP_STEPS": str(self.steps),
            MARKER: str(scratch),
        }
        (scratch / "ray").mkdir()
        self.ticks: dict[str, int] = {}

    def processes(self) -> list[Path]:
        line, marked = f"{MARKER}={self.scratch}".encode(), []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended
                if line in (entry / "environ").read_bytes():
                    marked.append(entry)
        return marked

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of all marked processes, with the last sample of ended ones."""
        for entry in self.processes():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                self.ticks[entry.name] = sum(map(int, fields[11:13]))
        return sum(self.ticks.values()) / os.sysconf("SC_CLK_TCK")

    def study(
        self, name: str, text: str, data: Path, store: str, *more: str
    ) -> subprocess.Popen[bytes]:
        file = self.scratch / f"{name}.yaml"
        file.write_text(text)
        self.steps.write_text("")
        command = [
            sys.executable,
            "-m",
            "chexseg",
            "study",
            "run",
            str(file),
            "--data",
            str(data),
            "--quiet",
        ]
        log = (self.scratch / f"{name}.log").open("wb")
        return subprocess.Popen(
            [*command, "--store", store, *more], env=self.environment, stdout=log, stderr=log
        )

    def until(self, driver: subprocess.Popen[bytes], condition: object) -> None:
        while not condition():
            if driver.poll() is not None and not condition():
                raise SystemExit(
                    "the study ended early: "
                    + "".join(p.read_text() for p in self.scratch.glob("*.log"))
                )
            self.cpu_seconds()
            time.sleep(0.05)

    def first_steps(self) -> list[float]:
        """Return when the training loops' first steps ended, in the order of the loops' start."""
        return [float(line.split()[0]) for line in self.steps.read_text().splitlines()]

    def end(self) -> None:
        """End each process by its number."""
        while entries := self.processes():
            for entry in entries:
                with suppress(OSError):
                    os.kill(int(entry.name), signal.SIGKILL)
            time.sleep(0.1)


def to_first_step(
    machine: Machine, name: str, text: str, data: Path, *more: str
) -> tuple[float, float]:
    """Return (seconds, CPU seconds) from command to first training step; finish the study."""
    store = machine.scratch / f"store-{name}"
    before, started = machine.cpu_seconds(), time.time()
    driver = machine.study(name, text, data, str(store), *more)
    machine.until(driver, lambda: machine.first_steps())
    spent = machine.cpu_seconds() - before
    seconds = machine.first_steps()[0] - started
    if driver.wait(timeout=300):
        raise SystemExit((machine.scratch / f"{name}.log").read_text())
    return seconds, spent


def second_cell(machine: Machine, data: Path) -> tuple[float, float]:
    """Return (seconds, CPU seconds) from the first cell's manifest to the second one's first step.

    Both run on one worker.
    """
    store = machine.scratch / "store-two"
    cpu = len(
        os.sched_getaffinity(0)
    )  # so that a cell needs the whole machine and a single worker takes both
    driver = machine.study("two", CELLS.format(trials="0, 1", cpu=cpu), data, str(store))
    machine.until(driver, lambda: list(store.glob("score/*/manifest.json")))
    before, started = machine.cpu_seconds(), time.time()
    machine.until(driver, lambda: len(machine.first_steps()) == 2)
    spent, seconds = machine.cpu_seconds() - before, machine.first_steps()[1] - started
    driver.wait(timeout=300)
    return seconds, spent


def imports() -> tuple[float, float]:
    """Return (seconds, CPU seconds) of a process that imports a segmenter's libraries."""
    before, started = os.times(), time.time()
    subprocess.run([sys.executable, "-c", "import torch, segmentation_models_pytorch"], check=True)
    after = os.times()
    spent = (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
    return time.time() - started, spent


def warm(machine: Machine, data: Path) -> tuple[float, float]:
    """Measure a study's first step on a Ray that has run one of another trial before."""
    ray = [
        str(Path(sys.executable).with_name("ray")),
        "start",
        "--head",
        "--port=0",
        "--num-cpus",
        str(cores() + 1),
    ]
    ray += [
        "--include-dashboard=false",
        "--temp-dir",
        str(machine.scratch / "ray"),
        "--node-ip-address=127.0.0.1",
    ]
    started = subprocess.run(
        ray, env=machine.environment, capture_output=True, text=True, check=True
    )
    address = re.search(r"--address='([^']+)'", started.stdout)[1]
    to_first_step(machine, "first", CELLS.format(trials=1, cpu=1), data, "--address", address)
    return to_first_step(machine, "warm", CELLS.format(trials=0, cpu=1), data, "--address", address)


def cores() -> int:
    return len(os.sched_getaffinity(0))


def one_round(data: Path) -> dict[str, tuple[float, float]]:
    rows = {}
    cases = {
        "cold Ray": lambda machine: to_first_step(
            machine, "cold", CELLS.format(trials=0, cpu=1), data
        ),
        "warm Ray": lambda machine: warm(machine, data),
        "second cell": lambda machine: second_cell(machine, data),
        "cold Ray, classifier": lambda machine: to_first_step(
            machine, "classifier", CLASSIFIER, data
        ),
    }
    for name, measure in cases.items():
        scratch = Path(tempfile.mkdtemp(prefix="cxb-", dir="/tmp"))
        machine = Machine(scratch)
        try:
            rows[name] = measure(machine)
        finally:
            machine.end()
            shutil.rmtree(scratch, ignore_errors=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="runs of each row (default: 3)")
    rounds = parser.parse_args().rounds
    from chexseg.phantom import dataset

    with tempfile.TemporaryDirectory() as root:
        data = Path(root) / "data"
        dataset.write(data, dataset.Config(train=48, valid=24, test=16, size=64))
        seen = [one_round(data) | {"imports": imports()} for _ in range(rounds)]
    print(f"from `chexseg study run` to the first training step; medians of {rounds}")
    print(f"{'':<24}{'s':>8}{'CPU s':>8}{'CPU to imports':>16}")
    reference = median(row["imports"][1] for row in seen)
    for name in seen[0]:
        seconds, spent = (median(row[name][k] for row in seen) for k in (0, 1))
        print(f"{name:<24}{seconds:>8.2f}{spent:>8.2f}{spent / reference:>16.2f}")


if __name__ == "__main__":
    main()
