"""The watch over steps catches every kind of wait and copy, and lets a step without them pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.synchronisation import (
    SynchronisationError,
    check_step,
    fake_tensors,
    no_synchronisation,
)


def _assign_masked(values: Tensor) -> None:
    values[values > 0] = values[values > 1]


WAITS = {
    "item": lambda values: values.sum().item(),
    "float": lambda values: float(values.sum()),
    "if": lambda values: bool(values.sum() > 0),
    "tolist": lambda values: values.tolist(),
    "boolean index": lambda values: values[values > 0],
    "boolean assignment": _assign_masked,
    "masked_select": lambda values: values.masked_select(values > 0),
    "nonzero": lambda values: values.nonzero(),
    "unique": lambda values: values.unique(),
    "bincount": lambda values: torch.bincount(values.long().flatten(), minlength=4),
}
COPIES = {
    "tensor": lambda values: torch.tensor([1.0, 2.0], device=values.device),
    "list index": lambda values: values[[0, 1]],
    "to device": lambda values: torch.zeros(2, device="cpu").to(values.device),
    "to host": lambda values: values.cpu(),
    "copy_ to device": lambda values: values.copy_(torch.zeros(3, 4, device="cpu")),
    "copy_ to host": lambda values: torch.zeros(3, 4, device="cpu").copy_(values),
}


@pytest.mark.parametrize("name", WAITS)
@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_wait_is_caught(name, device):
    with (
        fake_tensors(device),
        no_synchronisation(),
        pytest.raises(SynchronisationError, match="waits for the device"),
    ):
        WAITS[name](torch.empty(3, 4))


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_caught(name):
    with (
        fake_tensors("cuda"),
        no_synchronisation(),
        pytest.raises(SynchronisationError, match="copies between host and device"),
    ):
        COPIES[name](torch.empty(3, 4))


def test_a_wait_in_the_backward_pass_is_caught():
    class Asking(torch.autograd.Function):
        @staticmethod
        def forward(ctx, values: Tensor) -> Tensor:
            return values.clone()

        @staticmethod
        def backward(ctx, slope: Tensor) -> Tensor:
            return slope * slope.sum().item()

    with pytest.raises(SynchronisationError, match="_local_scalar_dense"):
        check_step(
            lambda: nn.Linear(3, 2), lambda model: Asking.apply(model(torch.empty(4, 3))).sum()
        )


def test_a_step_that_stays_on_the_device_passes():
    def forward(model: nn.Module) -> Tensor:
        values = model(torch.empty(4, 3)).masked_fill(torch.rand(4, 2) < 0.5, 0)
        values = values.index_select(0, torch.arange(2)) / torch.full((), 3.0)
        return values.double().sum() / 2

    check_step(lambda: nn.Linear(3, 2), forward)
