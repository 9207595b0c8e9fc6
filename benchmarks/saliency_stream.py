"""Benchmark saliency over a streamed set: rate beside bare forward passes, and peak memory.

    python benchmarks/saliency_stream.py [--images N] [--size PX] [--memory]

Speed: the saliency stage's workers on Ray Data read shards, make ten Grad-CAMs per image and write
shards. The reference is the same network's forward pass on images in memory: in as many processes
with as many threads, and in one process with all threads. The sides take turns. Starting the
workers is timed separately, because a study pays it once.

Memory (--memory): the stage runs on 1,000 and on 20,000 images, with a small network to be done in
minutes. The figure is the growth of the memory of all processes, sampled four times a second
(proportional set size: shared pages count once).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import bare
import numpy as np

from chexseg.data import ray_data, shards
from chexseg.models import classifier, encoders
from chexseg.pathologies import OBSERVATIONS, PATHOLOGIES
from chexseg.stages import saliency
from chexseg.stages.api import StageContext
from chexseg.stages.artifacts import CLASSIFIER_WEIGHTS
from chexseg.stages.configs import SaliencyConfig

BATCH = 32


def write_classifier(directory: Path, architecture: str) -> Path:
    directory.mkdir()
    encoders.save(
        classifier.build(architecture),
        directory / CLASSIFIER_WEIGHTS,
        architecture=architecture,
        observations=OBSERVATIONS,
    )
    return directory


def stage(
    paths: list[str], model: Path, architecture: str, out: Path, workers: int, empty: bool = False
) -> float:
    """Return the seconds of the stage's pass; `empty` times only the workers' start."""
    out.mkdir(parents=True)
    names = [
        name for path in paths for name in shards.read(path, ["image_id"])["image_id"].to_pylist()
    ]
    wanted = [] if empty else names
    started = time.perf_counter()
    ray_data.map_files(
        paths,
        saliency.CamWriter,
        {
            "config": SaliencyConfig(architecture=architecture),
            "classifier": str(model),
            "context": StageContext(threads=1),
            "wanted": wanted,
            "out": str(out),
            "metadata": {"kind": "cam", "pathologies": PATHOLOGIES},
        },
        workers=workers,
    )
    return time.perf_counter() - started


def speed(arguments: argparse.Namespace, scratch: Path) -> None:
    cores = bare.CORES
    files = max(2 * cores, arguments.images // 64)
    paths = bare.write_images(scratch / "images", 64 * files, arguments.size, 64)
    model = write_classifier(scratch / "classifier", arguments.architecture)
    batches = max(2, 64 * files // cores // BATCH // arguments.rounds)
    forward = (partial(classifier.build, arguments.architecture), "chexpert", arguments.size, BATCH)
    rates: dict[str, list[float]] = {
        "streamed": [],
        "bare, as many processes": [],
        "bare, one process": [],
    }
    starts = []
    for number in range(arguments.rounds):
        rates["bare, as many processes"].append(
            bare.forward_rate(*forward, batches, processes=cores)
        )
        starts.append(
            stage(
                paths,
                model,
                arguments.architecture,
                scratch / f"nothing {number}",
                cores,
                empty=True,
            )
        )
        seconds = stage(paths, model, arguments.architecture, scratch / f"maps {number}", cores)
        rates["streamed"].append(64 * files / (seconds - starts[-1]))
        rates["bare, one process"].append(
            bare.forward_rate(*forward, batches * cores, threads=cores)
        )
    print(
        f"{arguments.architecture}, {64 * files} images of {arguments.size} x {arguments.size}, "
        f"{cores} cores"
    )
    bare.print_rates(rates, dict.fromkeys(list(rates)[1:], "streamed"))
    print(f"starting the workers took {np.median(starts):.1f} s")


def memory_of(count: int, size: int, rows_a_file: int) -> None:
    """Run one pass with a separate Ray; print the images, the seconds and the peak in MiB."""
    with tempfile.TemporaryDirectory(prefix="cxb-", dir="/tmp") as scratch, bare.own_ray():
        paths = bare.write_images(Path(scratch) / "images", count, size, rows_a_file)
        model = write_classifier(Path(scratch) / "classifier", "mobilenet_v2")
        before = bare.held_bytes()
        with bare.Peak(bare.held_bytes) as peak:
            seconds = stage(paths, model, "mobilenet_v2", Path(scratch) / "maps", bare.CORES)
        print(f"{count:>8}{rows_a_file:>14}{seconds:>10.0f}{(peak.value - before) / 2**20:>14.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=512, help="for the speed (default: 512)")
    parser.add_argument(
        "--size", type=int, default=320, help="pixels of the square images' side (default: 320)"
    )
    parser.add_argument("--architecture", default="densenet121")
    parser.add_argument(
        "--rounds", type=int, default=2, help="turns that the sides take (default: 2)"
    )
    parser.add_argument(
        "--memory",
        action="store_true",
        help="measure memory instead: 1,000 and 20,000 images (minutes)",
    )
    parser.add_argument("--memory-of", type=int, nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        memory_of(*arguments.memory_of)
    elif arguments.memory:
        print(f"{'images':>8}{'rows a file':>14}{'seconds':>10}{'peak, MiB':>14}", flush=True)
        # Rows per file as `ingest` writes them for 1,000 and for more than 16,384 images; the
        # larger ones for both.
        for count, rows_a_file in ((1000, 64), (1000, 1024), (20000, 1024)):
            command = [sys.executable, __file__, "--memory-of", str(count), "96", str(rows_a_file)]
            subprocess.run(command, check=True)
    else:
        with tempfile.TemporaryDirectory(prefix="cxb-", dir="/tmp") as scratch, bare.own_ray():
            speed(arguments, Path(scratch))


if __name__ == "__main__":
    main()
