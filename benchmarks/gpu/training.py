"""A training step on data that stays on the device, which can be captured as a whole.

Nothing in a step waits for the device: the rows of all batches lie in a table on it, a counter on
it names the next batch, and the losses are written into a table that is read when needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gpu.capturable import Constants, Draw
from gpu.precisions import Precision
from gpu.worker import Context

#: Batches in the table of rows; the counter begins again behind the last.
BATCHES = 512


@dataclass
class State:
    """Copies of a training's tensors before its first step."""

    model: dict[str, Tensor]


class Training:
    """Base of the trainings: data, model, optimiser, and the step from a batch's loss on.

    A subclass sets `model` and `optimizer` and gives `loss(rows_N)`.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer

    def __init__(self, context: Context, precision: Precision, batch: int, images: int, seed: int):
        self.context, self.precision, self.batch = context, precision, batch
        self.device, self.size = context.device, context.size
        self.images = 4 * batch if context.dry else images
        torch.manual_seed(seed)
        self.draw: Draw | None = None
        self.constants = Constants()
        shape = (self.images, self.size, self.size)
        self.pixels_MHW = torch.randint(0, 256, shape, dtype=torch.uint8, device=self.device)
        self.order_SB = torch.randint(0, self.images, (BATCHES, batch), device=self.device)
        self.counter_1 = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.losses_S = torch.zeros(BATCHES, device=self.device)

    def place(self, model: nn.Module) -> nn.Module:
        """Return a model on the device, in the layout, in training mode."""
        return model.to(self.device, memory_format=self.precision.memory_format).train()

    def adam(self, parameters: Iterable[Tensor], rate: float | Tensor = 1e-4, **rest) -> None:
        """Set the optimiser: Adam, as the stages have it but for `capturable`."""
        capturable = self.device.type == "cuda"
        rest |= {"fused": True, "capturable": capturable}
        self.optimizer = torch.optim.Adam(parameters, lr=rate, **rest)

    def autocast(self) -> AbstractContextManager:
        """Return the context of the forward pass."""
        return self.precision.autocast(self.device)

    def loss(self, rows_N: Tensor) -> Tensor:
        """Return the loss of the images of these rows."""
        raise NotImplementedError

    def after(self) -> None:
        """Do what comes after the optimiser's step."""

    def step(self) -> None:
        """Train on the next batch."""
        rows_N = self.order_SB.index_select(0, self.counter_1)[0]
        with self.constants.substituted(self.draw):
            loss = self.loss(rows_N)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.after()
        self.losses_S.index_copy_(0, self.counter_1, loss.detach()[None])
        self.counter_1.add_(1).remainder_(BATCHES)

    def state(self) -> State:
        """Return copies of the model's tensors."""
        return State({name: value.clone() for name, value in self.model.state_dict().items()})

    @torch.no_grad()
    def restore(self, state: State) -> None:
        """Put the training back to before its first step, in place, as graphs need it."""
        for name, value in self.model.state_dict().items():
            value.copy_(state.model[name])
        for values in self.optimizer.state.values():
            for value in values.values():
                if isinstance(value, Tensor):
                    value.zero_()
        self.counter_1.zero_()
        self.losses_S.zero_()

    def weights(self) -> Tensor:
        """Return all weights and floating-point buffers in one vector, float64."""
        values = [value for value in self.model.state_dict().values() if value.is_floating_point()]
        return torch.cat([value.double().flatten() for value in values])
