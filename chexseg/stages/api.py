"""What all stages share: a frozen config, and how a stage is executed, which never changes its result.

A stage is a module with ``VERSION`` (raised when its results change), ``Config`` and
``run(config, inputs, out, execution) -> facts``: it writes its files into the directory `out` and returns what its manifest
should tell (figures a reader may want without opening a shard). Stage modules are imported to plan a study, so they import
torch and the models only inside `run`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict


class StageConfig(BaseModel):
    """Base of every stage's config. All of its fields are part of the artifact's key."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def no_progress(done: int, total: int, unit: str, note: dict[str, Any] | None = None) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class StageContext:
    """How and where a stage runs. None of it is in a key, and none changes a result but for its last bits.

    Two fields do touch these: another number of `threads` sums in another order, and a set above `resident_bytes` is
    shuffled through a buffer instead of as a whole. The same machine and settings give the same bits.

    device: where networks run. threads: of PyTorch on a CPU. map_workers, map_gpus: actors of Ray Data for stages that
    map over shards, and the share of a GPU each holds; a single worker is the stage's own process. train_failures:
    training of whole networks runs on workers of Ray Train, which may die so often; None for in this process.
    train_workers: how many of them share each batch of `fit`; `threads` and `map_gpus` are what each holds. here: inputs
    and output lie on this host alone, so all that the stage starts must stay on its node. decode_workers: actors that
    decode images. resident_bytes: sets up to this size are kept on the device, larger ones streamed every pass; None for
    what `resident_budget` says. checkpoint_seconds: training is saved this often, to go on after a kill. progress: called with done,
    total, their unit, and figures worth showing. title: what people call this run, in Ray Train's views; empty for what
    the stage says itself.
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
    progress: Callable[..., None] = no_progress
    title: str = ""

    def prepare(self) -> None:
        """Give PyTorch its threads, and make it deterministic where it can be."""
        import torch

        torch.set_num_threads(self.threads)
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True

    def resident_budget(self) -> int:
        """Bytes that a resident set may have: by default 4 GiB, or two fifths of this worker's share of its GPU."""
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

    def for_worker(self) -> StageContext:
        """As an actor of `streams.map_files` gets it: it holds one CPU, and tells its progress by its answers."""
        return replace(self, threads=1, progress=no_progress)
