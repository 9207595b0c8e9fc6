"""Run a step on fake tensors, and fail where a real GPU would make the host wait or copy.

Fake tensors have a shape, a type and a device but no values, so no GPU is needed. A step that runs
on them depends on no value on the device; a CUDA graph can hold it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class SynchronisationError(AssertionError):
    """An operation needs a value on the device, or copies between host and device."""


class _Watch(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        try:
            result = func(*args, **(kwargs or {}))
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise SynchronisationError(f"{func} waits for the device") from error
        if (
            func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
            and len(_devices(args, result)) > 1
        ):
            raise SynchronisationError(f"{func} copies between host and device")
        return result


def _devices(*values: Any) -> set[str]:
    return {leaf.device.type for leaf in tree_leaves(values) if isinstance(leaf, Tensor)}


@contextmanager
def fake_tensors(device: str) -> Iterator[None]:
    """Make new tensors fake ones on a device."""
    with FakeTensorMode(), torch.device(device):
        yield


def _make_fake(model: nn.Module) -> None:
    """Replace all weights and buffers by new ones of the same shapes, types and strides."""
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, value in tensors.items():
                if value is not None:
                    fake = torch.empty_strided(value.size(), value.stride(), dtype=value.dtype)
                    weight = isinstance(value, nn.Parameter)
                    tensors[name] = nn.Parameter(fake, value.requires_grad) if weight else fake


@contextmanager
def no_synchronisation() -> Iterator[None]:
    """Raise `SynchronisationError` where the host would wait or copy; within `fake_tensors`."""
    with _Watch():
        yield


def check_step(
    build: Callable[[], nn.Module],
    forward: Callable[[Any], Tensor],
    after: Callable[[Any], object] = lambda model: None,
) -> None:
    """Raise `SynchronisationError` if a step of training would make the host wait or copy.

    build: the model. forward: the loss of one step. after: what follows the backward pass.

    Without a GPU, autograd can't run on fake CUDA tensors. The backward pass therefore only runs on
    fake CPU tensors, where waiting shows but copying doesn't.
    """
    for device in ("cuda", "cpu"):
        model = build()
        with fake_tensors(device):
            _make_fake(model)
            with no_synchronisation():
                loss = forward(model)
                if device == "cpu":
                    loss.backward()
                after(model)
