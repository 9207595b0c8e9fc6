"""Count the human benchmark: other radiologists' masks against the ground truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from chexseg.data import chexlocalize, remote_path
from chexseg.data.masks import counts as mask_counts
from chexseg.data.masks.image_ids import renamed
from chexseg.data.remote_path import Location
from chexseg.data.resampling import MaskResize
from chexseg.errors import UserError


def counts(
    data: Location,
    image_ids: Sequence[str],
    pathologies: Sequence[str],
    size: int,
    resize: MaskResize = "nearest",
) -> tuple[np.ndarray | None, str]:
    """Return (counts_IK3 with the radiologists' masks as predictions, a note on their file).

    The counts are None if there is no file, if it names none of the images, or if it lacks a
    pathology of the test set: its mean wouldn't be comparable with the models'. Images missing from
    the file count as empty. The note may be empty.

    size: side in pixels of the squares in which pixels are counted; 0 for each image's native size.
    resize: how masks are resized to these squares. Raises `UserError` as `mask_counts.count` does.
    """
    path = data / chexlocalize.FILES["radiologists"]
    with remote_path.wrap_io_errors(path):
        if not path.is_file() and not path.is_dir():  # a folder is refused by the reader
            return None, ""
    truth, readers = chexlocalize.read(data / chexlocalize.FILES["test"]), chexlocalize.read(path)
    try:
        readers, matching = renamed(readers, image_ids, "the test set")
    except UserError as error:
        return None, f"{error}; the radiologists are left out"
    notes = list(matching.notes)
    if matching.missing:
        notes.append(
            f"{path}: doesn't name {len(matching.missing)} of {len(image_ids)} test images"
            f" ({matching.missing[0]}, ...): counted as empty"
        )
    counts_IK3 = mask_counts.count(truth, readers, image_ids, pathologies, size, resize)
    lacking = [
        name
        for k, name in enumerate(pathologies)
        if counts_IK3[:, k, 2].any() and name not in readers.pathologies
    ]
    if lacking:
        return None, f"{path}: doesn't name {', '.join(lacking)}; the radiologists are left out"
    return counts_IK3, "; ".join(notes)
