"""Saliency over a streamed set: images a second beside the bare forward pass, and peak memory as the set grows.

    python benchmarks/saliency_stream.py [--images N] [--size PX] [--memory]

Speed: the saliency stage's workers on Ray Data (shards read, ten Grad-CAMs an image, shards written), against the forward
pass of the same network on images that are in memory already: in as many processes with as many threads, and in one
process with all threads. The sides take turns. Starting the workers is timed apart: a study pays it once.

Memory (--memory): the stage on 1,000 and on 20,000 images, with a small network to be done in minutes; what all processes
hold together above what they held before, sampled four times a second (proportional set size: shared pages count once).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import ray

from chexseg.data import shards, streams
from chexseg.models import classifier, encoders
from chexseg.pathologies import OBSERVATIONS, PATHOLOGIES
from chexseg.stages import saliency
from chexseg.stages.base import Execution
from chexseg.stages.classify import WEIGHTS

BATCH = 32


def write_images(directory: Path, count: int, size: int, rows_a_file: int) -> list[str]:
    """Shards of noise as `ingest` writes them, without labels; their paths."""
    directory.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number, start in enumerate(range(0, count, rows_a_file)):
        ids = [f"patient{row:06d}_study1_view1_frontal" for row in range(start, min(start + rows_a_file, count))]
        pixels_NHW = generator.integers(0, 256, (len(ids), size, size), dtype=np.uint8)
        shards.write(directory / shards.part_name(number), shards.table({"image_id": ids}, {"pixels": pixels_NHW}))
    return shards.files(directory)


def write_classifier(directory: Path, architecture: str) -> Path:
    directory.mkdir()
    encoders.save(classifier.build(architecture), directory / WEIGHTS, architecture=architecture, observations=OBSERVATIONS)
    return directory


def stage(paths: list[str], model: Path, architecture: str, out: Path, workers: int, empty: bool = False) -> float:
    """Seconds of the stage's pass over the files; `empty`: of one that wants no image, so of starting its workers."""
    out.mkdir(parents=True)
    names = [name for path in paths for name in shards.read(path, ["image_id"])["image_id"].to_pylist()]
    wanted = [] if empty else names
    started = time.perf_counter()
    streams.map_files(
        paths,
        saliency.Mapper,
        {
            "config": saliency.Config(architecture=architecture),
            "classifier": str(model),
            "execution": Execution(threads=1),
            "wanted": wanted,
            "out": str(out),
            "note": {"kind": "cam", "pathologies": PATHOLOGIES},
        },
        workers=workers,
    )
    return time.perf_counter() - started


def bare(architecture: str, size: int, batches: int, threads: int, ready, go, times) -> None:
    """Forward passes on one batch in memory, in a process of its own."""
    import torch

    torch.set_num_threads(threads)
    model = classifier.build(architecture).eval()
    images_NHW = torch.randint(0, 256, (BATCH, size, size), dtype=torch.uint8)
    with torch.inference_mode():
        images_NCHW = encoders.prepare(images_NHW, "chexpert")
        model(images_NCHW)
        ready.wait()
        go.wait()
        started = time.perf_counter()
        for _ in range(batches):
            model(images_NCHW)
        times.put(time.perf_counter() - started)


def bare_rate(architecture: str, size: int, batches: int, processes: int, threads: int) -> float:
    """Images a second of so many processes side by side."""
    spawn = multiprocessing.get_context("spawn")
    ready, go, times = spawn.Barrier(processes + 1), spawn.Event(), spawn.Queue()
    arguments = (architecture, size, batches, threads, ready, go, times)
    running = [spawn.Process(target=bare, args=arguments) for _ in range(processes)]
    for process in running:
        process.start()
    ready.wait()
    go.set()
    seconds = max(times.get() for _ in running)
    for process in running:
        process.join()
    return processes * batches * BATCH / seconds


def speed(arguments: argparse.Namespace, scratch: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    files = max(2 * cores, arguments.images // 64)
    paths = write_images(scratch / "images", 64 * files, arguments.size, 64)
    model = write_classifier(scratch / "classifier", arguments.architecture)
    batches = max(2, 64 * files // cores // BATCH // arguments.rounds)
    rates: dict[str, list[float]] = {"streamed": [], "bare, as many processes": [], "bare, one process": []}
    starts = []
    for number in range(arguments.rounds):
        rates["bare, as many processes"].append(bare_rate(arguments.architecture, arguments.size, batches, cores, 1))
        starts.append(stage(paths, model, arguments.architecture, scratch / f"nothing {number}", cores, empty=True))
        seconds = stage(paths, model, arguments.architecture, scratch / f"maps {number}", cores)
        rates["streamed"].append(64 * files / (seconds - starts[-1]))
        rates["bare, one process"].append(bare_rate(arguments.architecture, arguments.size, batches * cores, 1, cores))
    print(f"{arguments.architecture}, {64 * files} images of {arguments.size} x {arguments.size}, {cores} cores")
    print(f"{'':<26}{'images a second':>16}{'streamed to it':>16}")
    streamed = float(np.median(rates["streamed"]))
    for name, found in rates.items():
        median = float(np.median(found))
        print(f"{name:<26}{median:>16.1f}{streamed / median:>16.2f}   of {', '.join(f'{rate:.1f}' for rate in found)}")
    print(f"starting the workers took {np.median(starts):.1f} s")


def held_bytes(root: int) -> int:
    """Proportional set size of a process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    total, pending = 0, [root]
    while pending:
        process = pending.pop()
        pending += children.get(process, [])
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def memory_of(count: int, size: int, rows_a_file: int) -> None:
    """One pass in this process and its own Ray; prints the images, the seconds and the peak in MiB."""
    with tempfile.TemporaryDirectory(prefix="cxr-", dir="/tmp") as scratch, started_ray(scratch):
        paths = write_images(Path(scratch) / "images", count, size, rows_a_file)
        model = write_classifier(Path(scratch) / "classifier", "mobilenet_v2")
        before, peak, over = held_bytes(os.getpid()), 0, threading.Event()

        def watch() -> None:
            nonlocal peak
            while not over.wait(0.25):
                peak = max(peak, held_bytes(os.getpid()))

        thread = threading.Thread(target=watch)
        thread.start()
        seconds = stage(paths, model, "mobilenet_v2", Path(scratch) / "maps", len(os.sched_getaffinity(0)))
        over.set()
        thread.join()
        print(f"{count:>8}{rows_a_file:>14}{seconds:>10.0f}{(peak - before) / 2**20:>14.0f}")


class started_ray:
    """A Ray of its own in a short directory, with a small object store."""

    def __init__(self, scratch: str):
        self.scratch = scratch

    def __enter__(self) -> None:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        ray.init(
            address="local",
            num_cpus=len(os.sched_getaffinity(0)) + 1,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            object_store_memory=200 * 2**20,
            _temp_dir=f"{self.scratch}/ray",
        )

    def __exit__(self, *_: object) -> None:
        ray.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=512, help="for the speed (default: 512)")
    parser.add_argument("--size", type=int, default=320, help="pixels of the square images' side (default: 320)")
    parser.add_argument("--architecture", default="densenet121")
    parser.add_argument("--rounds", type=int, default=2, help="turns that the sides take (default: 2)")
    parser.add_argument("--memory", action="store_true", help="measure memory instead: 1,000 and 20,000 images (minutes)")
    parser.add_argument("--memory-of", type=int, nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        memory_of(*arguments.memory_of)
    elif arguments.memory:
        print(f"{'images':>8}{'rows a file':>14}{'seconds':>10}{'peak, MiB':>14}", flush=True)
        # Rows a file as `ingest` has them for 1,000 and for more than 16,384 images, and the larger ones for both.
        for count, rows_a_file in ((1000, 64), (1000, 1024), (20000, 1024)):
            command = [sys.executable, __file__, "--memory-of", str(count), "96", str(rows_a_file)]
            subprocess.run(command, check=True)
    else:
        with tempfile.TemporaryDirectory(prefix="cxr-", dir="/tmp") as scratch, started_ray(scratch):
            speed(arguments, Path(scratch))


if __name__ == "__main__":
    main()
