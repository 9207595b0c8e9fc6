"""Copies between the host and a GPU that don't make the host wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import TypeVar

import numpy as np
import torch

Item = TypeVar("Item")


def to_device(values: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Return the values on the device; values that are there already are returned themselves.

    A copy from pageable memory makes the host wait for all work that the GPU has been given. This
    one is from pinned memory and asynchronous. PyTorch keeps the pinned memory until it is done.
    """
    # From a GPU to the host the values would be read before they are there.
    return pinned(values, device).to(device, non_blocking=values.device.type == "cpu")


def pinned(values: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Return values of the host in pinned memory if the device is a GPU, else themselves."""
    if values.device.type == "cpu" and torch.device(device).type == "cuda":
        return values.pin_memory()
    return values


def to_host(
    batches: Iterator[tuple[Item, Mapping[str, torch.Tensor]]],
) -> Iterator[tuple[Item, dict[str, np.ndarray]]]:
    """Yield items with their tensors as arrays.

    Results of a GPU are yielded once the work of the next batch has been launched, so that the GPU
    doesn't wait for the launch.
    """
    copies: deque[tuple[Item, dict[str, torch.Tensor], torch.cuda.Event]] = deque()

    def oldest() -> tuple[Item, dict[str, np.ndarray]]:
        item, tensors, copied = copies.popleft()
        copied.synchronize()
        return item, {name: values.numpy() for name, values in tensors.items()}

    for item, tensors in batches:
        if not any(values.is_cuda for values in tensors.values()):
            yield item, {name: values.numpy() for name, values in tensors.items()}
            continue
        # Copies that don't block are to pinned memory.
        on_host = {name: values.to("cpu", non_blocking=True) for name, values in tensors.items()}
        copied = torch.cuda.Event()
        copied.record()
        copies.append((item, on_host, copied))
        if len(copies) > 1:
            yield oldest()
    while copies:
        yield oldest()
