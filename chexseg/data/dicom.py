"""A DICOM radiograph as grey pixels, the way a viewer shows it: rescaled, windowed, dark for air."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from chexseg.errors import UserError

ENDINGS = (".dcm", ".dicom")


def recognises(path: Path) -> bool:
    """Whether a file is DICOM: by what it begins with, or by its ending where it can't be read or lacks the preamble."""
    try:
        with Path(path).open("rb") as file:
            return file.read(132)[128:] == b"DICM" or Path(path).suffix.lower() in ENDINGS
    except OSError:
        return Path(path).suffix.lower() in ENDINGS


def decode(path: Path) -> np.ndarray:
    """The grey pixels_HW (uint8) of one image.

    Modality and VOI lookup tables, rescaling and the first window are applied by pydicom's functions, MONOCHROME1 is
    inverted, and the least value becomes 0, the greatest 255. Raises `UserError` for a missing or damaged file, for colour, for
    several frames, and where pydicom isn't installed.
    """
    try:
        from pydicom import dcmread
        from pydicom.pixels import apply_modality_lut, apply_voi_lut
    except ImportError:
        raise UserError(f"{path}: DICOM files need pydicom; to be had by: pip install 'chexseg[dicom]'") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that break the standard in ways that don't touch the pixels
            data = dcmread(path)
            kind = data.get("PhotometricInterpretation")
            if kind not in ("MONOCHROME1", "MONOCHROME2"):
                raise UserError(
                    f"{path}: found the photometric interpretation {kind}; allowed: a radiograph, MONOCHROME1 or MONOCHROME2"
                )
            stored_HW = data.pixel_array
            if stored_HW.ndim != 2:
                raise UserError(f"{path}: found {len(stored_HW)} frames; allowed: one")
            values_HW = apply_voi_lut(apply_modality_lut(stored_HW, data), data).astype(np.float64)
    except UserError:
        raise
    except Exception as error:  # a damaged file can fail in any of pydicom's parsers and decoders, with any type
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: found no readable DICOM image ({reason}); allowed: a whole one") from None
    low, high = values_HW.min(), values_HW.max()
    rising_HW = high - values_HW if kind == "MONOCHROME1" else values_HW - low
    return np.round(rising_HW * (255 / (high - low) if high > low else 0)).astype(np.uint8)
