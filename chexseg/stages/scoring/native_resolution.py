"""A segmenter's masks, and the experts', at each image's own size instead of the training square's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from chexseg.data import chexlocalize, radiographs
from chexseg.data.images import Frame
from chexseg.data.raw_split import RawSplit
from chexseg.data.remote_path import Location
from chexseg.saliency.thresholds import binarise


def masks(logits_KSS: Any, thresholds_K: Any, frame: Frame) -> Any:
    """One image's logits on the square -> masks_KHW at its own size: bool, on the logits' device.

    The borders are cut off, the rest is resized bilinearly, and a pixel is positive where its probability is strictly above
    its pathology's threshold (CheXlocalize's order: resized first, then thresholded).
    """
    inner_KHW, size = frame.cut(logits_KSS), (frame.height, frame.width)
    out_KHW = torch.empty((len(inner_KHW), *size), dtype=torch.bool, device=inner_KHW.device)
    # One by one: ten maps of a full-size radiograph would be 260 MB of floats, twice.
    for k, threshold in enumerate(thresholds_K):
        large_11HW = torch.nn.functional.interpolate(
            inner_KHW[None, k : k + 1], size, mode="bilinear", align_corners=False
        )
        out_KHW[k] = binarise(large_11HW.sigmoid(), threshold[None])[0, 0]
    return out_KHW


@dataclass(frozen=True)
class Truth:
    """The experts' masks of the test set as published, and where each image lies in its square.

    fingerprint: of the raw data that the masks are from.
    """

    mask_file: chexlocalize.MaskFile
    frames: Mapping[str, Frame]
    fingerprint: str

    @classmethod
    def of_test(cls, inputs: Mapping[str, Location], image_ids: Sequence[str]) -> Truth:
        """Of the named images. `inputs`: ``test``, ingested, and the root of the raw data, ``data``."""
        table = (
            radiographs.index(inputs["test"])
            .set_index("image_id")
            .loc[list(image_ids), ["height", "width"]]
        )
        size = radiographs.image_size(inputs["test"])
        frames = {
            row.Index: Frame(int(row.height), int(row.width), size) for row in table.itertuples()
        }
        raw = RawSplit(inputs["data"], "test")
        return cls(raw.masks(), frames, raw.fingerprint())

    def masks(self, image_id: str, pathologies: Sequence[str]) -> Any:
        """masks_KHW of one image: bool, on the CPU. Ingest has checked that they are of the image's size."""
        return torch.from_numpy(self.mask_file.masks(image_id, pathologies))
