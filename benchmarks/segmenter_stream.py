"""Benchmark the stages `distil` and `score` against the segmenter's bare forward pass.

    python benchmarks/segmenter_stream.py [--images N] [--size PX]

Distil: a teacher's workers on Ray Data, each with one thread, read shards, compute stride-4 logits
and write float16 shards. The reference has the same number of processes, which pass one batch in
memory through the network as far as the stage does, so without the last upsampling. The stage is
timed from when each worker could have finished its first file; starting them is reported
separately.

Score: the whole stage in one process with one thread, from its call to its end, reads images and
masks, counts predictions and writes. The reference is full forward passes in one process with one
thread. Its test set is a phantom one. The network's weights are random, with thresholds that a
twentieth of its pixels pass: the raggedness of a mask decides the cost of its run lengths.

The sides take turns. DeepLabV3+ on ResNet18, batches of 16 as in the stages.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter
from typing import Any

import bare
import numpy as np
import torch

from chexseg.data import radiographs
from chexseg.models import encoders, segmenter
from chexseg.pathologies import PATHOLOGIES
from chexseg.phantom import dataset
from chexseg.stages import distil, ingest, score
from chexseg.stages.api import StageContext
from chexseg.stages.artifacts import SEGMENTER_WEIGHTS
from chexseg.stages.configs import DistilConfig, IngestConfig, ScoreConfig

ARCHITECTURE, INIT, BATCH = "resnet18", "chexpert", 16
EXECUTION = StageContext(threads=1)


class Stride4(torch.nn.Module):
    """Run the segmenter without its last upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.model = build()

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        return segmenter.stride4_logits(self.model, images_NCHW)


def build() -> Any:
    return segmenter.build(ARCHITECTURE, len(PATHOLOGIES))


def write_segmenter(directory: Path, images_NHW: torch.Tensor) -> Path:
    """Write a segmenter as `fit` does: random weights, thresholds that 5% of the pixels pass."""
    directory.mkdir()
    torch.manual_seed(0)
    model = build().eval()
    with torch.inference_mode():
        logits_NKhw = segmenter.stride4_logits(model, encoders.prepare(images_NHW, INIT))
    thresholds = logits_NKhw.transpose(0, 1).flatten(1).sigmoid().quantile(0.95, dim=1).tolist()
    metadata = {
        "architecture": ARCHITECTURE,
        "init": INIT,
        "size": images_NHW.shape[-1],
        "pathologies": PATHOLOGIES,
    }
    encoders.save(model, directory / SEGMENTER_WEIGHTS, **metadata, thresholds=thresholds)
    return directory


def distilled(train: Path, teacher: Path, out: Path) -> bare.LossMonitor:
    """Return what was observed of the stage's progress over all images."""
    out.mkdir()
    watch = bare.LossMonitor()
    context = StageContext(threads=1, map_workers=bare.CORES, progress=watch)
    distil.run(DistilConfig(fraction=1), {"train": train, "teacher": teacher}, out, context)
    return watch


def score_seconds(test: Path, model: Path, out: Path) -> float:
    out.mkdir()
    started = perf_counter()
    score.run(ScoreConfig(), {"test": test, "segmenter": model}, out, EXECUTION)
    return perf_counter() - started


def measure(arguments: argparse.Namespace, scratch: Path) -> None:
    processes, size = bare.CORES, arguments.size
    files = max(2 * processes, arguments.images // 64)
    images = 64 * files
    bare.write_images(scratch / "train" / "images", images, size, 64)
    dataset.write(
        scratch / "phantom", dataset.Config(train=0, valid=0, test=arguments.test_images, size=size)
    )
    test = scratch / "test"
    test.mkdir()
    given = {"data": scratch / "phantom"}
    ingest.run(
        IngestConfig(split="test", size=size), given, test, StageContext(decode_workers=processes)
    )
    model = write_segmenter(
        scratch / "segmenter", radiographs.pixels(test, radiographs.ids(test / "images")[:BATCH])
    )

    side_by_side, alone = f"forward to stride 4, {processes} processes", "forward, 1 process"
    rates: dict[str, list[float]] = {"distil": [], side_by_side: [], "score": [], alone: []}
    starts = []
    few, many = (max(2, count // BATCH) for count in (arguments.test_images, images // processes))
    score_seconds(
        test, model, scratch / "unmeasured score"
    )  # a warm worker has opened its first stream long before
    for number in range(arguments.rounds):
        rates[side_by_side].append(
            bare.forward_rate(Stride4, INIT, size, BATCH, many, processes=processes)
        )
        watch = distilled(scratch / "train", model, scratch / f"logits {number}")
        rates["distil"].append(watch.rate(processes))
        starts.append(watch.start(processes))
        rates[alone].append(bare.forward_rate(build, INIT, size, BATCH, few))
        rates["score"].append(
            arguments.test_images / score_seconds(test, model, scratch / f"scores {number}")
        )
    print(
        f"DeepLabV3+ {ARCHITECTURE} at {size} x {size}: {images} images distilled, "
        f"{arguments.test_images} scored"
    )
    bare.print_rates(rates, {side_by_side: "distil", alone: "score"})
    print(
        f"starting distil's {processes} workers took {np.median(starts):.1f} s, which isn't counted"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    bare.run(
        measure,
        __doc__,
        images=(2048, "that are distilled"),
        test_images=(256, "that are scored"),
        size=bare.SIZE,
        rounds=(3, "turns that the sides take"),
    )
