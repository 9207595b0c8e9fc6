"""Data-parallel training with the results of a single worker.

Sums, batch statistics and dropout are those of the whole batch. Every worker draws the same batch
and takes its share of the rows. Without a process group there is one worker, and these functions
change nothing.

Gradients: `DistributedDataParallel` averages over workers, and the backward pass of
`all_reduce_sum` sums. A loss of global sums therefore has the same gradient as on one worker; so
has a mean over rows if the shares are equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn


def workers() -> int:
    """Return the number of workers that train this network."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return this worker's number; worker 0 writes the results."""
    return dist.get_rank() if workers() > 1 else 0


def shard_batch(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return this worker's rows of a batch.

    Expert rows come first in a batch, so workers' numbers of expert rows differ by at most one.
    """
    return {name: values[rank() :: workers()] for name, values in batch.items()}


def all_reduce_sum(values: Tensor) -> Tensor:
    """Return the sum over all workers, with a gradient."""
    if workers() == 1:
        return values
    from torch.distributed.nn.functional import all_reduce

    return cast(Tensor, all_reduce(values))


def whole_batch(values: Tensor) -> Tensor:
    """Return the rows of the whole batch, in its order, from every worker's share; no gradient.

    The shares are those of `shard_batch` and must be equal.
    """
    if workers() == 1:
        return values
    share = values.detach().contiguous()
    shares = share.new_empty((workers() * len(share), *share.shape[1:]))
    dist.all_gather_into_tensor(shares, share)
    whole = shares.unflatten(0, (workers(), -1)).transpose(0, 1).flatten(0, 1)
    return cast(Tensor, whole)


def mean(values: Tensor) -> Tensor:
    """Return the mean over all workers, without a gradient."""
    if workers() == 1:
        return values.detach()
    summed = values.detach().clone()
    dist.all_reduce(summed)
    return summed / workers()


def broadcast(content: bytes, device: torch.device) -> bytes:
    """Return worker 0's content on every worker. Nothing is unpickled.

    device: of the tensors that the process group exchanges.
    """
    if workers() == 1:
        return content
    size = torch.tensor(len(content), device=device)
    dist.broadcast(size, src=0)
    if not size.item():
        return b""
    values = torch.empty(int(size.item()), dtype=torch.uint8, device=device)
    if rank() == 0:
        values.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    dist.broadcast(values, src=0)
    return values.cpu().numpy().tobytes()


def wait_for_all(device: str) -> None:
    """Return when every worker has called this. Raises RuntimeError if another has failed.

    device: of the tensors that the process group exchanges.
    """
    if workers() == 1:
        return
    arrived = torch.ones((), device=device)
    dist.all_reduce(arrived)
    if arrived.item() != workers():  # the sum of another operation's values
        raise RuntimeError("the workers of this training are in different steps")


class _BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over all workers' rows. PyTorch's SyncBatchNorm works on GPUs only.

    `parallel` uses it only for modules with running statistics and a momentum.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        dtype = input.dtype
        # bfloat16 is too coarse for the sums.
        input = input.to(torch.promote_types(dtype, torch.float32))
        axes, count = (0, 2, 3), input.numel() // input.shape[1] * workers()
        mean_C = all_reduce_sum(input.sum(axes)) / count
        centred = input - mean_C[:, None, None]
        variance_C = all_reduce_sum(centred.square().sum(axes)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean_C, self.momentum)
            self.running_var.lerp_(variance_C * (count / (count - 1)), self.momentum)
        scale_C = self.weight * (variance_C + self.eps).rsqrt()
        return (centred * scale_C[:, None, None] + self.bias[:, None, None]).to(dtype)


class _Dropout(nn.Dropout):
    """Dropout that draws the whole batch's mask on every worker and applies its share of it."""

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
    """Return the module to call in training, with the gradients of the whole batch.

    `model` keeps its parameters and the names in its state dict; with one worker it is returned
    itself. Raises ValueError for a network that several workers can't train (`unsupported_reason`).
    """
    if workers() == 1:
        return model
    on_gpu = torch.device(device).type == "cuda"
    if reason := unsupported_reason(model, on_gpu):
        raise ValueError(reason)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d and not on_gpu:
                batch_norm = _BatchNorm2d(child.num_features, child.eps, child.momentum)
                setattr(module, name, _share_state(batch_norm, child))
            elif isinstance(child, nn.Dropout):
                setattr(module, name, _share_state(_Dropout(child.p), child))
    if on_gpu:
        # timm's function also converts the batch normalisation classes of its own encoders.
        from timm.layers.norm_act import convert_sync_batchnorm

        convert_sync_batchnorm(model)
    model.to(device)
    # Some encoders have weights that a segmenter doesn't use; static_graph detects them once.
    return nn.parallel.DistributedDataParallel(model, broadcast_buffers=False, static_graph=True)


def unsupported_reason(model: nn.Module, on_gpu: bool) -> str | None:
    """Return why several workers can't compute the same as one worker; None if they can."""
    for child in _trained(model):
        name = type(child).__name__
        if "Drop" in name and not isinstance(child, nn.Dropout):
            return f"{name} draws random numbers on each worker separately"
        usual = (
            type(child) is nn.BatchNorm2d
            and child.track_running_stats
            and child.momentum is not None
        )
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and not on_gpu and not usual:
            return f"{name} can't be synchronised between workers without GPUs"
    return None


def _trained(module: nn.Module) -> Iterator[nn.Module]:
    """Yield a module and all within it, without those that are frozen.

    A frozen module has weights, none of which is trained, and is in eval mode.
    """
    weights = list(module.parameters())
    if weights and not module.training and not any(weight.requires_grad for weight in weights):
        return
    yield module
    for child in module.children():
        yield from _trained(child)


def lost_a_worker(error: Exception) -> bool:
    """Return True if a collective operation failed because another worker didn't answer."""
    from_backend = isinstance(error, RuntimeError) and any(
        name in str(error).lower() for name in ("gloo", "nccl")
    )
    return workers() > 1 and (from_backend or isinstance(error, dist.DistError))


def _share_state(module: nn.Module, other: nn.Module) -> nn.Module:
    """Give `module` the tensors of `other`, without copying them, and return it."""
    module._parameters, module._buffers = other._parameters, other._buffers
    return module.train(other.training)
