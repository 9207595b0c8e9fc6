"""Benchmark a cell's first optimiser step on a warm worker, and the first cell of a cold one.

    python benchmarks/first_step.py [--batch-size N] [--size PX]

One Ray actor with one thread runs cell after cell. Each is a `fit` of three steps with another p,
like a study's trials. There are 147 expert images to train on, 40 to choose the epoch on, and 100
weak images, all on disk as shards. The first cell starts the actor's process and streams its
shards; the others find both. A cell's time is from the call to the end of its first step. The third
column is the time of its third step alone, which no way of loading can save.

The radiographs are phantom ones and the weak maps are noise, which doesn't change their cost.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

import bare
import numpy as np
import ray

from chexseg.data import radiographs, shards
from chexseg.pathologies import PATHOLOGIES
from chexseg.phantom import dataset
from chexseg.stages import fit, ingest
from chexseg.stages.api import StageContext
from chexseg.stages.configs import FitConfig, IngestConfig

EXPERT = {"expert_train": 147, "expert_select": 40}
WEAK_IMAGES, STEPS = 100, 3


@ray.remote(num_cpus=1)
class Worker:
    """Stand in for a reused actor of Tune: a process that outlives a cell."""

    def run(
        self, config: FitConfig, inputs: Mapping[str, Path], out: Path, called: float
    ) -> list[float]:
        """Return the seconds from the call to the end of each step."""
        ends: list[float] = []
        # The machine's clock is comparable with the driver's time of the call.
        context = StageContext(
            threads=1, progress=lambda *_: ends.append(time.monotonic() - called)
        )
        out.mkdir()
        fit.run(config, inputs, out, context)
        return ends


def write_inputs(scratch: Path, size: int) -> dict[str, Path]:
    """Write phantom images with expert masks, and weak maps of the training ones."""
    # Over half of the phantom's validation images have masks.
    dataset.write(
        scratch / "data", dataset.Config(train=2 * WEAK_IMAGES, valid=400, test=0, size=size)
    )
    inputs = {}
    for split in ("train", "valid"):
        inputs[split] = scratch / split
        inputs[split].mkdir()
        config = IngestConfig(split=split, size=size)
        ingest.run(
            config,
            {"data": scratch / "data"},
            inputs[split],
            StageContext(decode_workers=bare.CORES),
        )
    table = radiographs.index(inputs["train"])
    ids = sorted(table["image_id"][table["frontal"]])
    scores_NKhw = (
        np.random.default_rng(0).random((len(ids), len(PATHOLOGIES), 10, 10)).astype(np.float16)
    )
    inputs["weak"] = scratch / "weak"
    (inputs["weak"] / "train").mkdir(parents=True)
    metadata = {
        "kind": "cam",
        "pathologies": PATHOLOGIES,
        "negatives_empty": True,
        "thresholds": dict.fromkeys(PATHOLOGIES, 0.5),
    }
    shards.write(
        inputs["weak"] / "train" / shards.part_name(0),
        shards.table({"image_id": ids}, {"scores": scores_NKhw}, **metadata),
    )
    return inputs


def measure(arguments: argparse.Namespace, scratch: Path) -> None:
    inputs = write_inputs(scratch, arguments.size)
    worker = Worker.remote()
    print(
        f"first step of a cell: batch of {arguments.batch_size} at {arguments.size} x "
        f"{arguments.size}, one thread"
    )
    print(f"{'':<28}{'s to the first step':>20}{'of which before it':>20}{'its third step':>16}")
    for number, p in enumerate((0.2, 0.4, 0.6, 0.8)):
        config = FitConfig(
            **EXPERT,
            init="random",
            p=p,
            weak="cam",
            weak_images=WEAK_IMAGES,
            epochs=1,
            batch_size=arguments.batch_size,
            samples_per_epoch=STEPS * arguments.batch_size,
        )
        first, second, third = ray.get(
            worker.run.remote(config, inputs, scratch / f"cell {number}", time.monotonic())
        )[:STEPS]
        name = f"warm worker, p = {p}" if number else f"cold worker, p = {p}"
        print(
            f"{name:<28}{first:>20.2f}{first - (third - second):>20.2f}{third - second:>16.2f}",
            flush=True,
        )


if __name__ == "__main__":
    bare.run(measure, __doc__, batch_size=(8, "samples a step"), size=bare.SIZE)
