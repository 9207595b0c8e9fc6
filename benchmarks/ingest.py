"""Benchmark the stage `ingest` against bare decoding and resizing of the same files.

    python benchmarks/ingest.py [--images N] [--size PX]

The stage is called as in a study: CSV file read, workers on Ray Data on all cores, shards of pixels
and labels written. The reference has the same number of processes, which decode and resize the same
files and drop the pixels. The stage is timed from when each worker could have finished its first
shard. The time before is reported separately. The sides take turns.

The files are JPEG files of CheXpert-small's size: a few dozen phantom radiographs, repeated under
many names by hard links. All are in the page cache on both sides, so no disk is measured.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import bare
import numpy as np

from chexseg.data import chexpert, images
from chexseg.phantom import dataset
from chexseg.stages import ingest
from chexseg.stages.api import StageContext
from chexseg.stages.configs import IngestConfig

FILMS = 48


def write_films(root: Path, count: int) -> None:
    """Write a training split in the published layout, with hard links to a small phantom set."""
    dataset.write(root, dataset.Config(train=FILMS, valid=0, test=0))
    table = root / dataset.FOLDER / "train.csv"
    with table.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    copied = []
    for number in range(count):
        first, *rest = rows[number % FILMS]
        path = first.replace("/patient", f"/patient{number // FILMS:04d}")
        if path != first:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            os.link(root / first, root / path)
        copied.append([path, *rest])
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *copied])


def decoding(paths: list[str], size: int) -> Callable[[], None]:
    """Prepare the work that no ingest can avoid."""

    def work() -> None:
        for path in paths:
            pixels_HW = images.decode(path)
            images.Frame(*pixels_HW.shape, size).image(pixels_HW)

    return work


def measure(arguments: argparse.Namespace, scratch: Path) -> None:
    count, size, processes = arguments.images, arguments.size, bare.CORES
    root = scratch / "data"
    write_films(root, count)
    share = chexpert.read(root, "train")["path"].tolist()[: math.ceil(count / processes)]
    stage, reference = f"ingest, {processes} workers", f"decode and resize, {processes} processes"
    rates: dict[str, list[float]] = {stage: [], reference: []}
    starts = []
    for number in range(arguments.rounds):
        rates[reference].append(
            processes * len(share) / bare.seconds(decoding, share, size, processes=processes)
        )
        out = scratch / f"shards {number}"
        out.mkdir()
        watch = bare.LossMonitor()
        context = StageContext(decode_workers=processes, progress=watch)
        ingest.run(IngestConfig(split="train", size=size), {"data": root}, out, context)
        shutil.rmtree(out)
        rates[stage].append(watch.rate(processes))
        starts.append(watch.start(processes))
    print(f"{count} JPEG files with a short side of 320 pixels, to {size} x {size}")
    bare.print_rates(rates, {reference: stage})
    print(
        f"reading the CSV file and starting the workers took {np.median(starts):.1f} s, which "
        "isn't counted"
    )


if __name__ == "__main__":
    bare.run(
        measure,
        __doc__,
        images=(32768, "names of files"),
        size=bare.SIZE,
        rounds=(3, "turns that the sides take"),
    )
