"""The training loop: seeds, resuming, figures, errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from chexseg.stages.api import StageContext
from chexseg.stages.training import checkpoint
from chexseg.stages.training.loop import Loop, StepLosses, running_mean


class Training:
    """A line fitted to random points, with dropout; stops before a step if asked to."""

    def __init__(self, out: Path, steps: int = 6, **options: Any):
        torch.manual_seed(0)
        out.mkdir(exist_ok=True)
        context = options.pop("context", StageContext(checkpoint_seconds=0))
        self.model = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 1)).to(context.device)
        optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1, fused=True)
        state = checkpoint.load(out, self.model, optimizer) or {"step": 0, "losses": []}
        self.done: int = state["step"]
        self.afters = 0
        self.timings: list[dict[str, float]] = []
        self.loop = Loop(
            out,
            context,
            self.model,
            optimizer,
            self.losses,
            seed=options.pop("seed", lambda step: 10 + step),
            record=lambda figures: state["losses"].append(figures["loss"]),
            report=lambda step, timing: self.timings.append(dict(timing)),
            steps=steps,
            state=state,
            **options,
        )

    def losses(self, batch: Mapping[str, Tensor]) -> StepLosses:
        loss = (self.model(batch["x"])[:, 0] - batch["y"]).square().mean()
        return StepLosses(loss, {"loss": loss, "double": 2 * loss}, after=self.after)

    def after(self) -> None:
        self.afters += 1

    def batches(self, broken: int = 0) -> Iterator[dict[str, Tensor]]:
        for step in range(self.done + 1, self.loop.steps + 1):
            x = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
            y = x.sum(1) * (float("inf") if step == broken else 1)
            yield {"x": x, "y": y, "rows": torch.arange(4)}

    def weights(self) -> Tensor:
        return torch.cat([value.flatten() for value in self.model.parameters()]).detach()


def test_a_resumed_training_ends_at_the_same_bits_and_records_every_step_once(tmp_path):
    whole = Training(tmp_path / "whole")
    assert list(whole.loop.run(whole.batches())) == [1, 2, 3, 4, 5, 6]
    first = Training(tmp_path / "parts")
    for step in first.loop.run(first.batches()):
        if step == 4:  # killed after its third step was saved
            break
    second = Training(tmp_path / "parts")
    assert second.done == 3
    assert list(second.loop.run(second.batches())) == [4, 5, 6]
    assert torch.equal(second.weights(), whole.weights())
    assert second.loop.state == whole.loop.state
    assert len(whole.loop.state["losses"]) == whole.afters == len(whole.timings) == 6


def test_the_state_is_saved_only_after_whole_parts(tmp_path):
    training = Training(tmp_path)
    for step in training.loop.run(training.batches(), save_every=3):
        if step == 6:
            break
    assert Training(tmp_path).done == 3


def test_a_step_without_a_seed_goes_on_with_the_last_one(tmp_path):
    """Two steps with one seed draw other numbers than the same steps with a seed each."""
    one = Training(tmp_path / "one", steps=2, seed=lambda step: 11 if step == 1 else None)
    each = Training(tmp_path / "each", steps=2)
    for training in (one, each):
        list(training.loop.run(training.batches()))
    assert one.loop.state["losses"][0] == each.loop.state["losses"][0]
    assert one.loop.state["losses"][1] != each.loop.state["losses"][1]


def test_the_first_loss_that_is_not_finite_stops_the_training_and_names_its_images(tmp_path):
    training = Training(tmp_path, ids=["a", "b", "c", "d"], rate=lambda step: 0.5 / step)
    message = (
        "the loss is inf in step 3, learning rate 0.166667; images a, b, c, d;"
        " hint: lower the learning rate"
    )
    with pytest.raises(FloatingPointError) as caught:
        list(training.loop.run(training.batches(broken=3)))
    assert str(caught.value) == message
    assert len(training.loop.state["losses"]) == 2
    assert Training(tmp_path).done == 2  # the state of the last good step


def test_the_rate_of_a_step_is_set_before_it(tmp_path):
    rates = []
    training = Training(tmp_path, rate=lambda step: 1 / step)
    for _ in training.loop.run(training.batches()):
        rates.append(training.loop.optimizer.param_groups[0]["lr"])
    assert rates == [1 / step for step in range(1, 7)]


def test_a_clipped_gradient_moves_plain_gradient_descent_by_its_norm(tmp_path):
    training = Training(tmp_path, steps=1, clip_norm=1e-3)
    training.loop.optimizer = torch.optim.SGD(training.model.parameters(), lr=1.0)
    before = training.weights()
    list(training.loop.run(training.batches()))
    assert (training.weights() - before).norm() == pytest.approx(1e-3, rel=1e-3)


def test_a_running_mean_starts_at_the_first_value():
    assert running_mean(None, 4.0) == 4
    assert running_mean(4.0, 24.0) == pytest.approx(5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_trains_the_same_with_and_without_graphs_and_reads_every_figure(tmp_path):
    said: list[str] = []
    trained = {}
    for graphs in (False, True):
        context = StageContext(device="cuda", graphs=graphs, say=said.append)
        training = Training(tmp_path / str(graphs), steps=20, context=context)
        list(training.loop.run(training.batches()))
        trained[graphs] = training
    assert not said
    losses = [trained[graphs].loop.state["losses"] for graphs in (False, True)]
    assert len(losses[1]) == 20 and losses[1] == pytest.approx(losses[0], rel=1e-4)
    torch.testing.assert_close(trained[True].weights(), trained[False].weights())
    broken = Training(tmp_path / "broken", steps=20, context=StageContext(device="cuda"))
    with pytest.raises(FloatingPointError, match="the loss is inf in step 9,"):
        list(broken.loop.run(broken.batches(broken=9)))
