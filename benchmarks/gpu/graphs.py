"""CUDA graphs as chexseg uses them; a dry run has a fake of them on the CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from chexseg.stages.training.captured_step import CapturedStep, CudaGraphs, Graphs
from chexseg.stages.training.loop import Loop


class FakeGraphs:
    """Stand in for `CudaGraphs` on a CPU: a replay runs the step again, on the captured batch.

    fails: the error of every capture, none if empty.
    """

    fails = ""

    def warm_up(self, step: Callable[[], Tensor]) -> Tensor:
        """Run a step."""
        self.result = step().clone()
        return self.result

    def capture(self, step: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """Return a function that runs the step, and the tensor that will have its result."""
        if self.fails:
            raise RuntimeError(self.fails)

        def replay() -> None:
            self.result.copy_(step())

        return replay, self.result

    def recover(self) -> None:
        """Do nothing: no capture has begun."""


def graphs_on(device: torch.device) -> Graphs:
    """Return graphs for a device."""
    return FakeGraphs() if device.type == "cpu" else CudaGraphs(device)


def captured(step: Callable[[], Tensor], device: torch.device) -> Callable[[], None]:
    """Return a function that replays a step, which runs three times before its capture."""
    graphs = graphs_on(device)
    for _ in range(3):
        graphs.warm_up(step)
    replay, _ = graphs.capture(step)
    return replay


def use_fake() -> None:
    """Let chexseg's training loop capture steps on the CPU with the fake."""

    def step_function(loop: Loop) -> Callable[..., Tensor]:
        if not loop.context.graphs:
            return loop._train
        return CapturedStep(loop._train, loop.optimizer, FakeGraphs(), loop.context.say)

    Loop._step_function = step_function
