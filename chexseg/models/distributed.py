"""A network on several workers that computes what it would on one: sums, batch statistics and dropout over the whole batch.

Every worker draws the same batch and takes its share of the rows. Without a process group there is one worker, and nothing
here does anything. Gradients: `DistributedDataParallel` takes the mean over workers, and the backward pass of `all_reduce_sum` the
sum, so a loss of global sums has the same gradient as on one worker; a mean over the rows of equal shares has it anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def workers() -> int:
    """How many workers train this network together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This worker's number; 0 writes the results."""
    return dist.get_rank() if workers() > 1 else 0


def shard_batch(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """This worker's rows of a batch: as many expert ones, which stand first, as the others have, give or take one."""
    return {name: values[rank() :: workers()] for name, values in batch.items()}


def all_reduce_sum(values: Tensor) -> Tensor:
    """The sum over all workers, with a gradient."""
    if workers() == 1:
        return values
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(values)


def mean(values: Tensor) -> Tensor:
    """The mean over all workers, without a gradient."""
    if workers() == 1:
        return values.detach()
    summed = values.detach().clone()
    dist.all_reduce(summed)
    return summed / workers()


class _BatchNorm2d(nn.BatchNorm2d):
    """Batch statistics over all workers' rows. PyTorch's own SyncBatchNorm does that on GPUs only."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        kind = input.dtype
        input = input.to(
            torch.promote_types(kind, torch.float32)
        )  # statistics in bfloat16 would be none
        axes, count = (0, 2, 3), input.numel() // input.shape[1] * workers()
        mean_C = all_reduce_sum(input.sum(axes)) / count
        centred = input - mean_C[:, None, None]
        variance_C = all_reduce_sum(centred.square().sum(axes)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean_C, self.momentum)
            self.running_var.lerp_(variance_C * (count / (count - 1)), self.momentum)
        scale_C = self.weight * (variance_C + self.eps).rsqrt()
        return (centred * scale_C[:, None, None] + self.bias[:, None, None]).to(kind)


class _Dropout(nn.Dropout):
    """Each worker draws the whole batch's mask, from the same generator, and uses its share of it."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return input
        shape, channels_last = (
            list(input.shape),
            input.is_contiguous(memory_format=torch.channels_last),
        )
        shape[0] *= workers()
        kept = torch.empty(
            shape,
            dtype=input.dtype,
            device=input.device,
            memory_format=torch.channels_last if channels_last else torch.contiguous_format,
        ).bernoulli_(1 - self.p)
        return input * kept[rank() :: workers()] / (1 - self.p)


def parallel(model: nn.Module, device: str) -> nn.Module:
    """The model to call in training; gradients, batch statistics and dropout are those of the whole batch.

    `model` itself keeps its parameters and its state's names; with one worker it is what is returned. Raises ValueError for
    a network whose batch normalisation can't be taken over workers.
    """
    if workers() == 1:
        return model
    on_gpu = torch.device(device).type == "cuda"
    if fault := unsupported_reason(model, on_gpu):
        raise ValueError(fault)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d and not on_gpu:
                setattr(
                    module,
                    name,
                    _like(_BatchNorm2d(child.num_features, child.eps, child.momentum), child),
                )
            elif isinstance(child, nn.Dropout):
                setattr(module, name, _like(_Dropout(child.p), child))
    if on_gpu:
        from timm.layers import convert_sync_batchnorm  # knows the kinds that timm's encoders have

        convert_sync_batchnorm(model)
    model.to(device)
    # Some encoders have weights that a segmenter doesn't use: static_graph finds them out once.
    return nn.parallel.DistributedDataParallel(model, broadcast_buffers=False, static_graph=True)


def unsupported_reason(model: nn.Module, on_gpu: bool) -> str | None:
    """Why several workers can't compute what one would with this network; None where they can."""
    for child in model.modules():
        name = type(child).__name__
        if "Drop" in name and not isinstance(child, nn.Dropout):
            return f"{name} draws for each worker by itself"
        usual = (
            type(child) is nn.BatchNorm2d
            and child.track_running_stats
            and child.momentum is not None
        )
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and not on_gpu and not usual:
            return f"{name} can't be taken over workers without GPUs"
    return None


def lost_a_worker(error: Exception) -> bool:
    """Whether an error is that of a collective operation in which another worker didn't answer."""
    told = isinstance(error, RuntimeError) and any(
        name in str(error).lower() for name in ("gloo", "nccl")
    )
    return workers() > 1 and (told or isinstance(error, dist.DistError))


def _like(module: Any, other: nn.Module) -> Any:
    """`module` with the tensors of `other`, not copies of them."""
    module._parameters, module._buffers = other._parameters, other._buffers
    return module.train(other.training)
