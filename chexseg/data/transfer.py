"""Copies from the host to a GPU that don't make the host wait."""

from __future__ import annotations

import torch


def to_device(values: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Return the values on the device; values that are there already are returned themselves.

    A copy from pageable memory makes the host wait for all work that the GPU has been given. This
    one is from pinned memory and asynchronous. PyTorch keeps the pinned memory until it is done.
    """
    if values.device.type == "cpu" and torch.device(device).type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)
