"""Predicted and expert masks at each image's original size instead of the training size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from chexseg.data import chexlocalize, radiographs
from chexseg.data.images import Frame
from chexseg.data.raw_split import RawSplit
from chexseg.data.remote_path import Location
from chexseg.saliency.thresholds import binarise


def masks(logits_KSS: Tensor, thresholds_K: Tensor, frame: Frame) -> Tensor:
    """Return masks_KHW (bool, on the logits' device) of one image at its original size.

    Padding is cut off and the logits are resized bilinearly. A pixel is positive if its probability
    is strictly above its pathology's threshold. Resizing before thresholding is CheXlocalize's
    order.
    """
    inner_KHW, size = frame.cut(logits_KSS), (frame.height, frame.width)
    out_KHW = torch.empty((len(inner_KHW), *size), dtype=torch.bool, device=inner_KHW.device)
    # One map at a time: ten maps of a full-size radiograph would take 260 MB of floats, twice.
    for k, threshold in enumerate(thresholds_K):
        large_11HW = torch.nn.functional.interpolate(
            inner_KHW[None, k : k + 1], size, mode="bilinear", align_corners=False
        )
        out_KHW[k] = binarise(large_11HW.sigmoid(), threshold[None])[0, 0]
    return out_KHW


@dataclass(frozen=True)
class ExpertMasks:
    """The published expert masks of the test set.

    mask_file: the masks; ingest has checked their sizes.
    frames: image id -> position of the image in its training square.
    fingerprint: fingerprint of the raw data that the masks are from.
    """

    mask_file: chexlocalize.MaskFile
    frames: Mapping[str, Frame]
    fingerprint: str

    @classmethod
    def of_test(cls, test: Path, data: Location, image_ids: Sequence[str]) -> ExpertMasks:
        """Return the masks of these images. `test` is ingested; `data` is the raw data root."""
        table = (
            radiographs.index(test).set_index("image_id").loc[list(image_ids), ["height", "width"]]
        )
        size = radiographs.image_size(test)
        frames = {
            row.Index: Frame(int(row.height), int(row.width), size) for row in table.itertuples()
        }
        raw = RawSplit(data, "test")
        return cls(raw.masks(), frames, raw.fingerprint())
