"""A DICOM radiograph as grey pixels, the way a viewer shows it: rescaled, windowed, dark for air."""

from __future__ import annotations

import math
import warnings
from collections.abc import MutableSequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from chexseg.data import grey
from chexseg.errors import UserError

#: Bytes that a file's format is known by: the preamble, and ``DICM`` at its end.
PREAMBLE = 132
#: The transfer syntax of files that are deflated as a whole. It stands somewhere before the deflated part.
_DEFLATED = b"1.2.840.10008.1.2.1.99"
#: Elements that every pixel is computed with.
_FACTORS = ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth")


def recognises(start: bytes) -> bool:
    """Return whether a file that begins with `start`, `PREAMBLE` bytes, is DICOM."""
    return start[PREAMBLE - 4 : PREAMBLE] == b"DICM"


def holds_image(path: Path) -> bool:
    """Return whether a DICOM file holds an image, and not a directory of a disk or a report; True if it can't be read."""
    try:
        from pydicom import dcmread

        if _DEFLATED in path.read_bytes():
            return True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return "Rows" in dcmread(path, stop_before_pixels=True, specific_tags=["Rows"])
    except Exception:  # `decode` says what is wrong with it
        return True


def decode(file: BinaryIO, path: object) -> np.ndarray:
    """Return the grey pixels_HW (uint8) of one image; `path` names it in messages.

    Modality and VOI lookup tables, rescaling and the first window are applied by pydicom's functions, MONOCHROME1 is
    inverted, and the least value becomes 0, the greatest 255. Padding (PixelPaddingValue and its range limit) is black and
    counts for neither, nor do burnt-in markers that would squeeze the film (`grey.film_range`).

    Raises `UserError` for a damaged file, for colour, for several frames, for a rescaling or window that isn't finite, for
    more pixels than Pillow would open, and if pydicom isn't installed.
    """
    try:
        from pydicom import dcmread
        from pydicom.pixels import apply_modality_lut, apply_voi_lut
    except ImportError:
        raise UserError(
            f"{path}: DICOM files need pydicom; to be had by: pip install 'chexseg[dicom]'"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # of values that break the standard in ways that don't touch the pixels
            if _DEFLATED in file.read():
                raise UserError(
                    f"{path}: found a deflated DICOM file, whose size has no bound; expected another transfer syntax"
                )
            file.seek(0)
            data = dcmread(file)
            _check(data, path)
            stored_HW = data.pixel_array
            if stored_HW.ndim != 2:
                raise UserError(f"{path}: found {len(stored_HW)} frames; allowed: one")
            values_HW = apply_voi_lut(apply_modality_lut(stored_HW, data), data).astype(np.float64)
            film_HW = ~_padding(stored_HW, data)
    except UserError:
        raise
    except (
        Exception
    ) as error:  # a damaged file can fail in any of pydicom's parsers and decoders, with any type
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path}: found no readable DICOM image ({reason}); allowed: a whole one"
        ) from None
    if not np.isfinite(values_HW).all():
        raise UserError(
            f"{path}: found grey values that aren't finite after rescaling; expected finite numbers"
        )
    if not film_HW.any():
        raise UserError(
            f"{path}: found nothing but padding (PixelPaddingValue); expected a radiograph"
        )
    low, high = grey.film_range(values_HW if film_HW.all() else values_HW[film_HW])
    if data.PhotometricInterpretation == "MONOCHROME1":
        values_HW, low, high = -values_HW, -high, -low
    return np.where(film_HW, grey.stretched(values_HW, low, high), np.uint8(0))


def _check(data: Any, path: object) -> None:
    """Raise `UserError` for what the header alone shows to be no radiograph."""
    kind = data.get("PhotometricInterpretation")
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise UserError(
            f"{path}: found the photometric interpretation {str(kind)!r:.40}; allowed: a radiograph, MONOCHROME1 or MONOCHROME2"
        )
    if data.Rows * data.Columns > 2 * (Image.MAX_IMAGE_PIXELS or math.inf):
        raise UserError(
            f"{path}: found {data.Rows} x {data.Columns} pixels; expected at most {2 * Image.MAX_IMAGE_PIXELS}"
        )
    for name in _FACTORS:
        value = data.get(name)
        for number in value if isinstance(value, MutableSequence) else [value]:
            if number is not None and not math.isfinite(number):
                raise UserError(f"{path}: {name}: found {number}; expected a finite number")
    if data.get("RescaleSlope") == 0:
        raise UserError(
            f"{path}: RescaleSlope: found 0; expected a number that keeps the film's grey values apart"
        )


def _padding(stored_HW: np.ndarray, data: Any) -> np.ndarray:
    """Return where stored values are padding (PS3.3, C.7.5.1.1.2): from PixelPaddingValue to its range limit, both included."""
    first = data.get("PixelPaddingValue")
    if first is None:
        return np.zeros(stored_HW.shape, dtype=bool)
    limits = [
        int(value) for value in (first, data.get("PixelPaddingRangeLimit")) if value is not None
    ]
    # Some writers give a signed film's padding as an unsigned number, or the other way round: the bits are what counts.
    bits = 8 * stored_HW.itemsize
    if stored_HW.dtype.kind == "i":
        limits = [limit - 2**bits if limit >= 2 ** (bits - 1) else limit for limit in limits]
    else:
        limits = [limit + 2**bits if limit < 0 else limit for limit in limits]
    return (stored_HW >= min(limits)) & (stored_HW <= max(limits))
