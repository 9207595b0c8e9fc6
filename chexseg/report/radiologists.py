"""The human benchmark: other radiologists' masks against the ground truth, counted as a segmenter's are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from chexseg.data import chexlocalize, location
from chexseg.data.location import Location
from chexseg.report import mask_counts


def counts(data: Location, image_ids: Sequence[str], pathologies: Sequence[str], size: int | None) -> np.ndarray | None:
    """counts_IK3 of `image_ids`, the radiologists' masks as predictions; None where the data set hasn't their file.

    size: of the squares in which pixels are counted; None counts at each image's own size. Raises `UserError` as
    `mask_counts.count` does.
    """
    path = data / chexlocalize.FILES["radiologists"]
    with location.reached(path):
        if not path.is_file():
            return None
    truth, readers = chexlocalize.read(data / chexlocalize.FILES["test"]), chexlocalize.read(path)
    return mask_counts.count(truth, readers, image_ids, pathologies, size or 0).counts_IK3
