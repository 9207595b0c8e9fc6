"""CheXlocalize's published JSON files: run-length masks, contours; read, written and checked.

A mask file is ``{image id: {pathology: {"size": [height, width], "counts": COCO RLE}}}`` at the image's own size
(Saporta et al. 2022, https://github.com/rajpurkarlab/cheXlocalize). Images without any mask are simply not named.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from pycocotools import mask as coco

from chexseg.errors import UserError, nearest
from chexseg.pathologies import ALIASES, PATHOLOGIES

#: Where the mask files stand below a data root. ``hb`` is the human benchmark: other radiologists on the test set.
FILES = {
    "valid": "CheXlocalize/gt_segmentations_val.json",
    "test": "CheXlocalize/gt_segmentations_test.json",
    "radiologists": "CheXlocalize/hb_segmentations_test.json",
}


class MaskFile(Mapping[str, dict[str, dict]]):
    """A mask file: image id -> pathology -> run-length mask, decoded only on demand.

    Raises `UserError`, naming file and field, for what isn't a mask file.
    """

    def __init__(self, path: Path, entries: dict[str, dict[str, dict]]):
        self.path, self._entries = path, entries

    def __getitem__(self, image_id: str) -> dict[str, dict]:
        return self._entries[image_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def size(self, image_id: str) -> tuple[int, int]:
        """(height, width) of an image's masks; all masks of an image must agree."""
        sizes = {tuple(rle["size"]) for rle in self[image_id].values()}
        if len(sizes) != 1:
            raise UserError(
                f"{self.path}: {image_id}: masks of different sizes {sorted(sizes)}; allowed: one size an image"
            )
        return sizes.pop()

    def masks(self, image_id: str, pathologies: Iterable[str] = PATHOLOGIES) -> np.ndarray:
        """Boolean masks_KHW at the image's own size; a pathology the file doesn't name is all false."""
        height, width = self.size(image_id)
        entry = self[image_id]
        names = list(pathologies)
        out_KHW = np.zeros((len(names), height, width), dtype=bool)
        for k, name in enumerate(names):
            if name in entry:
                out_KHW[k] = decode(entry[name], f"{self.path}: {image_id}: {name}")
        return out_KHW


def read(path: Path) -> MaskFile:
    """Read a mask file; aliases are resolved. Raises `UserError` for a missing, damaged or foreign file."""
    path = Path(path)
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); a CheXlocalize mask file is needed there"
        ) from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    if not isinstance(document, dict):
        raise UserError(f"{path}: found a {type(document).__name__}; allowed: an object of image ids")
    entries = {}
    for image_id, entry in document.items():
        if not isinstance(entry, dict) or not entry:
            raise UserError(f"{path}: {image_id}: found {str(entry)[:40]!r}; allowed: an object of pathologies")
        entries[image_id] = {}
        for name, rle in entry.items():
            canonical = ALIASES.get(name, name)
            if canonical not in PATHOLOGIES:
                raise UserError(
                    f"{path}: {image_id}: unknown pathology {name!r}{nearest(name, PATHOLOGIES)}; allowed: {', '.join(PATHOLOGIES)}"
                )
            size = rle.get("size") if isinstance(rle, dict) else None
            if not (
                isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)
            ) or not isinstance(rle.get("counts"), str):
                raise UserError(
                    f"{path}: {image_id}: {name}: allowed: {{'size': [height, width], 'counts': COCO RLE string}}"
                )
            entries[image_id][canonical] = rle
    return MaskFile(path, entries)


def write(path: Path, masks: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Write boolean masks (image id -> pathology -> mask_HW) as a published mask file."""
    document = {
        image_id: {name: encode(mask_HW) for name, mask_HW in entry.items()} for image_id, entry in masks.items()
    }
    Path(path).write_text(json.dumps(document))


def encode(mask_HW: np.ndarray) -> dict:
    """One boolean mask as ``{"size": [height, width], "counts": COCO RLE}``."""
    rle = coco.encode(np.asfortranarray(mask_HW, dtype=np.uint8))
    return {"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode("ascii")}


def decode(rle: dict, where: str) -> np.ndarray:
    """The boolean mask_HW of a run-length mask. Raises `UserError` naming `where` if the runs don't fill the size."""
    height, width = rle["size"]
    if run_total(rle["counts"]) != height * width:
        raise UserError(
            f"{where}: the runs cover {run_total(rle['counts'])} pixels; allowed: {height} x {width} = {height * width}"
        )
    return coco.decode({"size": [height, width], "counts": rle["counts"].encode("ascii")}).astype(bool)


def run_total(counts: str) -> int:
    """Pixels that a COCO run-length string covers.

    pycocotools trusts the string and writes past its buffer where the runs are longer than the image, so a damaged
    file must be found before it is decoded. The format: base 48 digits of 5 bits, least significant first, bit 6 saying
    that more follow; from the third run on, differences to the run two before.
    """
    runs: list[int] = []
    value = shift = 0
    for char in counts:
        digit = ord(char) - 48
        if not 0 <= digit < 64:
            return -1
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            if digit & 16:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            if runs[-1] < 0:
                return -1
            value = shift = 0
    return sum(runs)
