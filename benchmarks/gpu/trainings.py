"""The trainings before the cells: classifier, MoCo and IRNet, each as one capturable step.

`as_stage` of each is the step as the stage runs it today, with its waits for the device.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from chexseg.models import augmentation, classifier, encoders, irnet, irnet_losses, losses, moco
from chexseg.pathologies import OBSERVATIONS, PATHOLOGIES
from chexseg.stages import moco as moco_stage
from chexseg.stages.configs import MoCoConfig
from gpu.capturable import drawing
from gpu.precisions import Precision
from gpu.training import Training
from gpu.worker import Context

IMAGES = 256


class Classification(Training):
    """A classifier of the observations, as `classify` and `pretrain` train it."""

    def __init__(self, context: Context, precision: Precision, architecture: str, batch: int):
        super().__init__(context, precision, context.batch(batch), IMAGES, 0)
        targets_ML = torch.randint(0, 2, (self.images, len(OBSERVATIONS))).float()
        targets_ML[torch.rand(targets_ML.shape) < 0.1] = float("nan")
        self.targets_ML = targets_ML.to(self.device)
        self.model = self.place(classifier.build(architecture))
        self.adam(self.model.parameters())

    def loss(self, rows_N: Tensor) -> Tensor:
        """Return the loss of labels that aren't ignored."""
        with self.autocast():
            logits_NL = self.model(encoders.prepare(self.pixels_MHW[rows_N], "chexpert"))
        return losses.classification(logits_NL, self.targets_ML[rows_N])

    def as_stage(self) -> None:
        """Train on a batch and read its loss."""
        rows_N = self.order_SB[0]
        loss = self.loss(rows_N)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        loss.item()


class Contrast(Training):
    """MoCo. The key network follows without asking the device how often it did so before.

    Views are drawn on the device, from its default generator.
    """

    def __init__(self, context: Context, precision: Precision, batch: int):
        super().__init__(context, precision, context.batch(batch), IMAGES, 0)
        config = MoCoConfig()
        names = ("crop", "rotation", "flip", "brightness", "contrast")
        strength = {name: getattr(config, name) for name in names}
        self.strength = augmentation.Augmentation(**strength)
        queue = 64 if context.dry else moco_stage.LARGEST_QUEUE
        self.model = moco.MoCo(moco_stage.build(config), queue, config.momentum, config.temperature)
        self.model.to(self.device, memory_format=precision.memory_format)
        with self.autocast():
            self.model.calibrate(encoders.prepare(self.pixels_MHW[: self.batch], "moco"))
        self.adam(self.model.query.parameters(), weight_decay=config.weight_decay)
        self.draw = drawing(None, self.device)
        self.momentum = config.momentum
        self.follow_of_stage = self.model.key.update_parameters
        self.model.key.update_parameters = self.follow

    @torch.no_grad()
    def follow(self, query: torch.nn.Module) -> None:
        """Move the key network towards the query network as `AveragedModel` does, but for waits."""
        network = self.model.key.module
        pairs = [*zip(network.parameters(), query.parameters(), strict=True)]
        pairs += zip(network.buffers(), query.buffers(), strict=True)
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        keys, queries = zip(*floats, strict=True)
        torch._foreach_lerp_(list(keys), list(queries), 1 - self.momentum)
        for key, counter in pairs:
            if not key.is_floating_point():
                key.copy_(key * self.momentum + counter * (1 - self.momentum))

    def pair(self, images_NHW: Tensor, generator: torch.Generator | None) -> list[Tensor]:
        """Return two views of each image, normalised."""
        views = [augmentation.views(images_NHW, self.strength, generator) for _ in range(2)]
        return [encoders.prepare(view, "moco") for view in views]

    def loss(self, rows_N: Tensor) -> Tensor:
        """Return InfoNCE of two views of each image."""
        images_NHW = self.pixels_MHW[rows_N]
        pair = self.pair(images_NHW, None)
        with self.autocast():
            queries_ND, self.keys_ND = self.model(*pair)
        return moco.info_nce(self.model.logits(queries_ND, self.keys_ND))

    def after(self) -> None:
        """Move the key network and the queue."""
        self.model.update(self.keys_ND)

    def as_stage(self) -> None:
        """Train on a batch: draws on the host, `AveragedModel`'s own update, the figures read."""
        drawn = torch.Generator().manual_seed(0)
        images_NHW = self.pixels_MHW[self.order_SB[0]]
        pair = self.pair(images_NHW, drawn)
        with self.autocast():
            queries_ND, keys_ND = self.model(*pair)
        logits = self.model.logits(queries_ND, keys_ND)
        loss = moco.info_nce(logits)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.model.key.update_parameters = self.follow_of_stage
        self.model.update(keys_ND)
        self.model.key.update_parameters = self.follow
        torch.stack([loss.detach(), moco.accuracy(logits.detach())]).tolist()


class Boundaries(Training):
    """IRNet on ResNet50 and the seeds of random CAMs; SGD is the fused one, its rate a tensor."""

    def __init__(self, context: Context, precision: Precision, batch: int):
        super().__init__(context, precision, context.batch(batch), 256, 0)
        side = max(2, self.size // 32)
        maps_MKhw = torch.rand(self.images, len(PATHOLOGIES), side, side)
        self.maps_MKhw = maps_MKhw.half().to(self.device)
        self.present_MK = (torch.rand(self.images, len(PATHOLOGIES)) < 0.4).to(self.device)
        self.model = self.place(irnet.IRNet("resnet50", freeze_backbone=False))
        groups = self.model.parameter_groups(1e-3)
        for group in groups:
            group["lr"] = torch.tensor(group["lr"], device=self.device)
        self.optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=1e-4, fused=True)
        stage_groups = self.model.parameter_groups(1e-3)
        self.stage_optimizer = torch.optim.SGD(stage_groups, momentum=0.9, weight_decay=1e-4)

    def outputs(self, rows_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return boundary_Nhw, displacement_N2hw and the CAMs maps_NKhw on their grid."""
        with self.autocast():
            images_NCHW = encoders.prepare(self.pixels_MHW[rows_N], "random")
            boundary_Nhw, displacement_N2hw = self.model(images_NCHW)
        maps_NKhw = self.maps_MKhw[rows_N].float()
        size = boundary_Nhw.shape[-2:]
        maps_NKhw = F.interpolate(maps_NKhw, size=size, mode="bilinear", align_corners=False)
        return boundary_Nhw, displacement_N2hw, maps_NKhw

    def loss(self, rows_N: Tensor) -> Tensor:
        """Return the total loss; the seeds are those of `irnet_losses.seeds`, by masked fills."""
        boundary_Nhw, displacement_N2hw, maps_NKhw = self.outputs(rows_N)
        present_NK11 = self.present_MK[rows_N][:, :, None, None]
        seeds_NKhw = torch.full_like(maps_NKhw, irnet_losses.IGNORE, dtype=torch.uint8)
        seeds_NKhw.masked_fill_((maps_NKhw > 0.3) & present_NK11, irnet_losses.FOREGROUND)
        seeds_NKhw.masked_fill_((maps_NKhw < 0.05) & present_NK11, irnet_losses.BACKGROUND)
        return irnet_losses.pair_losses(boundary_Nhw, displacement_N2hw, seeds_NKhw)["total"]

    def as_stage(self) -> None:
        """Train on a batch and read all losses."""
        rows_N = self.order_SB[0]
        boundary_Nhw, displacement_N2hw, maps_NKhw = self.outputs(rows_N)
        seeds_NKhw = irnet_losses.seeds(maps_NKhw, self.present_MK[rows_N])
        parts = irnet_losses.pair_losses(boundary_Nhw, displacement_N2hw, seeds_NKhw)
        self.stage_optimizer.zero_grad()
        parts["total"].backward()
        self.stage_optimizer.step()
        torch.stack(list(parts.values())).tolist()
