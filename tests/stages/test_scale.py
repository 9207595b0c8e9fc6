"""More pixels than the object store holds, ingested: nothing is spilled, no decoder grows with the set. All are read after."""

from __future__ import annotations

import csv
import multiprocessing
import os
import re
import shutil
import tempfile
import threading
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chexseg.data import ray_data, shards
from chexseg.phantom import dataset
from chexseg.stages import ingest
from chexseg.stages.api import StageContext
from chexseg.stages.configs import IngestConfig
from tests import processes

pytestmark = pytest.mark.slow

STORE = 80 * 2**20  # Ray's least is 75 MiB
SIZE = 320
FEW, MANY = 1000, 4000  # pixels of the many: five times the store


def repeated(films: Path, root: Path, count: int) -> Path:
    """A training split of so many names with few films behind them: hard links, so that all of them are decoded."""
    with (films / dataset.FOLDER / "train.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    copied = []
    for number in range(count):
        first, *labels = rows[number % len(rows)]
        path = first.replace("/patient", f"/patient{number // len(rows):04d}")
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        os.link(films / first, root / path)
        copied.append([path, *labels])
    with (root / dataset.FOLDER / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *copied])
    return root


def largest_worker() -> int:
    """Bytes that the largest of Ray's workers below this process has had resident so far."""
    peaks = [0]
    for worker in processes.find("ray::", among=processes.descendants(os.getpid())):
        with suppress(OSError):  # it has ended meanwhile
            status = Path(f"/proc/{worker}/status").read_text()  # psutil has no peak
            peaks.append(1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1]))
    return max(peaks)


def spilling(scratch: Path) -> dict[str, int]:
    """When a node last wrote or deleted a file in the directory that it spills objects to."""
    return {
        path.name: path.stat().st_mtime_ns
        for path in scratch.glob("session_*/ray_spilled_objects*")
    }


def alone(root: Path, out: Path, answers: Any) -> None:
    """Ingest and one pass over what came of it, in a process and a Ray of their own."""
    import ray

    scratch = tempfile.mkdtemp(prefix="cxr-", dir="/tmp")
    ray.init(
        address="local",
        num_cpus=3,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        object_store_memory=STORE,
        _temp_dir=scratch,
    )
    marks, peak, over = [spilling(Path(scratch))], 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.25):
            peak = max(peak, largest_worker())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        facts = ingest.run(
            IngestConfig(split="train", size=SIZE),
            {"data": root},
            out,
            StageContext(decode_workers=2),
        )
        largest = peak  # before readers have mapped the object store, which counts as theirs
        marks.append(spilling(Path(scratch)))
        rows = sum(
            len(batch)
            for batch in ray_data.stream(shards.files(out / "images"), ["image_id", "pixels"])
        )
        marks.append(spilling(Path(scratch)))
        too_much = [ray.put(np.zeros(STORE // 2, np.uint8)) for _ in range(3)]
        marks.append(spilling(Path(scratch)))
        del too_much
        spilled = [before != after for before, after in pairwise(marks)]
        answers.put(
            {"images": facts["images"], "rows": rows, "spilled": spilled, "largest": largest}
        )
    finally:
        over.set()
        thread.join()
        ray.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)


@pytest.fixture(scope="module")
def found(phantom_root, tmp_path_factory) -> dict[int, dict[str, Any]]:
    """What `alone` has found, by number of images."""
    spawn, out = multiprocessing.get_context("spawn"), {}
    for count in (FEW, MANY):
        scratch = tmp_path_factory.mktemp(str(count))
        answers = spawn.Queue()
        process = spawn.Process(
            target=alone,
            args=(repeated(phantom_root, scratch / "data", count), scratch / "out", answers),
        )
        process.start()
        process.join()
        assert process.exitcode == 0
        out[count] = answers.get()
        shutil.rmtree(scratch)
    return out


def test_every_image_is_ingested_and_read(found):
    assert {count: (about["images"], about["rows"]) for count, about in found.items()} == {
        n: (n, n) for n in (FEW, MANY)
    }


def test_nothing_is_spilled_until_more_is_kept_than_there_is_room_for(found):
    # Ray lets go of what was read within a second or so; until then a fast reader or a loaded machine may fill the store.
    for about in found.values():
        ingested, _, overfilled = about["spilled"]
        assert (ingested, overfilled) == (False, True)


def test_no_decoder_holds_a_tenth_of_the_pixels_that_are_more(found):
    assert found[MANY]["largest"] - found[FEW]["largest"] < (MANY - FEW) * SIZE * SIZE / 10
