"""Let chexseg's own functions be captured unchanged.

Some of them copy constants from the host to the device at every call (`encoders.prepare`, the pair
losses of IRNet, `torch.where` with a number) or draw on the host (`augmentation.views`). In a
capture either is an error. `substituted` keeps the constants on the device and takes the draws
from a function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from torch import Tensor

Draw = Callable[..., Tensor]


class Constants:
    """Tensors made of Python numbers, each copied to its device once; nobody may change them."""

    def __init__(self) -> None:
        self._kept: dict[tuple, Tensor] = {}
        self._tensor, self._where = torch.tensor, torch.where

    def __len__(self) -> int:
        return len(self._kept)

    def tensor(self, values, *, dtype=None, device=None, **rest) -> Tensor:
        """Do what `torch.tensor` does."""
        flat = tuple(values) if isinstance(values, (list, tuple)) else (values,)
        if device is None or rest or not all(isinstance(value, (int, float)) for value in flat):
            return self._tensor(values, dtype=dtype, device=device, **rest)
        scalar = not isinstance(values, (list, tuple))
        key = (scalar, type(flat[0]) if flat else None, flat, dtype, str(device))
        if key not in self._kept:
            self._kept[key] = self._tensor(values, dtype=dtype, device=device)
        return self._kept[key]

    def where(self, condition: Tensor, *branches) -> Tensor:
        """Do what `torch.where` does."""
        return self._where(
            condition,
            *(self._branch(branch, condition.device) for branch in branches),
        )

    def _branch(self, branch: Tensor | float, device: torch.device) -> Tensor:
        return branch if isinstance(branch, Tensor) else self.tensor(branch, device=device)

    @contextmanager
    def substituted(self, draw: Draw | None = None) -> Iterator[None]:
        """Put `tensor` and `where` in the place of torch's, and `draw`, if any, for `rand`."""
        with ExitStack() as stack:
            stack.enter_context(mock.patch.object(torch, "tensor", self.tensor))
            stack.enter_context(mock.patch.object(torch, "where", self.where))
            if draw is not None:
                stack.enter_context(mock.patch.object(torch, "rand", draw))
            yield


def drawing(generator: torch.Generator | None, device: torch.device) -> Draw:
    """Return a `rand` that draws on the device, from a generator or, for None, its default one."""
    real = torch.rand

    def rand(*shape: int, generator: object = None, **_: object) -> Tensor:
        return real(*shape, generator=source, device=device)

    source = generator
    return rand
