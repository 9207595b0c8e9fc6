"""A training step that a GPU replays as one CUDA graph.

Launching a step's kernels one by one from Python takes longer than running them. A graph is
launched as a whole. Source: PyTorch, "CUDA semantics", section "CUDA Graphs".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

Batch = Mapping[str, Tensor]

#: Steps that run eagerly before the capture, as PyTorch's documentation demands. The optimizer
#: makes its state in them, cuDNN chooses its algorithms, and torch.compile compiles.
WARM_UP = 3


class Graphs(Protocol):
    """The interface of CUDA graphs; tests put a fake in its place."""

    def warm_up(self, step: Callable[[], Tensor]) -> Tensor:
        """Run a step eagerly, where and how captures run, and return its result."""

    def capture(self, step: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """Return (replay, the result of each replay in the same memory). The step isn't run."""

    def recover(self) -> None:
        """Make eager steps possible again after a failed capture."""


class CudaGraphs:
    """`Graphs` on the current device. Warm-up and capture have a stream of their own."""

    def __init__(self, device: torch.device | str):
        self.device = torch.device(device)
        self.stream = torch.cuda.Stream(self.device)

    def warm_up(self, step: Callable[[], Tensor]) -> Tensor:
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            result = step()
        current.wait_stream(self.stream)
        result.record_stream(current)
        return result

    def capture(self, step: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        graph = torch.cuda.CUDAGraph()
        # Other threads may pin memory for the next batches meanwhile.
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            result = step()
        return graph.replay, result

    def recover(self) -> None:
        # The default generator would otherwise stay in the state of a capture.
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        fresh = torch.Generator(self.device).manual_seed(generator.initial_seed())
        generator.graphsafe_set_state(fresh.graphsafe_get_state())


class CapturedStep:
    """Calls a training step: eagerly at first, then captured and replayed.

    Every call is one step of the training, those before the capture too; a capture runs nothing.
    The result of a call is overwritten by the next one. Batches must have the same names, shapes
    and types. A step that can't be captured runs eagerly, and `say` gets one line with the reason.

    step: a function of a batch that does everything on the device and returns one tensor. Random
        numbers must come from the device's default generator; it may be seeded between calls.
    optimizer: its learning rates may change between calls, its other settings may not.
    """

    def __init__(
        self,
        step: Callable[[Batch], Tensor],
        optimizer: torch.optim.Optimizer,
        graphs: Graphs,
        say: Callable[[str], None],
    ):
        self.step, self.optimizer, self.graphs, self.say = step, optimizer, graphs, say
        self._calls = 0
        self._replay: Callable[[], None] | None = None
        self._failed = False
        self._inputs: dict[str, Tensor] = {}
        self._rates: list[Tensor] = []

    def __call__(self, batch: Batch) -> Tensor:
        """Train on a batch on the device, and return the step's result."""
        self._calls += 1
        if self._failed:
            return self.step(batch)
        if self._calls <= WARM_UP:
            return self.graphs.warm_up(lambda: self.step(batch))
        if self._replay is None:
            self._capture(batch)
            if self._replay is None:
                return self.step(batch)
        self._set_inputs(batch)
        self._replay()
        return self._result

    def _capture(self, batch: Batch) -> None:
        self._inputs = {name: values.clone() for name, values in batch.items()}
        device = next(iter(self._inputs.values())).device
        self._rates = [
            torch.tensor(float(group["lr"]), device=device) for group in self.optimizer.param_groups
        ]
        try:
            with self._capturable_optimizer():
                self._replay, self._result = self.graphs.capture(lambda: self.step(self._inputs))
        except Exception as error:
            self._failed, self._inputs = True, {}
            self.graphs.recover()
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self.say(f"training steps run one kernel at a time: no CUDA graph ({reason})")

    @contextmanager
    def _capturable_optimizer(self) -> Iterator[None]:
        """Let the graph read the learning rates from the device.

        Outside captures the optimizer keeps its numbers, so schedules and saved states need not
        know about graphs.
        """
        groups = self.optimizer.param_groups
        kept: list[dict[str, Any]] = [
            {name: group[name] for name in ("lr", "capturable") if name in group}
            for group in groups
        ]
        for group, rate in zip(groups, self._rates, strict=True):
            group["lr"] = rate
            if "capturable" in group:
                group["capturable"] = True
        try:
            yield
        finally:
            for group, values in zip(groups, kept, strict=True):
                group.update(values)

    def _set_inputs(self, batch: Batch) -> None:
        layouts = (
            {name: (values.shape, values.dtype) for name, values in tensors.items()}
            for tensors in (self._inputs, batch)
        )
        captured, given = layouts
        if captured != given:
            raise ValueError(f"found a batch of {given}; expected {captured}, as captured")
        for name, values in batch.items():
            self._inputs[name].copy_(values, non_blocking=True)
        for rate, group in zip(self._rates, self.optimizer.param_groups, strict=True):
            rate.fill_(float(group["lr"]))
