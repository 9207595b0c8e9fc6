"""A finished segmenter on new images: masks at each image's own size as a CheXlocalize file, and an overlay of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from chexseg.data import chexlocalize, images
from chexseg.data.images import Frame
from chexseg.errors import UserError
from chexseg.models import encoders
from chexseg.predict import image_files, overlay
from chexseg.progress import Reporter
from chexseg.stages import score
from chexseg.stages.artifacts import SEGMENTER_WEIGHTS
from chexseg.stages.scoring import native_resolution

MASKS, OVERLAYS = "segmentations.json", "overlays"
BATCH = 16


@dataclass(frozen=True)
class Segmenter:
    """A network in eval mode, what it names, its thresholds, and what it takes."""

    model: Any
    pathologies: tuple[str, ...]
    thresholds_K: torch.Tensor
    size: int
    init: str
    device: str


def load(path: Path) -> Segmenter:
    """The segmenter of a fitted artifact: its directory, or the weights in it. On the GPU where there is one.

    Raises `UserError` for what is none, and for a damaged one.
    """
    directory = path.parent if path.name == SEGMENTER_WEIGHTS else path
    if not (directory / SEGMENTER_WEIGHTS).is_file():
        raise UserError(
            f"{path}: found no {SEGMENTER_WEIGHTS}; allowed: the directory of a fitted segmenter (STORE/fit/...), or that file"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, about = score.load_segmenter(directory, device)
    thresholds_K = torch.tensor(about["thresholds"])
    return Segmenter(
        model, tuple(about["pathologies"]), thresholds_K, about["size"], about["init"], device
    )


def run(
    segmenter: Segmenter, files: Mapping[str, Path], out: Path, watch: Reporter
) -> dict[str, int]:
    """Write `MASKS` and one PNG an image below `OVERLAYS` into the directory `out`; pathology -> images it was found on.

    files: image id -> file (`films.find`). All are read once before the first is worked on. The network's input is what
    `ingest` makes of an image. Raises `UserError` for a file that can't be read.
    """
    image_files.check(files, lambda done: watch.update("check", done, len(files), "images"))
    (out / OVERLAYS).mkdir(parents=True)
    runs: dict[str, dict[str, dict]] = {}
    found = dict.fromkeys(segmenter.pathologies, 0)
    ids = list(files)
    for first in range(0, len(ids), BATCH):
        batch = ids[first : first + BATCH]
        pixels = [images.decode(files[image_id]) for image_id in batch]
        for image_id, pixels_HW, masks_KHW in zip(
            batch, pixels, masks(segmenter, pixels), strict=True
        ):
            named = dict(zip(segmenter.pathologies, masks_KHW, strict=True))
            runs[image_id] = {name: chexlocalize.encode(mask_HW) for name, mask_HW in named.items()}
            found = {name: found[name] + bool(mask_HW.any()) for name, mask_HW in named.items()}
            picture = overlay.picture(pixels_HW, masks_KHW, segmenter.pathologies, image_id)
            picture.save(out / OVERLAYS / f"{image_id}.png")
            watch.update("predict", len(runs), len(files), "images")
    chexlocalize.write_runs(out / MASKS, runs)
    return found


def masks(segmenter: Segmenter, pixels: list[np.ndarray]) -> Iterator[np.ndarray]:
    """masks_KHW (bool) of each of a batch of images at its own size, one after the other, from pixels_HW (uint8)."""
    frames = [Frame(*pixels_HW.shape, segmenter.size) for pixels_HW in pixels]
    squares_NHW = np.stack(
        [frame.image(pixels_HW) for frame, pixels_HW in zip(frames, pixels, strict=True)]
    )
    with torch.inference_mode():
        images_NCHW = encoders.prepare(
            torch.from_numpy(squares_NHW).to(segmenter.device), segmenter.init
        )
        logits_NKSS = segmenter.model(images_NCHW)
    for logits_KSS, frame in zip(logits_NKSS, frames, strict=True):
        yield native_resolution.masks(logits_KSS, segmenter.thresholds_K, frame).cpu().numpy()
