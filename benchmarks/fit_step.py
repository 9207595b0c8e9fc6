"""Benchmark a cell's training step against a bare PyTorch loop over tensors on the device.

    python benchmarks/fit_step.py [--device cuda] [--size PX] [--steps N] [--epochs N] [--all]

The cell runs `fit.optimise` on expert and weak images mixed with p = 0.5. That includes drawing
samples, normalising uint8 pixels, unpacking masks, watching the loss and reporting progress. The
bare loop has the same network, loss and optimiser on float images and boolean masks, made before.
They take turns, by default step by step.

--all measures float32, bfloat16 with channels last, and compiled, for a GPU. The last column is the
cost of a cell of Table 1 (247 images, 20 epochs, one selection per epoch). Needs no Ray.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from chexseg.data import radiographs
from chexseg.data.sampling import samplers
from chexseg.data.sampling.mixture import Mixture
from chexseg.models import encoders, losses
from chexseg.pathologies import PATHOLOGIES
from chexseg.stages import fit
from chexseg.stages.api import StageContext
from chexseg.stages.configs import FitConfig
from chexseg.stages.training import precision
from chexseg.stages.training.segmenter_data import TrainingSet

#: A cell of Table 1: training images, selection images, epochs, batch size.
IMAGES, SELECTION, EPOCHS, BATCH = 247, 40, 20, 8
KINDS = {
    "float32": {"channels_last": False},
    "float32, channels last": {"channels_last": True},
    "bfloat16, channels last": {"precision": "bfloat16"},
    "bfloat16, channels last, compiled": {"precision": "bfloat16", "compile": True},
}


def columns(count: int, size: int, device: str) -> dict[str, torch.Tensor]:
    """Return noise with masks, as cells keep them on the device."""
    masks = radiographs.pack_bits(torch.rand(count, len(PATHOLOGIES), size, size) < 0.2)
    images = torch.randint(0, 256, (count, size, size), dtype=torch.uint8)
    return {
        "images": images.to(device),
        "masks": masks.to(device),
        "rows": torch.arange(count, device=device),
    }


def training_set(size: int, steps: int, device: str) -> TrainingSet:
    expert = samplers.Resident(columns(147, size, device), 1)
    weak = samplers.Resident(columns(100, size, device), 2)
    mixture = Mixture(expert, weak, 0.5, BATCH, 3)
    select = columns(SELECTION, size, device)
    return TrainingSet(
        batches=lambda epoch: mixture.batches(epoch, steps * BATCH),
        skip=lambda epoch: None,
        ids=[str(row) for row in range(IMAGES)],
        samples=steps * BATCH,
        select=(select["images"], select["masks"]),
        thresholds=lambda: expert.once(16),
        facts=dict,
    )


class Bare:
    """Train in the simplest loop."""

    def __init__(self, config: FitConfig, size: int, device: str):
        self.config, self.device = config, torch.device(device)
        memory = torch.channels_last if config.channels_last else torch.contiguous_format
        model = fit.build(config).to(device, memory_format=memory).train()
        self.network = torch.compile(model) if config.compile else model
        self.optimizer = torch.optim.Adam(
            model.parameters(), lr=1e-3, fused=True, capturable=self.device.type == "cuda"
        )
        batch = columns(config.batch_size, size, device)
        self.images_NCHW = encoders.prepare(batch["images"], "random").contiguous(
            memory_format=memory
        )
        self.masks_NKHW = radiographs.unpack_bits(batch["masks"], (len(PATHOLOGIES), size, size))

    def seconds(self, steps: int) -> float:
        """Return the mean seconds of one step."""
        _wait(self.device)
        started = time.perf_counter()
        for _ in range(steps):
            self.step()
        _wait(self.device)
        return (time.perf_counter() - started) / steps

    def step(self) -> torch.Tensor:
        """Train on the batch again and return its loss, on the device."""
        with precision.autocast(self.config.precision, self.device):
            logits_NKHW = self.network(self.images_NCHW)
        loss = losses.class_average_dice(logits_NKHW, self.masks_NKHW)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()


class Turns:
    """Time the cell's steps through its progress, and run the bare loop after some of them."""

    def __init__(self, bare: Bare, turn: int):
        self.bare, self.turn = bare, turn
        self.cell_seconds: list[float] = []
        self.bare_seconds: list[float] = []
        self.selection_seconds: list[float] = []
        self.count, self.started = 0, 0.0

    def __call__(self, done: int, total: int, unit: str, note: dict) -> None:
        if "selection mIoU" in note:  # after an epoch
            self.selection_seconds.append(self._elapsed())
            self.count = 0
            return
        self.count += 1
        if (
            self.count > 1 and (self.count - 1) % self.turn == 0
        ):  # an epoch's first step includes its start, and isn't counted
            self.cell_seconds.append(self._elapsed() / self.turn)
            self.bare_seconds.append(self.bare.seconds(self.turn))
        if (self.count - 1) % self.turn == 0:
            _wait(self.bare.device)
            self.started = time.perf_counter()

    def _elapsed(self) -> float:
        _wait(self.bare.device)
        return time.perf_counter() - self.started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--size", type=int, default=320, help="pixels of the square images' side (default: 320)"
    )
    parser.add_argument(
        "--turn",
        type=int,
        default=1,
        help="steps a turn; on a GPU more, or each waits (default: 1)",
    )
    parser.add_argument("--turns", type=int, default=8, help="an epoch (default: 8)")
    parser.add_argument("--epochs", type=int, default=4, help="the first warms up (default: 4)")
    parser.add_argument("--all", action="store_true", help="the settings meant for a GPU too")
    arguments = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    where = (
        torch.cuda.get_device_name(arguments.device)
        if arguments.device != "cpu"
        else f"{threads} CPU cores"
    )
    print(
        f"DeepLabV3+, ResNet18, {len(PATHOLOGIES)} pathologies, {arguments.size} px, batch {BATCH}"
    )
    print(f"{where}; torch {torch.__version__}")
    print(
        f"{'':<36}{'cell, ms a step':>16}{'bare, ms':>10}{'ratio':>7}"
        f"{'images/s':>10}{'s a cell of Table 1':>21}"
    )
    for name in KINDS if arguments.all else ["float32, channels last"]:
        config = FitConfig(init="random", epochs=arguments.epochs, checkpoint="last", **KINDS[name])
        data = training_set(arguments.size, 1 + arguments.turns * arguments.turn, arguments.device)
        context = StageContext(device=arguments.device, threads=threads)
        context.prepare()
        precision.use(config.precision)
        turns = Turns(Bare(config, arguments.size, arguments.device), arguments.turn)
        with tempfile.TemporaryDirectory() as out:
            fit.optimise(
                config, fit.build(config), data, Path(out), replace(context, progress=turns)
            )
        cells, bares = turns.cell_seconds[arguments.turns :], turns.bare_seconds[arguments.turns :]
        ratio = float(np.median(np.divide(cells, bares)))
        cell, bare, selection = (
            float(np.median(values)) for values in (cells, bares, turns.selection_seconds[1:])
        )
        whole = EPOCHS * (IMAGES // BATCH * cell + selection)
        print(
            f"{name:<36}{1e3 * cell:>16.1f}{1e3 * bare:>10.1f}{ratio:>7.3f}"
            f"{BATCH / cell:>10.1f}{whole:>21.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
