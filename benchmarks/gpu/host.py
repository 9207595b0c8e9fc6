"""Part: what the host's cores deliver: phantom radiographs, decoded JPEGs, copies to the device."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from multiprocessing import get_context
from typing import Any

import numpy as np

from gpu.rows import Row, Task
from gpu.worker import Context

CORES = len(os.sched_getaffinity(0))


def tasks(context: Context) -> list[Task]:
    """Return the part's tasks."""
    return [
        Task("phantom and JPEG", partial(images, context), 20, 60),
        Task("copies to the device", partial(copies, context), 3),
        Task("JPEG on the device", partial(decoded_on_device, context), 3),
    ]


def drawn(film: Any, size: int) -> bytes:
    """Return a phantom radiograph as a JPEG, its masks packed on the way."""
    from PIL import Image

    from chexseg.phantom import dataset

    pixels_HW, masks = dataset.draw(film, size)
    for mask_HW in masks.values():
        np.packbits(mask_HW)
    file = io.BytesIO()
    Image.fromarray(pixels_HW).save(file, "JPEG", quality=90)
    return file.getvalue()


def decoded(jpeg: bytes) -> int:
    """Decode a JPEG with Pillow and return how many pixels it has."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("L")).size


def images(context: Context) -> Iterator[Row]:
    """Measure drawing and decoding on all cores, with one thread each, and decoding on one."""
    from chexseg.phantom import dataset

    count = 8 if context.dry else 100 * CORES
    films = list(islice(dataset.films("train", 3), count))
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    jpegs: list[bytes] = []
    with ProcessPoolExecutor(CORES, get_context("spawn")) as pool:
        draw = partial(drawn, size=context.size)
        list(pool.map(draw, films[:1] * 4 * CORES))  # starts the processes
        seconds = timed(pool, draw, films, jpegs)
        goal = "400 images/s on 16 cores"
        size = f"{context.size} px"
        yield Row(f"phantom, {CORES} cores", size, None, count / seconds, "images/s", "", goal)
        many = jpegs * (1 if context.dry else 8)
        seconds = timed(pool, decoded, many, [])
        rate = len(many) / seconds
        yield Row(f"JPEG by Pillow, {CORES} cores", size, None, rate, "images/s", "pipes included")
    started = time.perf_counter()
    for jpeg in jpegs[:200]:
        decoded(jpeg)
    rate = len(jpegs[:200]) / (time.perf_counter() - started)
    yield Row("JPEG by Pillow, one core", f"{context.size} px", None, rate, "images/s")


def timed(pool: ProcessPoolExecutor, work: Callable, inputs: Sequence, results: list) -> float:
    """Return the seconds that the pool takes; the results are appended to `results`."""
    started = time.perf_counter()
    results += pool.map(work, inputs, chunksize=max(1, len(inputs) // (16 * CORES)))
    return time.perf_counter() - started


def copies(context: Context) -> Iterator[Row]:
    """Measure copies of uint8 batches to the device, from pinned and from plain memory."""
    import torch

    from gpu.graphs import milliseconds

    for batch in (16, 64, 512):
        batch = context.batch(batch)
        shape = (batch, context.size, context.size)
        target = torch.empty(shape, dtype=torch.uint8, device=context.device)
        for pinned in (True, False):
            source = torch.randint(0, 256, shape, dtype=torch.uint8)
            if pinned and not context.dry:
                source = source.pin_memory()

            def copy(source=source, target=target) -> None:
                target.copy_(source, non_blocking=True)

            ms = milliseconds(copy, context.device)
            setting = f"batch {batch}, {'pinned' if pinned else 'pageable'}"
            more = f"{source.numel() / ms / 1e6:.1f} GB/s"
            yield Row("copy to the device, uint8", setting, ms, 1e3 * batch / ms, "images/s", more)


def decoded_on_device(context: Context) -> Iterator[Row]:
    """Measure torchvision's nvJPEG, which some builds have."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    from chexseg.phantom import dataset
    from gpu.graphs import milliseconds

    films = islice(dataset.films("train", 3), context.batch(16))
    jpegs = [bytearray(drawn(film, context.size)) for film in films]
    files = [torch.frombuffer(jpeg, dtype=torch.uint8) for jpeg in jpegs]
    files *= 1 if context.dry else 4
    mode, device = ImageReadMode.UNCHANGED, context.device
    ms = milliseconds(lambda: decode_jpeg(files, mode=mode, device=device), device, count=21)
    rate = 1e3 * len(files) / ms
    yield Row("JPEG by torchvision", f"on {device}, batch {len(files)}", ms, rate, "images/s")
