"""Run the tasks of one part in this process and append what happens to a file of JSON lines."""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Context:
    """The device and the sizes of a part; `dry` means tiny sizes on the CPU.

    work: a directory for what several parts need.
    """

    dry: bool
    work: Path

    @property
    def device(self) -> torch.device:
        """Return the device that everything runs on."""
        return torch.device("cpu" if self.dry else "cuda")

    @property
    def size(self) -> int:
        """Return the pixels of the square images' side."""
        return 32 if self.dry else 320

    @property
    def threads(self) -> int:
        """Return PyTorch's threads: the machine of a dry run is shared."""
        return 1 if self.dry else max(1, min(8, len(os.sched_getaffinity(0)) // 2))

    def batch(self, images: int) -> int:
        """Return the batch size to use in place of `images`."""
        return 4 if self.dry else images


class Events:
    """The file that the driver reads; a line is there as a whole once it is written."""

    def __init__(self, path: Path):
        self.path = path

    def write(self, kind: str, task: str, **values: Any) -> None:
        """Append an event."""
        with self.path.open("a") as file:
            file.write(json.dumps({"kind": kind, "task": task, **values}) + "\n")


def main() -> int:
    """Run what is left of a part; return 1 after a failure, for a new process must go on then."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part")
    parser.add_argument("--events", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--deadline", type=float, required=True)
    parser.add_argument("--finished", type=json.loads, default=[])
    parser.add_argument("--dry", action="store_true")
    arguments = parser.parse_args()
    context, events = Context(arguments.dry, arguments.work), Events(arguments.events)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended then
    if context.dry:
        from gpu.graphs import use_fake

        use_fake()
    torch.set_num_threads(context.threads)
    for task in importlib.import_module(f"gpu.{arguments.part}").tasks(context):
        if task.name in arguments.finished:
            continue
        left = arguments.deadline - time.time()
        if left < task.seconds and not arguments.dry:
            why = f"takes about {task.seconds:.0f} s, {left:.0f} s are left"
            events.write("skip", task.name, error=why)
            continue
        events.write("start", task.name, limit=task.most_seconds * (9 if context.dry else 1))
        started = time.time()
        try:
            for row in task.run():
                events.write("row", task.name, row=row.as_json())
        except Exception as error:
            traceback.print_exc()
            text = (str(error).strip().splitlines() or [""])[0]
            events.write("failure", task.name, error=f"{type(error).__name__}: {text}"[:300])
            return 1  # a failed capture or a CUDA error leaves the process unusable
        print(f"{task.name}: {time.time() - started:.1f} s of {task.seconds:.0f}", flush=True)
        events.write("end", task.name)
        gc.collect()
        if not arguments.dry:
            torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
