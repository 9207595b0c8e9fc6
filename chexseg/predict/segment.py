"""Segment new images: masks at native resolution as a CheXlocalize file, and overlays."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from chexseg.data import chexlocalize, images
from chexseg.data.images import Frame
from chexseg.data.resampling import ImageResize
from chexseg.errors import DamagedArtifactError, UserError
from chexseg.models import encoders
from chexseg.predict import image_files, overlay
from chexseg.progress import Reporter
from chexseg.stages import score
from chexseg.stages.artifacts import SEGMENTER_WEIGHTS
from chexseg.stages.scoring import native_resolution
from chexseg.store import manifest
from chexseg.store.links import refuse_links

MASKS, OVERLAYS = "segmentations.json", "overlays"
BATCH = 16
#: The name of a result's directory in a store: the first 20 digits of its key.
_SHORT_KEY = re.compile(r"[0-9a-f]{20}")


@dataclass(frozen=True)
class Segmenter:
    """A network in eval mode with the settings that its input and output need."""

    model: nn.Module
    pathologies: tuple[str, ...]
    thresholds_K: Tensor
    size: int  # of the square that the network takes, in pixels
    init: str  # the start of its encoder, which decides the normalisation
    device: str
    image_resize: ImageResize = "antialiased"


def load(path: Path) -> Segmenter:
    """Load a fitted segmenter, given its directory or its weights file; on a GPU if available.

    Raises `UserError` if there is no segmenter, and `DamagedArtifactError` for damaged files and
    for a directory of a store that contains the result of another key.
    """
    directory = path.parent if path.name == SEGMENTER_WEIGHTS else path
    if not (directory / SEGMENTER_WEIGHTS).is_file():
        raise UserError(
            f"{path}: found no {SEGMENTER_WEIGHTS};"
            " expected: the directory of a fitted segmenter (STORE/fit/KEY), or that file"
        )
    _check_key(directory)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, description = score.load_segmenter(directory, device)
    resize = description.get("image_resize", "antialiased")
    if resize not in (methods := get_args(ImageResize)):
        raise DamagedArtifactError(
            f"{directory}: image_resize: found {resize!r}; expected one of {', '.join(methods)}"
        )
    return Segmenter(
        model,
        tuple(description["pathologies"]),
        torch.tensor(description["thresholds"]),
        description["size"],
        description["init"],
        device,
        resize,
    )


def _check_key(directory: Path) -> None:
    """Raise an error if a store's directory isn't the result that its name says.

    `UserError` for a link in a store, `DamagedArtifactError` for another key or no manifest.
    """
    path = directory.absolute()
    if _SHORT_KEY.fullmatch(path.name) and path.parent.name == "fit":
        for file in (manifest.MANIFEST, SEGMENTER_WEIGHTS, "segmenter.json"):
            refuse_links(path.parent.parent, path / file)
        if not (path / manifest.MANIFEST).is_file():
            raise DamagedArtifactError(
                f"{directory}: no {manifest.MANIFEST}, so not a finished fit"
            )
    name = directory.resolve().name
    if _SHORT_KEY.fullmatch(name) and (directory / manifest.MANIFEST).is_file():
        key = manifest.load(directory)["key"]
        if not key.startswith(name):
            raise DamagedArtifactError(
                f"{directory / manifest.MANIFEST}: key: found {key[:20]}...; expected {name}..."
            )


def run(
    segmenter: Segmenter, files: Mapping[str, Path], out: Path, progress: Reporter
) -> dict[str, int]:
    """Write `MASKS` and the PNGs in `OVERLAYS` into `out`; return pathology -> number of images.

    files: image id -> file (`image_files.find`). All files are read once before prediction starts.
    Images are prepared for the network as `ingest` does. Raises `UserError` for an unreadable file.
    """
    image_files.check(files, lambda done: progress.update("check", done, len(files), "images"))
    (out / OVERLAYS).mkdir(parents=True)
    runs: dict[str, dict[str, dict[str, Any]]] = {}
    counts = dict.fromkeys(segmenter.pathologies, 0)
    ids = list(files)
    for first in range(0, len(ids), BATCH):
        batch = ids[first : first + BATCH]
        pixels = [images.decode(files[image_id]) for image_id in batch]
        for image_id, pixels_HW, masks_KHW in zip(
            batch, pixels, masks(segmenter, pixels), strict=True
        ):
            named = dict(zip(segmenter.pathologies, masks_KHW, strict=True))
            runs[image_id] = {name: chexlocalize.encode(mask_HW) for name, mask_HW in named.items()}
            counts = {name: counts[name] + bool(mask_HW.any()) for name, mask_HW in named.items()}
            picture = overlay.picture(pixels_HW, masks_KHW, segmenter.pathologies, image_id)
            # Pillow sees no suffix in names that begin with dots, such as "....png".
            picture.save(out / OVERLAYS / f"{image_id}.png", format="PNG")
            progress.update("predict", len(runs), len(files), "images")
    chexlocalize.write_runs(out / MASKS, runs)
    return counts


def masks(segmenter: Segmenter, pixels: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield masks_KHW (bool) at native resolution for each pixels_HW (uint8) of a batch."""
    frames = [Frame(len(pixels_HW), pixels_HW.shape[1], segmenter.size) for pixels_HW in pixels]
    squares_NHW = np.stack(
        [
            frame.image(pixels_HW, segmenter.image_resize)
            for frame, pixels_HW in zip(frames, pixels, strict=True)
        ]
    )
    with torch.inference_mode():
        images_NCHW = encoders.prepare(
            torch.from_numpy(squares_NHW).to(segmenter.device), segmenter.init
        )
        logits_NKSS = segmenter.model(images_NCHW)
    for logits_KSS, frame in zip(logits_NKSS, frames, strict=True):
        yield native_resolution.masks(logits_KSS, segmenter.thresholds_K, frame).cpu().numpy()
