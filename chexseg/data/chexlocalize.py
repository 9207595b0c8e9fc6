"""CheXlocalize's published mask files: read, written and checked.

A mask file is ``{image id: {pathology: {"size": [height, width], "counts": COCO RLE}}}`` at the image's own size
(Saporta et al. 2022, https://github.com/rajpurkarlab/cheXlocalize). Images without any mask are simply not named.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from chexseg.data import strict_json
from chexseg.data.remote_path import Readable
from chexseg.errors import UserError, nearest
from chexseg.pathologies import ALIASES, PATHOLOGIES

#: Where the mask files stand below a data root. ``hb`` is the human benchmark: other radiologists on the test set.
FILES = {
    "valid": "CheXlocalize/gt_segmentations_val.json",
    "test": "CheXlocalize/gt_segmentations_test.json",
    "radiologists": "CheXlocalize/hb_segmentations_test.json",
}

#: Pixels of the largest mask: Pillow opens no larger image, and pycocotools multiplies height and width in 32 bits.
MAX_PIXELS = 178_956_970
_SIZE = f"[height, width] of at most {MAX_PIXELS} pixels"


class MaskFile(Mapping[str, dict[str, dict]]):
    """A mask file: image id -> pathology -> run-length mask, decoded only on demand."""

    def __init__(self, path: Readable, entries: dict[str, dict[str, dict]]):
        self.path, self._entries = path, entries

    def __getitem__(self, image_id: str) -> dict[str, dict]:
        return self._entries[image_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    @cached_property
    def pathologies(self) -> tuple[str, ...]:
        """The pathologies that any image of the file names, in the project's order; their masks may all be empty."""
        named = {name for entry in self._entries.values() for name in entry}
        return tuple(name for name in PATHOLOGIES if name in named)

    def renamed(self, names: Mapping[str, str]) -> MaskFile:
        """Return the same masks with other image ids: id in the file -> new id; ids not in `names` stay."""
        return MaskFile(
            self.path,
            {names.get(image_id, image_id): entry for image_id, entry in self._entries.items()},
        )

    def size(self, image_id: str) -> tuple[int, int]:
        """(height, width) of an image's masks. Raises `UserError` if they don't agree."""
        sizes = sorted({tuple(rle["size"]) for rle in self[image_id].values()})
        if len(sizes) != 1:
            found = ", ".join(f"{height} x {width}" for height, width in sizes)
            raise UserError(
                f"{self.path}: {image_id}: found masks of the sizes {found}; allowed: one size an image"
            )
        return sizes[0]

    def check_size(
        self,
        image_id: str,
        path: object,
        shape: tuple[int, ...],
        stored: tuple[int, ...] | None = None,
    ) -> None:
        """Raises `UserError` if an image's masks aren't of its size: `shape` is (height, width) of the image at `path`.

        Masks belong to the image as it is shown. stored: its size in the file, which differs if EXIF turns it to its side.
        """
        size = self.size(image_id)
        if size != tuple(shape):
            sideways = (
                "; hint: they fit it before its EXIF orientation is applied: turn the masks"
                if size == stored
                else ""
            )
            raise UserError(
                f"{self.path}: {image_id}: the masks are {size[0]} x {size[1]} (height x width);"
                f" allowed: {shape[0]} x {shape[1]}, the size of {path}{sideways}"
            )

    def runs(self, image_id: str, pathology: str) -> dict | None:
        """One mask as pycocotools takes it, its runs checked; None if the file doesn't name it."""
        rle = self[image_id].get(pathology)
        return None if rle is None else checked(rle, f"{self.path}: {image_id}: {pathology}")

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


def read(path: Readable) -> MaskFile:
    """Read a mask file; aliases are resolved. Raises `UserError` for the first fault that `scan` finds."""
    mask_file, faults = scan(path)
    if faults:
        raise UserError(faults[0][1])
    return mask_file


def scan(path: Readable) -> tuple[MaskFile, list[tuple[str, str]]]:
    """What of a mask file can be read, and every fault of its structure as (kind, message). The runs are not looked at."""
    try:
        document, twice = strict_json.read(path)
    except OSError as error:
        missing = f"{path}: cannot be read ({error.strerror}); allowed: a CheXlocalize mask file"
        return MaskFile(path, {}), [
            (
                "missing file" if isinstance(error, FileNotFoundError) else "unreadable mask file",
                missing,
            )
        ]
    except ValueError as error:
        return MaskFile(path, {}), [
            (
                "unreadable mask file",
                f"{path}: not JSON ({error}); allowed: a CheXlocalize mask file",
            )
        ]
    if not isinstance(document, dict):
        found = f"{path}: found a {type(document).__name__}; allowed: an object of image ids"
        return MaskFile(path, {}), [("unreadable mask file", found)]
    faults = [
        ("named twice", f"{path}: {key!r} stands there twice in one object; allowed: once")
        for key in twice
    ]
    entries = {}
    for image_id, entry in document.items():
        if not strict_json.is_one_line(image_id):
            faults.append(
                (
                    "malformed mask",
                    f"{path}: found the image id {image_id!r}; allowed: printable characters",
                )
            )
            continue
        if not isinstance(entry, dict) or not entry:
            found = f"{path}: {image_id}: found {_short(entry)}; allowed: an object of pathologies, at least one"
            faults.append(("malformed mask", found))
            continue
        good = {}
        for name, rle in entry.items():
            canonical = ALIASES.get(name, name)
            if canonical not in PATHOLOGIES:
                found = (
                    f"{path}: {image_id}: unknown pathology {name!r}{nearest(name, PATHOLOGIES)}"
                )
                faults.append(("unknown pathology", f"{found}; allowed: {', '.join(PATHOLOGIES)}"))
            elif canonical in good:
                faults.append(
                    (
                        "named twice",
                        f"{path}: {image_id}: {name} stands there under two names; allowed: once",
                    )
                )
            elif not _is_run_length(rle):
                allowed = f"{{'size': {_SIZE}, 'counts': COCO run-length string}}"
                faults.append(
                    (
                        "malformed mask",
                        f"{path}: {image_id}: {name}: found {_short(rle)}; allowed: {allowed}",
                    )
                )
            else:
                good[canonical] = rle
        if good:
            entries[image_id] = good
    return MaskFile(path, entries), faults


def _is_run_length(rle: Any) -> bool:
    if not isinstance(rle, dict) or not isinstance(rle.get("counts"), str):
        return False
    return _is_size(rle.get("size"))


def _is_size(size: Any) -> bool:
    if (
        not isinstance(size, list)
        or len(size) != 2
        or not all(type(n) is int and n > 0 for n in size)
    ):
        return False
    return size[0] * size[1] <= MAX_PIXELS


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def write(path: Path, masks: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Write boolean masks (image id -> pathology -> mask_HW) as a published mask file."""
    write_runs(
        path,
        {
            image_id: {name: encode(mask) for name, mask in entry.items()}
            for image_id, entry in masks.items()
        },
    )


def write_runs(path: Path, runs: Mapping[str, Mapping[str, dict]]) -> None:
    """Write masks that are run lengths already (image id -> pathology -> `encode`'s) as a published mask file."""
    Path(path).write_text(json.dumps(runs))


def encode(mask_HW: np.ndarray) -> dict:
    """One boolean mask as ``{"size": [height, width], "counts": COCO RLE}``."""
    rle = coco.encode(np.asfortranarray(mask_HW, dtype=np.uint8))
    return {"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode("ascii")}


def decode(rle: dict, where: str) -> np.ndarray:
    """The boolean mask_HW of a run-length mask. Raises `UserError` naming `where` if the runs don't fill the size."""
    return coco.decode(checked(rle, where)).astype(bool)


def checked(rle: dict, where: str) -> dict:
    """The run-length mask as pycocotools takes it. Raises `UserError` naming `where` if the runs don't fill the size.

    pycocotools trusts size and string, and reads or writes past its buffers where either is wrong.
    """
    if not _is_size(rle["size"]):
        raise UserError(f"{where}: found the size {_short(rle['size'])}; allowed: {_SIZE}")
    height, width = rle["size"]
    total = run_total(rle["counts"])
    if total != height * width:
        found = "found no COCO run lengths" if total is None else f"the runs cover {total} pixels"
        raise UserError(f"{where}: {found}; allowed: {height} x {width} = {height * width} pixels")
    return {"size": [height, width], "counts": rle["counts"].encode("ascii")}


def run_total(counts: str) -> int | None:
    """Pixels that a COCO run-length string covers; None for a string that is none."""
    runs = run_lengths(counts)
    return None if runs is None else int(runs.sum())


def run_lengths(counts: str) -> np.ndarray | None:
    """The runs of a COCO run-length string, int64, unset pixels first, down the columns; None for a string that is none.

    The format: each character less 48 is a digit; its lower five bits belong to the number, least significant digit
    first, and its sixth bit says that more digits follow; the fifth bit of the last digit is the sign. From the fourth run
    on, numbers are differences to the run two before. pycocotools computes in 32 bits, so that more than six digits are
    refused.
    """
    if not counts or not counts.isascii():
        return None if counts else np.zeros(0, dtype=np.int64)
    digits = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(digits & 32 == 0)
    if not len(last) or last[-1] != len(digits) - 1 or digits.min() < 0 or digits.max() > 63:
        return None
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if lengths.max() > 6:
        return None
    shifts = 5 * (np.arange(len(digits)) - np.repeat(first, lengths))
    runs = np.add.reduceat((digits & 31) << shifts, first) - (
        (digits[last] & 16 != 0) << (5 * lengths)
    )
    for start in (1, 2):
        runs[start::2] = np.cumsum(runs[start::2])
    return None if runs.min() < 0 else runs
