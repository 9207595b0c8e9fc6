"""CheXlocalize's published mask files: reading, writing and checking them.

A mask file is ``{image id: {pathology: {"size": [height, width], "counts": COCO RLE}}}`` at the
image's original size (Saporta et al. 2022, https://github.com/rajpurkarlab/cheXlocalize).
Images without any mask are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from pycocotools import mask as coco

from chexseg.data import strict_json
from chexseg.data.formats.limits import MAX_PIXELS
from chexseg.data.remote_path import Readable
from chexseg.errors import UserError, nearest
from chexseg.pathologies import ALIASES, PATHOLOGIES

#: One mask: ``size`` ([height, width]) and ``counts`` (COCO's run-length string).
RunLengthMask: TypeAlias = dict[str, Any]

#: Mask files, relative to a data root. ``hb`` is the human benchmark: other radiologists' masks of
#: the test set.
FILES = {
    "valid": "CheXlocalize/gt_segmentations_val.json",
    "test": "CheXlocalize/gt_segmentations_test.json",
    "radiologists": "CheXlocalize/hb_segmentations_test.json",
}

_SIZE = f"[height, width] of at most {MAX_PIXELS} pixels"
_UNREADABLE = "unreadable mask file"


class MaskFile(dict[str, dict[str, RunLengthMask]]):
    """A mask file: image id -> pathology -> run-length mask. Masks are decoded on demand."""

    def __init__(self, path: Readable, entries: dict[str, dict[str, RunLengthMask]]):
        super().__init__(entries)
        self.path = path

    @cached_property
    def pathologies(self) -> tuple[str, ...]:
        """Return the pathologies that any image has an entry for; all their masks may be empty."""
        named = {name for entry in self.values() for name in entry}
        return tuple(name for name in PATHOLOGIES if name in named)

    def renamed(self, names: Mapping[str, str]) -> MaskFile:
        """Return the masks under other image ids (old id -> new id); other ids are unchanged."""
        return MaskFile(
            self.path,
            {names.get(image_id, image_id): entry for image_id, entry in self.items()},
        )

    def size(self, image_id: str) -> tuple[int, int]:
        """Return (height, width) of an image's masks. Raises `UserError` if they differ in size."""
        sizes = sorted({tuple(rle["size"]) for rle in self[image_id].values()})
        if len(sizes) != 1:
            listed = ", ".join(f"{height} x {width}" for height, width in sizes)
            raise UserError(
                f"{self.path}: {image_id}: found masks of the sizes {listed};"
                " expected one size per image"
            )
        return sizes[0]

    def check_size(
        self,
        image_id: str,
        path: object,
        shape: tuple[int, ...],
        stored: tuple[int, ...] | None = None,
    ) -> None:
        """Raise `UserError` unless an image's masks have the size of the image at `path`.

        shape: (height, width) as displayed, which the masks must have. stored: (height, width) in
        the file, which differs from `shape` if the EXIF orientation turns the image sideways.
        """
        size = self.size(image_id)
        if size != tuple(shape):
            hint = (
                "; hint: they fit it before its EXIF orientation is applied; rotate the masks"
                if size == stored
                else ""
            )
            raise UserError(
                f"{self.path}: {image_id}: the masks are {size[0]} x {size[1]} (height x width);"
                f" expected {shape[0]} x {shape[1]}, the size of {path}{hint}"
            )

    def runs(self, image_id: str, pathology: str) -> dict[str, Any] | None:
        """Return one mask as `checked` does; None if the image has no entry for the pathology."""
        rle = self[image_id].get(pathology)
        return None if rle is None else checked(rle, f"{self.path}: {image_id}: {pathology}")

    def masks(self, image_id: str, pathologies: Iterable[str] = PATHOLOGIES) -> np.ndarray:
        """Return boolean masks_KHW at the original size; pathologies without an entry are empty."""
        height, width = self.size(image_id)
        entry = self[image_id]
        names = list(pathologies)
        out_KHW = np.zeros((len(names), height, width), dtype=bool)
        for k, name in enumerate(names):
            if name in entry:
                out_KHW[k] = decode(entry[name], f"{self.path}: {image_id}: {name}")
        return out_KHW


def read(path: Readable) -> MaskFile:
    """Read a mask file and resolve aliases. Raises `UserError` for the first fault of `scan`."""
    mask_file, faults = scan(path)
    if faults:
        raise UserError(faults[0][1])
    return mask_file


def scan(path: Readable) -> tuple[MaskFile, list[tuple[str, str]]]:
    """Return the usable part of a mask file, and each fault of its structure as (kind, message).

    Run lengths are not decoded here; `checked` does that.
    """
    expected = "expected a CheXlocalize mask file"
    try:
        document, repeated = strict_json.read(path)
    except OSError as error:
        kind = "missing file" if isinstance(error, FileNotFoundError) else _UNREADABLE
        return MaskFile(path, {}), [
            (kind, f"{path}: cannot be read ({error.strerror}); {expected}")
        ]
    except ValueError as error:
        return MaskFile(path, {}), [(_UNREADABLE, f"{path}: not JSON ({error}); {expected}")]
    if not isinstance(document, dict):
        fault = f"{path}: found a {type(document).__name__}; expected an object of image ids"
        return MaskFile(path, {}), [(_UNREADABLE, fault)]
    faults = [
        ("named twice", f"{path}: found the key {key!r} twice in one object; expected once")
        for key in repeated
    ]
    entries = {}
    for image_id, entry in document.items():
        if not strict_json.is_one_line(image_id):
            faults.append(
                (
                    "malformed mask",
                    f"{path}: found the image id {image_id!r}; expected printable characters",
                )
            )
        elif not isinstance(entry, dict) or not entry:
            faults.append(
                (
                    "malformed mask",
                    f"{path}: {image_id}: found {_short(entry)};"
                    " expected a non-empty object of pathologies",
                )
            )
        elif masks := _scan_entry(f"{path}: {image_id}", entry, faults):
            entries[image_id] = masks
    return MaskFile(path, entries), faults


def _scan_entry(
    where: str, entry: Mapping[str, Any], faults: list[tuple[str, str]]
) -> dict[str, RunLengthMask]:
    """Return the well-formed masks of one image; append a fault for each of the others."""
    masks: dict[str, RunLengthMask] = {}
    for name, rle in entry.items():
        canonical = ALIASES.get(name, name)
        if canonical not in PATHOLOGIES:
            fault = f"{where}: unknown pathology {name!r}{nearest(name, PATHOLOGIES)}"
            faults.append(("unknown pathology", f"{fault}; allowed: {', '.join(PATHOLOGIES)}"))
        elif canonical in masks:
            faults.append(("named twice", f"{where}: {name}: found under two names; expected once"))
        elif not _is_run_length(rle):
            faults.append(
                (
                    "malformed mask",
                    f"{where}: {name}: found {_short(rle)};"
                    f" expected {{'size': {_SIZE}, 'counts': COCO run-length string}}",
                )
            )
        else:
            masks[canonical] = rle
    return masks


def _is_run_length(rle: Any) -> bool:
    return (
        isinstance(rle, dict) and isinstance(rle.get("counts"), str) and _is_size(rle.get("size"))
    )


def _is_size(size: Any) -> bool:
    return (
        isinstance(size, list)
        and len(size) == 2
        and all(type(n) is int and n > 0 for n in size)
        and size[0] * size[1] <= MAX_PIXELS  # pycocotools multiplies in 32 bits
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def write(path: Path, masks: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Write boolean masks (image id -> pathology -> mask_HW) as a mask file."""
    write_runs(
        path,
        {
            image_id: {name: encode(mask) for name, mask in entry.items()}
            for image_id, entry in masks.items()
        },
    )


def write_runs(path: Path, runs: Mapping[str, Mapping[str, RunLengthMask]]) -> None:
    """Write masks that `encode` returned (image id -> pathology -> mask) as a mask file."""
    Path(path).write_text(json.dumps(runs))


def encode(mask_HW: np.ndarray) -> RunLengthMask:
    """Return one boolean mask as ``{"size": [height, width], "counts": COCO RLE}``."""
    rle = coco.encode(np.asfortranarray(mask_HW, dtype=np.uint8))
    return {"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode("ascii")}


def decode(rle: RunLengthMask, where: str) -> np.ndarray:
    """Return the boolean mask_HW of a run-length mask. Raises as `checked`."""
    return np.asarray(coco.decode(checked(rle, where)), dtype=bool)


def checked(rle: RunLengthMask, where: str) -> dict[str, Any]:
    """Return a run-length mask in the form that pycocotools expects.

    pycocotools trusts size and string: wrong ones make it read or write outside its buffers.
    Its functions stop early at certain runs of length 0; such runs are joined with their
    neighbours. Raises `UserError`, which begins with `where`, if the runs don't add up to the size.
    """
    if not _is_size(rle["size"]):
        raise UserError(f"{where}: found the size {_short(rle['size'])}; expected {_SIZE}")
    height, width = rle["size"]
    runs = run_lengths(rle["counts"])
    if runs is None or runs.sum() != height * width:
        fault = "no COCO run lengths" if runs is None else f"runs that cover {runs.sum()} pixels"
        raise UserError(
            f"{where}: found {fault}; expected {height} x {width} = {height * width} pixels"
        )
    mask = {"size": [height, width], "counts": rle["counts"].encode("ascii")}
    # Only the first run of an encoded mask may be 0, if its first pixel is set.
    return mask if runs[1:].all() else dict(coco.encode(coco.decode(mask)))


def run_lengths(counts: str) -> np.ndarray | None:
    """Return the runs of a COCO run-length string (int64); None if it isn't valid.

    Runs alternate, unset pixels first, and go down the columns. Each character minus 48 is a
    six-bit digit of a number, least significant digit first. The lower five bits are the value;
    the sixth says that more digits follow; the fifth bit of the last digit is the sign.
    From the fourth run on, numbers are differences to the run two before.
    More than six digits are refused, because pycocotools computes in 32 bits.
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
