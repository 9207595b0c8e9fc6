"""Benchmark taking batches from a streamed set against taking them from a resident one.

    python benchmarks/streamed_set.py [--images N] [--size PX] [--batches B]

The reference is a set in memory (`samplers.Resident`) of such images with a teacher's logits of ten
pathologies at stride 4, as a student has them. "Streamed, from memory" reads its passes from
arrays, so this is the cost of shuffling and reading ahead alone. "Streamed, from shards" reads them
by Ray Data as a study does (`radiograph_samplers.source`), again in each pass, from a single worker
of Ray and with the thread of this process. Nothing is done with the batches, so these are the most
images a second that training can get. Starting the stream is reported separately.

The images are those of a phantom set, repeated. Logits are noise. Batches of 16.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, thread_time

import bare
import numpy as np
import torch

from chexseg.data import shards
from chexseg.data.sampling import radiograph_samplers
from chexseg.data.sampling.samplers import Resident, Source, Streamed
from chexseg.pathologies import PATHOLOGIES
from chexseg.phantom.dataset import draw, image_specs

BATCH, DRAWN, ROWS_A_FILE = 16, 64, 1024
RESIDENT, MEMORY, SHARDS = "resident", "streamed, from memory", "streamed, from shards"


def phantom_pixels(size: int) -> np.ndarray:
    """Return pixels_NHW, uint8, of the centres of some phantom images."""
    specs = image_specs("test", 0)
    pixels = (draw(next(specs), size)[0] for _ in range(DRAWN))
    return np.stack([pixels_HW[:size, :size] for pixels_HW in pixels])


def logits_shape(size: int) -> tuple[int, int, int]:
    return len(PATHOLOGIES), -(-size // 4), -(-size // 4)


def write_shards(artifact: Path, count: int, pixels_NHW: np.ndarray) -> list[str]:
    """Write these images, repeated, and noise as logits, as the stages do; return their ids."""
    ids = [f"patient{row:06d}_study1_view1_frontal" for row in range(count)]
    for folder in ("images", "logits"):
        (artifact / folder).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number, start in enumerate(range(0, count, ROWS_A_FILE)):
        part = ids[start : start + ROWS_A_FILE]
        images_NHW = pixels_NHW[np.arange(start, start + len(part)) % len(pixels_NHW)]
        logits_NKhw = generator.standard_normal((len(part), *logits_shape(pixels_NHW.shape[1])))
        for folder, column, values in (
            ("images", "pixels", images_NHW),
            ("logits", "logits", logits_NKhw.astype(np.float16)),
        ):
            shards.write(
                artifact / folder / shards.part_name(number),
                shards.table({"image_id": part}, {column: values}),
            )
    return ids


def rates_of(source: Source, batches: int) -> tuple[float, float]:
    """Return images per second, and per second of this thread's CPU time."""
    started, cpu = perf_counter(), thread_time()
    for _ in range(batches):
        source.take(BATCH)
    images = batches * BATCH
    return images / (perf_counter() - started), images / (thread_time() - cpu)


def measure(arguments: argparse.Namespace, scratch: Path) -> None:
    pixels_NHW = phantom_pixels(arguments.size)
    ids = write_shards(scratch, arguments.images, pixels_NHW)
    logits_bytes = 2 * math.prod(logits_shape(arguments.size))
    columns = {"labels": torch.zeros(len(ids), len(PATHOLOGIES))}
    stored = {"logits": radiograph_samplers.Stored(scratch / "logits", "logits", logits_bytes)}
    rows = np.arange(2 * BATCH * 16) % len(pixels_NHW)
    few = {
        "images": pixels_NHW[rows],
        "logits": np.ones((len(rows), *logits_shape(arguments.size)), dtype=np.float16),
        "labels": np.zeros((len(rows), len(PATHOLOGIES)), dtype=np.float32),
    }

    def from_memory(number: int) -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, len(rows), 64):
            yield {name: values[start : start + 64] for name, values in few.items()}

    def from_shards(resident_bytes: int) -> Source:
        return radiograph_samplers.source(scratch, ids, columns, 0, "cpu", resident_bytes, stored)

    sources: dict[str, Source] = {
        RESIDENT: Resident({name: torch.from_numpy(values) for name, values in few.items()}, 0),
        MEMORY: Streamed(from_memory, len(rows), 0, buffer=256),
        SHARDS: from_shards(4 * 256 * (arguments.size**2 + logits_bytes)),  # a buffer of 256 rows
    }
    starts = {}
    for name, source in sources.items():
        started = perf_counter()
        source.take(BATCH)
        starts[name] = perf_counter() - started
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in sources}
    for _ in range(arguments.rounds):
        for name, source in sources.items():
            rates[name].append(rates_of(source, arguments.batches))
    print(f"{arguments.images} images of {arguments.size} x {arguments.size} with logits")
    width = max(map(len, rates)) + 2
    print(f"{'':<{width}}{'images a second':>16}{'times resident':>16}{'a CPU second':>14}")
    reference = float(np.median([wall for wall, _ in rates[RESIDENT]]))
    for name, values in rates.items():
        wall, cpu = np.median(values, axis=0)
        rounds = ", ".join(f"{value:.0f}" for value, _ in values)
        print(f"{name:<{width}}{wall:>16.0f}{wall / reference:>16.3f}{cpu:>14.0f}   of {rounds}")
    print("a CPU second: of the thread that takes the batches")
    print(f"the first batch from shards took {starts[SHARDS]:.1f} s, which isn't counted")


if __name__ == "__main__":
    torch.set_num_threads(1)
    bare.run(
        measure,
        __doc__,
        images=(4096, "of the set on disk"),
        batches=(256, "of 16 images, taken by each side in a round"),
        size=bare.SIZE,
        rounds=(3, "turns that the sides take"),
    )
