"""Capture a step as a CUDA graph and time it; on a CPU a fake graph runs the step again."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch

Step = Callable[[], object]


class FakeGraph:
    """Stand in for `torch.cuda.CUDAGraph`: captures without running, replays by running again."""

    def __init__(self) -> None:
        self.generators: list[torch.Generator] = []
        self.step: Step | None = None
        self.capturing = False

    def register_generator_state(self, generator: torch.Generator) -> None:
        """Take note of a generator; raises RuntimeError while capturing, as the real one does."""
        if self.capturing:
            raise RuntimeError("generators are registered before the capture")
        self.generators.append(generator)

    @contextmanager
    def capture(self) -> Iterator[FakeGraph]:
        """Begin and end a capture; the step that is recorded is set on the graph."""
        self.capturing = True
        yield self
        self.capturing = False

    def replay(self) -> None:
        """Run the recorded step. Raises RuntimeError where none was captured."""
        if self.step is None or self.capturing:
            raise RuntimeError("nothing was captured")
        self.step()


class CapturedStep:
    """A step recorded once and replayed from then on; `warm_up` runs of it come first.

    stream: it is captured on this stream, and `replay` uses the current one. Graphs that are
    replayed at the same time need streams of their own: cuBLAS keeps a workspace a stream.
    """

    def __init__(
        self,
        step: Step,
        device: torch.device,
        *,
        stream: torch.cuda.Stream | None = None,
        generators: Sequence[torch.Generator] = (),
        warm_up: int = 3,
    ):
        self.step = step  # a graph doesn't keep the tensors that it works on
        if device.type == "cpu":
            step()
            self.graph = FakeGraph()
        else:
            self._warm_up(step, device, stream := stream or torch.cuda.Stream(device), warm_up)
            self.graph = torch.cuda.CUDAGraph()
        for generator in generators:
            self.graph.register_generator_state(generator)
        with self._recording(stream):
            if device.type == "cpu":
                self.graph.step = step
            else:
                step()

    @staticmethod
    def _warm_up(step: Step, device: torch.device, stream: torch.cuda.Stream, count: int) -> None:
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(count):
                step()
        torch.cuda.current_stream(device).wait_stream(stream)
        torch.cuda.synchronize(device)

    def _recording(self, stream: torch.cuda.Stream | None) -> AbstractContextManager:
        if isinstance(self.graph, FakeGraph):
            return self.graph.capture()
        return torch.cuda.graph(self.graph, stream=stream)

    def replay(self) -> None:
        """Run the step once more, asynchronously on a GPU."""
        self.graph.replay()


def wait(device: torch.device) -> None:
    """Return when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def milliseconds(step: Step, device: torch.device, count: int = 60, warm_up: int = 10) -> float:
    """Return the time of one step: the median of three groups of `count` / 3 steps each."""
    if device.type == "cpu":
        count, warm_up = 3, 0
    for _ in range(warm_up):
        step()
    wait(device)
    groups = [_group(step, device, count // 3) for _ in range(3)]
    return statistics.median(groups)


def _group(step: Step, device: torch.device, count: int) -> float:
    if device.type == "cpu":
        started = time.perf_counter()
        for _ in range(count):
            step()
        return 1e3 * (time.perf_counter() - started) / count
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(count):
        step()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / count


def memory(device: torch.device) -> str:
    """Return the device memory in use by all processes, as a text; empty on a CPU."""
    if device.type == "cpu":
        return ""
    free, total = torch.cuda.mem_get_info(device)
    return f"{(total - free) / 2**30:.1f} GiB in use"
