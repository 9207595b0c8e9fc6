"""Share code of the stage benchmarks: bare parallel work, a Ray, noise images, the table."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from chexseg.data import shards
from chexseg.pathologies import OBSERVATIONS
from chexseg.run import local_ray

CORES = len(os.sched_getaffinity(0))


def seconds(prepare: Callable[..., Callable[[], object]], *arguments: Any, processes: int) -> float:
    """Return the time of the slowest of several processes that start together.

    Each process times what `prepare(*arguments)` returns; preparing is not timed. Processes are
    spawned, so `prepare` must be a module's function.
    """
    spawn = multiprocessing.get_context("spawn")
    ready, times = spawn.Barrier(processes), spawn.Queue()
    running = [
        spawn.Process(target=_timed, args=(prepare, arguments, ready, times))
        for _ in range(processes)
    ]
    for process in running:
        process.start()
    for process in running:
        process.join()
    if any(process.exitcode for process in running):
        raise SystemExit("a process of the bare side failed; its traceback stands above")
    return max(times.get() for _ in running)


def _timed(
    prepare: Callable[..., Callable[[], object]], arguments: Sequence[Any], ready: Any, times: Any
) -> None:
    try:
        work = prepare(*arguments)
        ready.wait()
    except BaseException:
        ready.abort()  # otherwise the others would wait forever
        raise
    started = perf_counter()
    work()
    times.put(perf_counter() - started)


def forward_passes(
    build: Callable[[], Any], init: str, size: int, batch: int, batches: int, threads: int
) -> Callable:
    """Prepare forward passes of one batch in memory, without gradients, for `seconds`."""
    import torch

    from chexseg.models import encoders

    torch.set_num_threads(threads)
    model = build().eval()
    images_NHW = torch.randint(0, 256, (batch, size, size), dtype=torch.uint8)
    with torch.inference_mode():
        images_NCHW = encoders.prepare(images_NHW, init)
        model(images_NCHW)

    @torch.inference_mode()
    def work() -> None:
        for _ in range(batches):
            model(images_NCHW)

    return work


def forward_rate(
    build: Callable[[], Any],
    init: str,
    size: int,
    batch: int,
    batches: int,
    *,
    processes: int = 1,
    threads: int = 1,
) -> float:
    """Return images per second of forward passes in parallel processes."""
    arguments = (build, init, size, batch, batches, threads)
    return processes * batches * batch / seconds(forward_passes, *arguments, processes=processes)


def descendants() -> dict[int, dict[str, str]]:
    """Return this process and its descendants: number -> ``/proc/NUMBER/status`` by field name."""
    statuses: dict[int, dict[str, str]] = {}
    for entry in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):  # it has ended
            statuses[int(entry.parent.name)] = dict(
                line.split(":", 1) for line in entry.read_text().splitlines()
            )
    family = {os.getpid()}
    while (
        more := {number for number, status in statuses.items() if int(status["PPid"]) in family}
        - family
    ):
        family |= more
    return {number: statuses[number] for number in family & statuses.keys()}


def held_bytes() -> int:
    """Return the proportional set size of this process and its descendants.

    Shared pages count once.
    """
    total = 0
    for process in descendants():
        with suppress(OSError):
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def largest_worker() -> int:
    """Return the largest resident size so far, in bytes, of Ray's workers below this process."""
    workers = (
        status for status in descendants().values() if status["Name"].strip().startswith("ray::")
    )
    return max(
        (1024 * int(status["VmHWM"].split()[0]) for status in workers if "VmHWM" in status),
        default=0,
    )


class Peak:
    """Sample a function four times a second, in a thread, and keep its largest value."""

    def __init__(self, ask: Callable[[], int]):
        self.ask, self.value, self.over = ask, 0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.over.wait(0.25):
            self.value = max(self.value, self.ask())


@contextmanager
def own_ray() -> Iterator[None]:
    """Run a local Ray with a small object store and, as in a study, one CPU more than there are."""
    with local_ray.local_ray(
        num_cpus=CORES + 1, include_dashboard=False, object_store_memory=200 * 2**20
    ):
        yield


def run(
    measure: Callable[[argparse.Namespace, Path], None],
    description: str,
    **options: tuple[int, str],
) -> None:
    """Run ``measure(arguments, scratch)`` with a local Ray; `options` as in `parse`."""
    arguments = parse(description, **options)
    with tempfile.TemporaryDirectory(prefix="cxb-", dir="/tmp") as scratch, own_ray():
        measure(arguments, Path(scratch))


def parse(description: str, **options: tuple[int, str]) -> argparse.Namespace:
    """Parse the command line. options: name -> (default, help text)."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    for name, (default, what) in options.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=int,
            default=default,
            help=f"{what} (default: {default})",
        )
    return parser.parse_args()


#: The option of all benchmarks of images.
SIZE = (320, "pixels of the square images' side")


class LossMonitor:
    """Measure a stage's rate between its first and its last files, from its progress.

    Its workers map files of equal size.
    """

    def __init__(self) -> None:
        self.started, self.seen = perf_counter(), [(0.0, 0)]

    def __call__(self, done: int, total: int, *_: object) -> None:
        self.seen.append((perf_counter() - self.started, done))

    def rate(self, workers: int) -> float:
        """Return units per second after the first file of each worker: these bear the start."""
        (before, few), (after, all_of_them) = self.seen[workers], self.seen[-1]
        return (all_of_them - few) / (after - before)

    def start(self, workers: int) -> float:
        """Return the seconds until the workers were ready.

        These are the first files' time less their cost.
        """
        before, few = self.seen[workers]
        return before - few / self.rate(workers)


def write_images(directory: Path, count: int, size: int, rows_a_file: int) -> list[str]:
    """Write shards of noise as `ingest` does, with blank labels; return their paths."""
    directory.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number, start in enumerate(range(0, count, rows_a_file)):
        ids = [
            f"patient{row:06d}_study1_view1_frontal"
            for row in range(start, min(start + rows_a_file, count))
        ]
        pixels_NHW = generator.integers(0, 256, (len(ids), size, size), dtype=np.uint8)
        scalars = {"image_id": ids, "patient": ids, "frontal": [True] * len(ids)}
        scalars |= {name: np.full(len(ids), size, dtype=np.int32) for name in ("height", "width")}
        scalars |= {name: np.full(len(ids), np.nan, dtype=np.float32) for name in OBSERVATIONS}
        shards.write(
            directory / shards.part_name(number), shards.table(scalars, {"pixels": pixels_NHW})
        )
    return shards.files(directory)


def print_rates(rates: Mapping[str, Sequence[float]], stage_of: Mapping[str, str]) -> None:
    """Print the median rate of each side and its ratio to the reference."""
    width = max(map(len, rates)) + 2
    print(f"{'':<{width}}{'images a second':>16}{'stage to it':>13}")
    for name, values in rates.items():
        median, ratio = float(np.median(values)), ""
        if name in stage_of:
            ratio = f"{float(np.median(rates[stage_of[name]])) / median:.2f}"
        print(
            f"{name:<{width}}{median:>16.1f}{ratio:>13}   of "
            f"{', '.join(f'{rate:.1f}' for rate in values)}"
        )
