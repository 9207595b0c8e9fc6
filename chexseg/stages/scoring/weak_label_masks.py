"""The rule that makes weak masks of the stored scores, for training and for counting pixels.

The shards of weak labels hold float16 scores and the rule: ``thresholds`` in their metadata
(pathology -> number, or null), ``fill_holes`` in their metadata if it is true, and the optional
column ``image_thresholds``, float32 by pathology. A pixel is in the mask if its upsampled score is
above both thresholds. Otsu's threshold has only the second one, and infinity empties a mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from chexseg.data import radiographs, shards
from chexseg.pathologies import PATHOLOGIES
from chexseg.saliency.weak_masks import possibly_present, weak_masks

#: Column of the thresholds of each image.
IMAGE_THRESHOLDS = "image_thresholds"


@dataclass(frozen=True)
class MaskRule:
    """Makes the weak masks of some images and pathologies, N and K, from their stored scores."""

    thresholds_NK: Tensor
    present_NK: Tensor
    pathologies: tuple[str, ...]
    size: int
    fill_holes: bool

    @classmethod
    def of(
        cls,
        directory: Path,
        split: Path,
        image_ids: Sequence[str],
        negatives_empty: bool,
        thresholds: Mapping[str, float | None] | None = None,
        pathologies: Sequence[str] = PATHOLOGIES,
    ) -> MaskRule:
        """Return the rule of the named images in a directory of shards.

        split: the ingested images. negatives_empty: empty the mask where the image-level label is
        negative or blank; otherwise an image has all its masks, whatever its labels say.
        thresholds: those of the shards' metadata, which scores of `valid` lack.
        """
        metadata = shards.metadata(shards.files(directory)[0])
        thresholds = metadata["thresholds"] if thresholds is None else thresholds
        chosen = [PATHOLOGIES.index(name) for name in pathologies]
        thresholds_K = torch.tensor([thresholds[name] or 0.0 for name in pathologies])
        thresholds_NK = thresholds_K.expand(len(image_ids), -1)
        if IMAGE_THRESHOLDS in metadata["arrays"]:
            image_NK = radiographs.load_cached(directory, IMAGE_THRESHOLDS, image_ids)[:, chosen]
            thresholds_NK = torch.maximum(thresholds_NK, image_NK)
        return cls(
            thresholds_NK,
            present(split, image_ids, negatives_empty)[:, chosen],
            tuple(pathologies),
            radiographs.image_size(split),
            metadata.get("fill_holes", False),
        )

    def masks(self, rows: np.ndarray | slice, scores_NKhw: Tensor) -> Tensor:
        """Return masks_NKHW, bool, of the images in these rows; scores of all ten pathologies."""
        chosen = [PATHOLOGIES.index(name) for name in self.pathologies]
        return weak_masks(
            scores_NKhw[:, chosen],
            self.thresholds_NK[rows],
            self.present_NK[rows],
            self.size,
            self.fill_holes,
        )


def present(split: Path, image_ids: Sequence[str], negatives_empty: bool) -> Tensor:
    """Return present_NK, bool: False if the image-level label rules the pathology out.

    All True unless `negatives_empty`.
    """
    table = radiographs.index(split, set(image_ids)).set_index("image_id").loc[list(image_ids)]
    present_NK = possibly_present(torch.from_numpy(radiographs.labels(table, PATHOLOGIES)))
    return present_NK if negatives_empty else torch.ones_like(present_NK)
