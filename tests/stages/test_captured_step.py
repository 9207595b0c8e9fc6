"""Captured training steps, on a CPU with a fake of CUDA graphs and on a GPU where there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from chexseg.stages.training.captured_step import WARM_UP, CapturedStep, CudaGraphs


class FakeGraphs:
    """Record a step like a graph: arguments and settings as they were, results in one place.

    `fails` makes the next capture raise. `log` has what was called.
    """

    def __init__(self, fails: str = ""):
        self.fails, self.log = fails, []

    def warm_up(self, step: Callable[[], Tensor]) -> Tensor:
        self.log.append("warm-up")
        return step()

    def capture(self, step: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        self.log.append("capture")
        if self.fails:
            raise RuntimeError(f"{self.fails}\nand more")
        captured = [dict(group) for group in OPTIMIZERS[-1].param_groups]
        result = torch.zeros(())

        def replay() -> None:
            self.log.append("replay")
            groups = OPTIMIZERS[-1].param_groups
            kept = [dict(group) for group in groups]
            for group, values in zip(groups, captured, strict=True):
                group.update(values)
            result.copy_(step())
            for group, values in zip(groups, kept, strict=True):
                group.update(values)

        return replay, result

    def recover(self) -> None:
        self.log.append("recover")


OPTIMIZERS: list[torch.optim.Optimizer] = []


class Training:
    """A small network with dropout; `step` trains on a batch."""

    def __init__(self, device: str = "cpu", kind: str = "adam"):
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1)
        ).to(device)
        if kind == "adam":
            self.optimizer: torch.optim.Optimizer = torch.optim.Adam(
                self.model.parameters(), lr=0.01, fused=True
            )
        else:
            self.optimizer = torch.optim.SGD(
                self.model.parameters(), lr=0.01, momentum=0.9, fused=True
            )
        OPTIMIZERS.append(self.optimizer)

    def step(self, batch: Any) -> Tensor:
        loss = (self.model(batch["x"])[:, 0] - batch["y"]).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def run(self, step: Callable[[Any], Tensor], steps: int, device: str = "cpu") -> list[float]:
        """Train with a seed, a batch and a learning rate of each step; return the losses."""
        values = []
        for number in range(steps):
            generator = torch.Generator().manual_seed(number)
            batch = {
                "x": torch.randn(16, 4, generator=generator).to(device),
                "y": torch.randn(16, generator=generator).to(device),
            }
            torch.manual_seed(100 + number)
            self.optimizer.param_groups[0]["lr"] = 0.01 / (1 + number)
            values.append(step(batch).item())
        return values

    def state(self) -> dict[str, Tensor]:
        return {name: value.cpu() for name, value in self.model.state_dict().items()}


@pytest.fixture(autouse=True)
def _no_optimizers():
    OPTIMIZERS.clear()


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_every_call_is_one_step_and_the_weights_are_those_of_the_eager_loop(kind):
    eager = Training(kind=kind)
    expected = eager.run(eager.step, 8)
    training, graphs, said = Training(kind=kind), FakeGraphs(), []
    step = CapturedStep(training.step, training.optimizer, graphs, said.append)
    assert training.run(step, 8) == pytest.approx(expected, rel=1e-6)
    for name, value in eager.state().items():
        torch.testing.assert_close(training.state()[name], value)
    replays = 8 - WARM_UP
    assert graphs.log == ["warm-up"] * WARM_UP + ["capture"] + ["replay"] * replays
    assert not said


def test_learning_rates_are_numbers_again_after_the_capture():
    training = Training()
    step = CapturedStep(training.step, training.optimizer, FakeGraphs(), print)
    training.run(step, 6)
    (group,) = training.optimizer.param_groups
    assert group["lr"] == 0.01 / 6 and group["capturable"] is False


def test_a_step_that_cannot_be_captured_runs_eagerly_and_says_why_once():
    eager = Training()
    expected = eager.run(eager.step, 8)
    training, graphs, said = Training(), FakeGraphs(fails="operation not permitted"), []
    step = CapturedStep(training.step, training.optimizer, graphs, said.append)
    assert training.run(step, 8) == expected
    assert all(torch.equal(value, training.state()[name]) for name, value in eager.state().items())
    assert said == [
        "training steps run one kernel at a time: no CUDA graph (operation not permitted)"
    ]
    assert graphs.log == ["warm-up"] * WARM_UP + ["capture", "recover"]
    (group,) = training.optimizer.param_groups
    assert isinstance(group["lr"], float)


def test_a_batch_of_another_shape_is_refused_rather_than_read_past_its_end():
    training = Training()
    step = CapturedStep(training.step, training.optimizer, FakeGraphs(), print)
    training.run(step, 5)
    with pytest.raises(ValueError, match=r"expected .*16, 4"):
        step({"x": torch.zeros(15, 4), "y": torch.zeros(15)})


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@needs_gpu
@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_a_gpu_ends_at_the_weights_of_the_eager_loop(kind):
    eager = Training("cuda", kind)
    expected = eager.run(eager.step, 12, "cuda")
    training, said = Training("cuda", kind), []
    graphs = CudaGraphs("cuda")
    step = CapturedStep(training.step, training.optimizer, graphs, said.append)
    assert training.run(step, 12, "cuda") == pytest.approx(expected, rel=1e-4)
    for name, value in eager.state().items():
        torch.testing.assert_close(training.state()[name], value, rtol=1e-4, atol=1e-5)
    assert not said


@needs_gpu
def test_a_gpu_goes_on_after_a_capture_that_failed():
    def waits(batch: Any) -> Tensor:
        loss = training.step(batch)
        loss.item()
        return loss

    eager = Training("cuda")
    expected = eager.run(eager.step, 12, "cuda")
    training, said = Training("cuda"), []
    step = CapturedStep(waits, training.optimizer, CudaGraphs("cuda"), said.append)
    assert training.run(step, 12, "cuda") == pytest.approx(expected, rel=1e-4)
    assert len(said) == 1
