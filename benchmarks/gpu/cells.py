"""A cell of a study, DeepLabV3+ on ResNet18, ten classes: bare, as a whole step, and fused."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from chexseg.data import radiographs
from chexseg.models import encoders, losses
from chexseg.pathologies import PATHOLOGIES
from chexseg.stages import fit
from chexseg.stages.configs import FitConfig
from gpu.precisions import Precision
from gpu.training import Training
from gpu.worker import Context

#: A cell of Table 1: training images and batch size.
IMAGES, BATCH = 247, 8
#: Of one image forward at 320 px; a step is three times as much.
GFLOP = 14.3


def teraflops(images_per_second: float) -> str:
    """Return the arithmetic rate of training at 320 px as a text."""
    return f"{3 * GFLOP * images_per_second / 1e3:.1f} TFLOP/s"


def config_of(precision: Precision) -> FitConfig:
    """Return the config of a cell in a precision."""
    name = "bfloat16" if precision.bfloat16 else "float32"
    return FitConfig(init="random", precision=name, channels_last=precision.channels_last)


def masks(count: int, size: int, device: torch.device) -> Tensor:
    """Return packed random masks (count, bytes), a quarter of their pixels true."""
    shape = (count, len(PATHOLOGIES) * size * size // 8)
    once, twice = (torch.randint(0, 256, shape, dtype=torch.uint8, device=device) for _ in "ab")
    return once & twice


class Cell(Training):
    """The whole step: uint8 pixels and packed masks that stay on the device, chexseg's own loss."""

    def __init__(
        self,
        context: Context,
        precision: Precision,
        seed: int = 0,
        rate: float | Tensor = 1e-3,
        dropout: bool = True,
    ):
        super().__init__(context, precision, context.batch(BATCH), IMAGES, seed)
        self.config = config_of(precision)
        self.masks_MB = masks(self.images, self.size, self.device)
        self.model = self.place(fit.build(self.config))
        if not dropout:
            without_dropout(self.model)
        self.adam(self.model.parameters(), rate)

    def loss(self, rows_N: Tensor) -> Tensor:
        """Return the loss as `fit` computes it."""
        batch = {"images": self.pixels_MHW[rows_N], "masks": self.masks_MB[rows_N]}
        return fit.loss_on(self.config, *fit.forward(self.config, self.model, batch))


class BareCell(Training):
    """The loop that anybody would write first: float images and boolean masks, made before."""

    def __init__(self, context: Context, precision: Precision, seed: int = 0):
        super().__init__(context, precision, context.batch(BATCH), context.batch(BATCH), seed)
        self.model = self.place(fit.build(config_of(precision)))
        self.network: nn.Module = self.model
        images_NCHW = encoders.prepare(self.pixels_MHW[: self.batch], "random")
        self.images_NCHW = images_NCHW.contiguous(memory_format=precision.memory_format)
        shape = (self.batch, len(PATHOLOGIES), self.size, self.size)
        self.masks_NKHW = (torch.rand(shape) < 0.2).to(self.device)
        self.adam(self.model.parameters(), 1e-3)

    def step(self) -> None:
        """Train on the same batch again."""
        with self.autocast():
            logits_NKHW = self.network(self.images_NCHW)
        loss = losses.class_average_dice(logits_NKHW, self.masks_NKHW)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()


class FusedCells(Training):
    """Train several cells as one model: `vmap` over stacked weights makes grouped convolutions.

    Each cell has separate batch statistics and dropout. Adam works by element, so its state is
    separate too. The layout is contiguous: the replicas' axis is between batch and channels.
    """

    def __init__(
        self,
        context: Context,
        precision: Precision,
        cells: int,
        seed: int = 0,
        dropout: bool = True,
    ):
        super().__init__(context, precision, context.batch(BATCH), IMAGES, seed)
        self.cells = cells
        shape = (len(self.order_SB), cells, self.batch)
        self.order_SB = torch.randint(0, self.images, shape, device=self.device)
        self.masks_MB = masks(self.images, self.size, self.device)
        models = [self.place(fit.build(config_of(precision))) for _ in range(cells)]
        if not dropout:
            for model in models:
                without_dropout(model)
        self.models = models
        self.parameters, self.buffers = stack_module_state(models)
        self.skeleton = copy.deepcopy(models[0]).to("meta")
        self.model = models[0]
        self.adam(self.parameters.values(), 1e-3)

    def batch_of(self, rows_EB: Tensor) -> tuple[Tensor, Tensor]:
        """Return images_EBCHW and masks_EBKHW of each cell's rows."""
        rows = rows_EB.flatten()
        images_NCHW = encoders.prepare(self.pixels_MHW[rows], "random").contiguous()
        shape = (len(PATHOLOGIES), self.size, self.size)
        masks_NKHW = radiographs.unpack_bits(self.masks_MB[rows], shape)
        count = (self.cells, self.batch)
        return images_NCHW.unflatten(0, count), masks_NKHW.unflatten(0, count)

    def loss(self, rows_N: Tensor) -> Tensor:
        """Return the sum of the cells' losses: each cell's gradient is its own."""
        images_EBCHW, masks_EBKHW = self.batch_of(rows_N)
        return self.cell_losses(images_EBCHW, masks_EBKHW).sum()

    def cell_losses(self, images_EBCHW: Tensor, masks_EBKHW: Tensor) -> Tensor:
        """Return the loss of each cell."""

        def one(parameters, buffers, images_NCHW, masks_NKHW):
            logits_NKHW = functional_call(self.skeleton, (parameters, buffers), (images_NCHW,))
            return losses.class_average_dice(logits_NKHW, masks_NKHW)

        with self.autocast():
            cell_losses = vmap(one, randomness="different")
            return cell_losses(self.parameters, self.buffers, images_EBCHW, masks_EBKHW)


def without_dropout(model: nn.Module) -> None:
    """Set every dropout's probability to 0."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
