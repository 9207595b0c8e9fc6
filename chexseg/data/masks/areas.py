"""Decode the run lengths of all masks of a mask file."""

from __future__ import annotations

from pycocotools import mask as coco

from chexseg.data.chexlocalize import MaskFile
from chexseg.errors import UserError


def areas(masks: MaskFile) -> tuple[dict[tuple[str, str], int], list[str]]:
    """Return (image id, pathology) -> pixels of each mask, and the message of each damaged one."""
    pixels: dict[tuple[str, str], int] = {}
    faults: list[str] = []
    for image_id, entry in masks.items():
        for name in entry:
            try:
                pixels[image_id, name] = int(coco.area(masks.runs(image_id, name)))
            except UserError as error:
                faults.append(str(error))
    return pixels, faults
