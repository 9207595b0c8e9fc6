"""The training loop of all stages: what a stage adds is a network, batches and their losses.

The loop resumes a training, seeds its steps, checks every loss, saves the state, and times steps.
On a GPU it replays steps as a CUDA graph (`training.captured_step`), and nothing in a step makes
the host wait: batches are copied asynchronously, and figures are read one step late.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from chexseg.data.transfer import to_device
from chexseg.models import distributed
from chexseg.stages.api import StageContext
from chexseg.stages.training import checkpoint
from chexseg.stages.training.captured_step import CapturedStep, CudaGraphs
from chexseg.stages.training.step_timer import StepTimer

#: Entries of the history of a training that has neither epochs nor checkpoints.
POINTS = 100


class StepLosses(NamedTuple):
    """The result of a network on a batch.

    loss: the scalar to minimise. figures: name -> scalar to record. after: what follows the
    optimizer's step, on the device.
    """

    loss: Tensor
    figures: Mapping[str, Tensor]
    after: Callable[[], None] | None = None


class _Unread(NamedTuple):
    """The figures of a step on their way from the GPU."""

    host: Tensor
    copied: torch.cuda.Event
    step: int
    where: Callable[[], str]


@dataclass
class Loop:
    """One training. In a process group every worker runs the same loop.

    model: its state is saved with the optimizer's. It may be wrapped by the network that `losses`
        calls.
    losses: a function of a batch on the device, in a process group of this worker's rows of it. On
        a GPU it is captured: it must neither make the host wait nor depend on the number of the
        step. What depends on it, such as random numbers drawn on the host, belongs to the batch.
    seed: step -> seed of PyTorch's default generators, or None to go on with the last one.
    record: called with each step's figures, in order. `state` is where to put them.
    report: called after each step with the step and its timing.
    steps: of the whole training; they are counted from 1.
    state: plain values that are saved too. ``step`` is the number of steps done; `resume` reads it.
    rate: step -> learning rate of the first parameter group.
    clip_norm: largest norm of the gradient of all weights together.
    ids: image ids for error messages, at the positions that a batch's ``rows`` name.
    """

    out: Path
    context: StageContext
    model: nn.Module
    optimizer: torch.optim.Optimizer
    losses: Callable[[Mapping[str, Tensor]], StepLosses]
    seed: Callable[[int], int | None]
    record: Callable[[Mapping[str, float]], None]
    report: Callable[[int, dict[str, float]], None]
    steps: int
    state: dict[str, Any]
    rate: Callable[[int], float] | None = None
    clip_norm: float | None = None
    ids: Sequence[str] = ()
    _names: tuple[str, ...] = field(default=(), init=False)
    _unread: _Unread | None = field(default=None, init=False)
    _saved_at: float = field(default_factory=time.monotonic, init=False)

    def run(self, batches: Iterator[dict[str, Tensor]], save_every: int = 1) -> Iterator[int]:
        """Train on the batches of the steps that are left; yield the number of each step done.

        A batch's tensors have one row per sample. The state is saved once `checkpoint_seconds` have
        passed, after a step whose number is a multiple of `save_every`. Call `flush` before using
        what `record` has put down. Raises FloatingPointError at the first loss that is not finite.
        """
        train, timer = self._step_function(), StepTimer()
        while self.state["step"] < self.steps:
            self.state["step"] += 1
            step: int = self.state["step"]
            # Some networks draw random numbers in training; seeds make resumed runs equal.
            if (seed := self.seed(step)) is not None:
                torch.manual_seed(seed)
            batch = timer.wait(lambda: next(batches))
            rows = batch.pop("rows", None)
            if self.rate:
                self.optimizer.param_groups[0]["lr"] = self.rate(step)
            shard = {
                name: to_device(values, self.context.device)
                for name, values in distributed.shard_batch(batch).items()
            }
            figures = train(shard)
            self._watch(distributed.mean(figures), step, self._where(step, rows))
            self.report(step, timer.finish_step())
            yield step
            due = time.monotonic() - self._saved_at > self.context.checkpoint_seconds
            if due and step % save_every == 0:
                self.save()
        self.flush()

    def save(self) -> None:
        """Save the state of the training, as it is after the last step."""
        self.flush()
        if distributed.rank() == 0:
            checkpoint.save(self.out, self.model, self.optimizer, **self.state)
        self._saved_at = time.monotonic()

    def flush(self) -> None:
        """Record the figures of all steps done. Raises as `run` does."""
        unread, self._unread = self._unread, None
        if unread is not None:
            unread.copied.synchronize()
            self._read(unread.host, unread.step, unread.where)

    def _step_function(self) -> Callable[[Mapping[str, Tensor]], Tensor]:
        on_gpu = torch.device(self.context.device).type == "cuda"
        if not on_gpu or not self.context.graphs:
            return self._train
        if distributed.workers() > 1:
            self.context.say(
                "training steps run one kernel at a time: no CUDA graph"
                f" ({distributed.workers()} workers share each batch)"
            )
            return self._train
        graphs = CudaGraphs(self.context.device)
        return CapturedStep(self._train, self.optimizer, graphs, self.context.say)

    def _train(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Take one step, and return the loss and the figures in one tensor on the device."""
        loss, figures, after = self.losses(batch)
        self._names = tuple(figures)
        values = torch.stack([value.detach() for value in (loss, *figures.values())])
        self.optimizer.zero_grad()
        loss.backward()
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        if after is not None:
            after()
        return values

    def _where(self, step: int, rows_N: Tensor | None) -> Callable[[], str]:
        """Return a function that describes a step, for an error message."""
        rate = self.optimizer.param_groups[0]["lr"]

        def where() -> str:
            images = [self.ids[row] for row in rows_N.tolist()] if rows_N is not None else []
            named = f"; images {', '.join(images)}" if images else ""
            return f"in step {step}, learning rate {rate:g}{named}"

        return where

    def _watch(self, values: Tensor, step: int, where: Callable[[], str]) -> None:
        """Read a step's figures, on a GPU those of the step before."""
        if values.device.type == "cpu":
            self._read(values, step, where)
            return
        host = torch.empty_like(values, device="cpu", pin_memory=True)
        host.copy_(values, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        self.flush()
        self._unread = _Unread(host, copied, step, where)

    def _read(self, values: Tensor, step: int, where: Callable[[], str]) -> None:
        loss, *figures = values.tolist()
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} {where()}; hint: lower the learning rate")
        self.record(dict(zip(self._names, figures, strict=True)))


def running_mean(before: float | None, value: float) -> float:
    """Return the mean over about the last twenty values; `before` is None at the first one."""
    return value if before is None else 0.95 * before + 0.05 * value
