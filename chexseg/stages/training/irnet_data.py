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
from chexseg.saliency import centre_crop, dense_crf, weak_masks
from chexseg.seeds import derive
from chexseg.stages import api, artifacts, configs


def source(
    config: configs.IRNetConfig,
    inputs: Mapping[str, Path],
    image_ids: Sequence[str],
    context: api.StageContext,
) -> Source:
    """Return a source of ``images``, their ``maps``, and the classes ``present`` by their labels.

    Also ``shapes``, (height, width) of the original images, and ``windows``, what the classifier
    has seen of them (`centre_crop.windows`), if it has seen crops.
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
        shapes = table[["height", "width"]].to_numpy()
        columns["shapes"] = torch.tensor(shapes)
        columns["windows"] = centre_crop.windows(
            shapes.tolist(), radiographs.image_size(inputs["train"])
        )
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
                shards.row_bytes(stored["arrays"]["scores"]),
            )
        },
    )


def prepared(
    config: configs.IRNetConfig, samples: Mapping[str, Tensor], step: int
) -> dict[str, Tensor]:
    """Return the batch of a step, for `example`: random draws, and maps or seeds after the CRF."""
    batch = {
        name: samples[name] for name in ("images", "maps", "present", "windows") if name in samples
    }
    if config.crf:  # a library for the CPU
        batch["maps"] = _seeds_after_crf(config, samples)
    if config.scales != (1, 1):
        generator = torch.Generator().manual_seed(derive(config.seed, "irnet views", step))
        batch["draws"] = augmentation.crop_draws(len(batch["images"]), generator)
    return batch


def example(config: configs.IRNetConfig, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return images_NHW and seeds_NKhw of a batch, at stride 4, augmented if the config says so.

    Pixels without a CAM are ignored: outside the image after augmentation, and outside the central
    crop that the classifier has seen.
    """
    images_NHW, inside_Nhw = batch["images"], None
    height, width = (-(-side // irnet.STRIDE) for side in images_NHW.shape[1:])
    values_NKhw = batch["maps"].float()
    if "windows" in batch:
        seen_N1hw = centre_crop.inside(batch["windows"], images_NHW.shape[-1])[:, None]
        values_NKhw = torch.cat([values_NKhw, seen_N1hw.to(values_NKhw)], dim=1)
    if config.scales == (1, 1):
        values_NKhw = interpolate(
            values_NKhw, size=(height, width), mode="bilinear", align_corners=False
        )
    else:
        images_NHW, values_NKhw, inside_Nhw = augmentation.scaled_crops(
            images_NHW,
            values_NKhw,
            config.scales,
            (height, width),
            batch["draws"],
            "nearest" if config.crf else "bilinear",
        )
    if "windows" in batch:
        values_NKhw, seen_Nhw = values_NKhw[:, :-1], values_NKhw[:, -1] > 0.5
        inside_Nhw = seen_Nhw if inside_Nhw is None else inside_Nhw & seen_Nhw
    if config.crf:
        seeds_NKhw = values_NKhw.to(torch.uint8)
    else:
        seeds_NKhw = irnet_losses.seeds(
            values_NKhw, batch["present"], config.foreground, config.background
        )
    if inside_Nhw is not None:
        seeds_NKhw.masked_fill_(~inside_Nhw[:, None], irnet_losses.IGNORE)
    return images_NHW, seeds_NKhw


def _seeds_after_crf(config: configs.IRNetConfig, batch: Mapping[str, Tensor]) -> Tensor:
    """Return seeds_NKhw at stride 4 after the CRF, without augmentation.

    As published, each class has two masks, of the pixels above `foreground` and of those not below
    `background`, and both go through the CRF. Afterwards, the first is foreground, and what is in
    neither is background. If the classifier has seen a central crop, the CRF sees it only.
    """
    images_NHW = batch["images"]
    size = images_NHW.shape[-1]
    maps_NKHW = weak_masks.upsample(batch["maps"], size)
    seeds_NKHW = torch.full_like(maps_NKHW, irnet_losses.IGNORE, dtype=torch.uint8)
    for n, image_HW in enumerate(images_NHW):
        seeded = batch["present"][n].nonzero()[:, 0]
        if not len(seeded):
            continue
        rows, columns = slice(None), slice(None)
        if "shapes" in batch:
            height, width = batch["shapes"][n].tolist()
            rows, columns = centre_crop.pixels(height, width, size)
        maps_khw = maps_NKHW[n, seeded][:, rows, columns]
        masks_Mhw = torch.cat([maps_khw > config.foreground, maps_khw >= config.background])
        # The published crop has `size` pixels a side.
        scale = config.crf_scale(size) * min(maps_khw.shape[1:]) / size
        foreground_khw, possible_khw = dense_crf.refine(
            image_HW[rows, columns], masks_Mhw, scale
        ).chunk(2)
        seeds_khw = torch.full_like(maps_khw, irnet_losses.IGNORE, dtype=torch.uint8)
        seeds_khw[~possible_khw] = irnet_losses.BACKGROUND
        seeds_khw[foreground_khw] = irnet_losses.FOREGROUND
        seeds_NKHW[n, seeded, rows, columns] = seeds_khw
    side = -(-size // irnet.STRIDE)
    return interpolate(seeds_NKHW, size=(side, side), mode="nearest-exact")


def normalisation(config: configs.IRNetConfig, inputs: Mapping[str, Path]) -> str:
    """Return the normalisation (`encoders.normalisation`) that the backbone was trained with.

    Encoders of this study's classifier say it if it isn't that of their init.
    """
    if config.init == "random":
        return config.init
    description = encoders.describe(inputs["encoder"] / artifacts.ENCODER_WEIGHTS)
    return str(description.get("normalisation", config.init))
