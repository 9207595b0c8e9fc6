"""The interface of a stage, and the settings that decide how it runs but not what it computes.

This module does not import PyTorch, so planning a study doesn't either.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import nn


class StageModule(Protocol):
    """The functions that a stage's module defines; `chexseg.stages.registry` lists the modules."""

    def run(
        self, config: Any, inputs: Mapping[str, Any], out: Path, context: StageContext
    ) -> Mapping[str, Any]:
        """Write the stage's files into the directory `out` and return facts for its manifest.

        `inputs` maps roles to the directories of finished results, and `data` to the data root (a
        `Location`). Facts are figures that a reader may want without opening a shard.
        """

    def build(self, config: Any) -> nn.Module:
        """Return the untrained network; defined only by stages whose entry sets `has_network`."""


#: The share of a GPU for a worker of several: no two fit on one GPU, and a stage's own share does.
GPU_OF_ITS_OWN = 0.51


def no_progress(done: int, total: int, unit: str, note: dict[str, Any] | None = None) -> None:
    """Ignore a progress report."""


def say_nothing(line: str) -> None:
    """Ignore a line."""


@dataclass(frozen=True)
class StageContext:
    """Device, workers and other resources of a stage run. None of these fields is part of a key.

    Results are the same bits on the same machine with the same context. Two fields affect the last
    bits: `threads` changes the order of sums, and a set larger than `resident_bytes` is shuffled
    through a buffer instead of as a whole.

    device: where networks run.
    threads: PyTorch threads on a CPU.
    map_workers, map_gpus: Ray Data actors for stages that map over shards, and the GPU share of
        each. A single worker is the stage's own process.
    train_failures: how many times Ray Train may restart training after a worker dies; None trains
        in this process.
    train_workers: workers that share each batch of a training; each gets `threads`, and of a GPU
        `map_gpus`, or `GPU_OF_ITS_OWN` if that is more.
    single_node: inputs and output are on this host only, so every worker must run on its node.
    decode_workers: actors that decode images.
    resident_bytes: larger sets are streamed on every pass instead of kept on the device; None for
        the default of `resident_budget`.
    checkpoint_seconds: minimum seconds between two saved training states.
    graphs: let a GPU replay training steps as CUDA graphs.
    progress: called with done, total, their unit, and figures worth showing.
    say: called with a line that is worth showing once.
    title: name of this run in Ray Train's views; empty for a default.
    """

    device: str = "cpu"
    threads: int = 1
    map_workers: int = 1
    map_gpus: float = 0
    train_failures: int | None = None
    train_workers: int = 1
    single_node: bool = False
    decode_workers: int = 1
    resident_bytes: int | None = None
    checkpoint_seconds: float = 60
    graphs: bool = True
    progress: Callable[..., None] = no_progress
    say: Callable[[str], None] = say_nothing
    title: str = ""

    def prepare(self) -> None:
        """Set PyTorch's thread count and make cuDNN deterministic, with TF32 for inference."""
        import torch

        torch.set_num_threads(self.threads)
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = True

    def resident_budget(self) -> int:
        """Return the bytes that a resident set may take.

        By default 4 GiB on a CPU, or two fifths of this worker's share of its GPU.
        """
        if self.resident_bytes is not None:
            return self.resident_bytes
        if self.device == "cpu":
            return 4 * 2**30
        import torch

        return int(
            0.4
            * min(1, self.map_gpus or 1)
            * torch.cuda.get_device_properties(self.device).total_memory
        )

    def gpu_name(self) -> str | None:
        """Return the model of the GPU on which this process has computed; None without one.

        Several workers of a training have one each: "2 x NVIDIA H100 80GB HBM3".
        """
        torch = sys.modules.get("torch")  # a stage that has used a GPU has imported it
        if self.device == "cpu" or torch is None or not torch.cuda.is_available():
            return None
        name = str(torch.cuda.get_device_name(self.device))
        return name if self.train_workers == 1 else f"{self.train_workers} x {name}"

    def inference_batch(self, on_cpu: int) -> int:
        """Return the images of a batch of inference: 64 on a GPU, on a CPU those given.

        On a CPU larger batches aren't faster, and their sums may have other last bits.
        """
        return on_cpu if self.device == "cpu" else 64

    def for_worker(self) -> StageContext:
        """Return the context for an actor of `map_files`: one CPU, and no progress reports."""
        return replace(self, threads=1, progress=no_progress, say=say_nothing)
