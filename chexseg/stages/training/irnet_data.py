"""The training data of IRNet: images with the seeds of their CAMs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from chexseg.data import radiographs, shards
from chexseg.data.sampling import radiograph_samplers
from chexseg.data.sampling.samplers import Source
from chexseg.models import augmentation, encoders, irnet, irnet_losses
from chexseg.pathologies import PATHOLOGIES
from chexseg.saliency import centre_crop, weak_masks
from chexseg.seeds import derive
from chexseg.stages import api, artifacts, configs


def source(
    config: configs.IRNetConfig,
    inputs: Mapping[str, Path],
    image_ids: Sequence[str],
    context: api.StageContext,
) -> Source:
    """Return a source of ``images``, their ``maps``, and the classes ``present`` by their labels.

    Also ``shapes``, (height, width) of the original images, if the classifier has seen crops.
    """
    table = radiographs.index(inputs["train"]).set_index("image_id").loc[image_ids]
    seeded_NK = weak_masks.possibly_present(
        torch.from_numpy(radiographs.labels(table, PATHOLOGIES))
    )
    if config.seed_classes == "all":
        seeded_NK = torch.ones_like(seeded_NK)
    columns, cams = {"present": seeded_NK}, inputs["saliency"] / "train"
    stored = shards.metadata(shards.files(cams)[0])
    if stored.get("geometry") == "crop":
        columns["shapes"] = torch.tensor(table[["height", "width"]].to_numpy())
    return radiograph_samplers.source(
        inputs["train"],
        image_ids,
        columns,
        derive(config.seed, "irnet samples"),
        context.device,
        context.resident_budget(),
        {
            "maps": radiograph_samplers.Stored(
                cams,
                "scores",
                lambda rows, maps: maps,
                shards.row_bytes(stored["arrays"]["scores"]),
            )
        },
    )


def example(
    config: configs.IRNetConfig, batch: Mapping[str, Tensor], step: int
) -> tuple[Tensor, Tensor]:
    """Return images_NHW and seeds_NKhw of a batch, at stride 4, augmented if the config says so.

    Pixels without a CAM are ignored: outside the image after augmentation, and outside the central
    crop that the classifier has seen.
    """
    images_NHW, maps_NKhw, inside_Nhw = batch["images"], batch["maps"].float(), None
    height, width = (-(-side // irnet.STRIDE) for side in images_NHW.shape[1:])
    if "shapes" in batch:
        seen_N1hw = centre_crop.inside(batch["shapes"].tolist(), images_NHW.shape[-1])[:, None]
        maps_NKhw = torch.cat([maps_NKhw, seen_N1hw.to(maps_NKhw)], dim=1)
    scales = config.smallest_scale, config.largest_scale
    if scales == (1, 1):
        maps_NKhw = interpolate(
            maps_NKhw, size=(height, width), mode="bilinear", align_corners=False
        )
    else:
        generator = torch.Generator().manual_seed(derive(config.seed, "irnet views", step))
        images_NHW, maps_NKhw, inside_Nhw = augmentation.scaled_crops(
            images_NHW, maps_NKhw, scales, (height, width), generator
        )
    if "shapes" in batch:
        maps_NKhw, seen_Nhw = maps_NKhw[:, :-1], maps_NKhw[:, -1] > 0.5
        inside_Nhw = seen_Nhw if inside_Nhw is None else inside_Nhw & seen_Nhw
    seeds_NKhw = irnet_losses.seeds(
        maps_NKhw, batch["present"], config.foreground, config.background
    )
    if inside_Nhw is not None:
        seeds_NKhw.masked_fill_(~inside_Nhw[:, None], irnet_losses.IGNORE)
    return images_NHW, seeds_NKhw


def normalisation(config: configs.IRNetConfig, inputs: Mapping[str, Path]) -> str:
    """Return the normalisation (`encoders.normalisation`) that the backbone was trained with.

    Encoders of this study's classifier say it if it isn't that of their init.
    """
    if config.init == "random":
        return config.init
    description = encoders.describe(inputs["encoder"] / artifacts.ENCODER_WEIGHTS)
    return str(description.get("normalisation", config.init))
