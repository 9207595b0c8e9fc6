"""Time functions, and the steps of chexseg's stages through their progress reports."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from chexseg.stages.api import StageContext
from gpu.worker import Context

#: Groups of steps, of which the median counts.
GROUPS = 3


def wait(device: torch.device) -> None:
    """Return when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def milliseconds(
    step: Callable[[], object], device: torch.device, count: int = 60, warm_up: int = 10
) -> float:
    """Return the time of one step: the median of the groups of `count` steps in all."""
    if device.type == "cpu":
        count, warm_up = 3, 0
    for _ in range(warm_up):
        step()
    times = []
    for _ in range(GROUPS):
        wait(device)
        started = time.perf_counter()
        for _ in range(count // GROUPS):
            step()
        wait(device)
        times.append(1e3 * (time.perf_counter() - started) / (count // GROUPS))
    return statistics.median(times)


class Enough(Exception):
    """Ends a stage from its progress."""


@dataclass
class StepClock:
    """The progress of a training: times the groups of `count` steps after `skip`, then ends it."""

    device: torch.device
    skip: int
    count: int
    steps: int = 0
    times: list[float] = field(default_factory=list)

    def __call__(self, *_: object) -> None:
        """Count a step."""
        self.steps += 1
        done = self.steps - self.skip
        if done >= 0 and done % (self.count // GROUPS) == 0:
            wait(self.device)
            self.times.append(time.perf_counter())
        if done == self.count:
            raise Enough

    def ms(self) -> float:
        """Return the median over the groups of the time of a step."""
        pairs = zip(self.times, self.times[1:], strict=False)
        seconds = [after - before for before, after in pairs]
        if len(seconds) < GROUPS:
            raise RuntimeError(f"the stage ended after {self.steps} steps")
        return 1e3 * statistics.median(seconds) * GROUPS / self.count


@dataclass(frozen=True)
class SearchingContext(StageContext):
    """A context in which cuDNN tries its algorithms, rather than being deterministic."""

    def prepare(self) -> None:
        """Set PyTorch as `StageContext` does, but for cuDNN."""
        super().prepare()
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.deterministic = False


def stage_context(context: Context, search: bool = False, **options: Any) -> StageContext:
    """Return the context of a stage in this process. search: let cuDNN try its algorithms."""
    kind = SearchingContext if search else StageContext
    options = {"threads": context.threads, "checkpoint_seconds": 3600} | options
    return kind(device=context.device.type, **options)


def stage_ms(
    context: Context,
    train: Callable[..., object],
    config: Any,
    inputs: Mapping[str, Path],
    *,
    skip: int = 10,
    count: int = 0,
    **options: Any,
) -> float:
    """Return the milliseconds of a step of a stage's training.

    count: steps to time; 0 for 60 captured or 30 eager ones. options: as for `stage_context`.
    Raises RuntimeError with what the stage says if it can't capture its steps.
    """
    said: list[str] = []
    count = count or (60 if options.get("graphs", True) else 30)
    if context.dry:
        skip, count = 4, 3
    clock = StepClock(context.device, skip, count)
    stage = stage_context(context, progress=clock, say=said.append, **options)
    with tempfile.TemporaryDirectory() as out, suppress(Enough):
        train(config, inputs, Path(out), stage)
    if said:
        raise RuntimeError(said[0])
    return clock.ms()


def memory(device: torch.device) -> str:
    """Return the device memory in use by all processes, as a text; empty on a CPU."""
    if device.type == "cpu":
        return ""
    free, total = torch.cuda.mem_get_info(device)
    return f"{(total - free) / 2**30:.1f} GiB in use"
