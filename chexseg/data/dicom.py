"""Decoding of DICOM radiographs to grey pixels as viewers show them: rescaled and windowed."""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import MutableSequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from chexseg.data import grey
from chexseg.data.formats import dicom_elements, dicom_pixels, limits
from chexseg.data.formats.dicom_elements import shown
from chexseg.errors import UserError, reason

#: Bytes that identify the format: the preamble, which ends in ``DICM``.
PREAMBLE = 132
#: First elements of a file without a preamble (group, number), their types, and their length in
#: bytes at most: lengths of groups, versions, character set, image type, date, class and instance.
_FIRST_ELEMENTS = {(2, 0), (2, 1), (2, 2), *((8, number) for number in (0, 1, 5, 8, 18, 22, 24))}
_FIRST_TYPES = (b"UL", b"OB", b"UI", b"CS", b"DA")
_LONGEST_FIRST = 128
#: Numeric elements that affect every pixel.
_FACTORS = ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth")


def recognises(start: bytes) -> bool:
    """Return whether a file that begins with `start`, `PREAMBLE` bytes, is DICOM.

    Old archives hold files without a preamble, which begin with an element: its group and number,
    then either its type in two letters and its length, or the length alone.
    """
    if start[PREAMBLE - 4 : PREAMBLE] == b"DICM":
        return True
    if len(start) < PREAMBLE:
        return False
    group, number, kind, short, length = struct.unpack_from("<HH2sHxxxx", start) + struct.unpack(
        "<I", start[4:8]
    )
    first_length = short if kind in _FIRST_TYPES else length
    return (group, number) in _FIRST_ELEMENTS and 0 < first_length <= _LONGEST_FIRST


def holds_image(path: Path) -> bool:
    """Return False for a readable DICOM file without an image, such as a DICOMDIR or a report."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dicom_elements.holds_image(path)
    except Exception:  # `decode` reports the fault
        return True


def decode(file: BinaryIO, path: object) -> np.ndarray:
    """Return the grey pixels_HW (uint8) of one image; `path` names it in messages.

    pydicom applies modality and VOI lookup tables, rescaling and the first window. MONOCHROME1 is
    inverted. The values are then scaled so that the least becomes 0 and the greatest 255. Padding
    (PixelPaddingValue and its range limit) becomes black and doesn't affect the scale; neither do
    burnt-in markers that would compress the range (`grey.film_range`).

    Raises `UserError` for a damaged file, colour, several frames, a header that contradicts itself
    or the pixels, a rescaling or window that isn't finite, more than `limits.MAX_PIXELS`, and
    if pydicom isn't installed.
    """
    try:
        import pydicom.pixels.utils
        from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
    except ImportError:
        raise UserError(
            f"{path}: DICOM files need pydicom; hint: pip install 'chexseg[dicom]'"
        ) from None
    try:
        with warnings.catch_warnings():
            # Values may violate the standard in ways that don't affect the pixels.
            warnings.simplefilter("ignore")
            data = dicom_elements.read(file, path)
            _set_syntax(data)
            _check(data, path)
            plugin = _decoder(data.file_meta.TransferSyntaxUID, path)
            # Before the decoder: GDCM ends the process at some damage, and fills what is missing;
            # pydicom expands all run lengths.
            dicom_pixels.read(data, path)
            # The pixel data may have more frames than the header says.
            frames = list(islice(pydicom.pixels.utils.iter_pixels(data, decoding_plugin=plugin), 2))
            if len(frames) != 1:
                raise UserError(f"{path}: found more than one frame; expected one")
            stored_HW = frames[0]
            del data.PixelData  # up to 4 bytes for each pixel
            values_HW = grey.in_strips(
                lambda rows: _exact(apply_voi_lut(apply_modality_lut(rows, data), data)), stored_HW
            )
            film_HW = ~_padding(stored_HW, data)
    except UserError:
        raise
    except Exception as error:  # pydicom's parsers and decoders raise any type on damaged files
        raise UserError(
            f"{path}: found no readable DICOM image ({reason(error)}); expected an undamaged one"
        ) from None
    if not np.isfinite(values_HW).all():
        raise UserError(
            f"{path}: found grey values that aren't finite after rescaling; expected finite ones"
        )
    if not film_HW.any():
        raise UserError(
            f"{path}: found nothing but padding (PixelPaddingValue); expected a radiograph"
        )
    low, high = grey.film_range(values_HW if film_HW.all() else values_HW[film_HW])
    sign = 1.0
    if data.PhotometricInterpretation == "MONOCHROME1":
        sign, low, high = -1.0, -high, -low
    pixels_HW = grey.in_strips(
        lambda rows: grey.stretched(sign * rows.astype(np.float64), low, high), values_HW
    )
    pixels_HW[~film_HW] = 0
    return pixels_HW


def _check(data: Any, path: object) -> None:
    """Raise `UserError` for a header that rules out a grey radiograph of one frame."""
    kind = data.get("PhotometricInterpretation")
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise UserError(
            f"{path}: found the photometric interpretation {str(kind)!r:.40};"
            " allowed: MONOCHROME1, MONOCHROME2"
        )
    if data.get("SamplesPerPixel") != 1:
        raise UserError(
            f"{path}: SamplesPerPixel: found {shown(data.get('SamplesPerPixel'))}; expected 1"
        )
    if (data.get("NumberOfFrames") or 1) != 1:
        raise UserError(f"{path}: found {shown(data.NumberOfFrames)} frames; expected one")
    limits.check_pixels(data.Rows, data.Columns, path)
    for name in _FACTORS:
        value = data.get(name)
        for number in value if isinstance(value, MutableSequence) else [value]:
            if number is not None and not math.isfinite(number):
                raise UserError(f"{path}: {name}: found {number}; expected a finite number")
    if data.get("RescaleSlope") == 0:
        raise UserError(f"{path}: RescaleSlope: found 0; expected another number")
    for pair in (_FACTORS[:2], _FACTORS[2:]):
        given = [name for name in pair if data.get(name) not in (None, "")]
        if len(given) == 1:
            raise UserError(f"{path}: found {given[0]} alone; expected {' and '.join(pair)}")
    if data.HighBit != data.BitsStored - 1:
        raise UserError(
            f"{path}: HighBit: found {shown(data.HighBit)}; expected {data.BitsStored - 1},"
            f" because BitsStored is {data.BitsStored}"
        )


def _set_syntax(data: Any) -> None:
    """Set the transfer syntax of a file that doesn't give it to the one that pydicom has guessed.

    Its pixels are then uncompressed.
    """
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "TransferSyntaxUID" not in data.file_meta:
        is_implicit, is_little_endian = data.original_encoding
        explicit = ExplicitVRLittleEndian if is_little_endian else ExplicitVRBigEndian
        data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else explicit


def _decoder(syntax: Any, path: object) -> str:
    """Return the name of pydicom's decoder to use for a transfer syntax, "" for its choice.

    Where Pillow can decode, it does, so that another package changes no pixel. Raises `UserError`
    if a package is missing.
    """
    from pydicom import uid
    from pydicom.pixels.decoders.base import get_decoder

    if syntax in (uid.JPEGBaseline8Bit, uid.JPEG2000, uid.JPEG2000Lossless):
        return "pillow"
    decoder = get_decoder(syntax)
    if not decoder.is_available:
        lossless = (uid.JPEGLossless, uid.JPEGLosslessSV1)
        if syntax in (*lossless, uid.JPEGLSLossless, uid.JPEGLSNearLossless):
            need = "GDCM, which decodes it; hint: pip install 'chexseg[dicom-jpeg]'"
        else:
            need = f"one of pydicom's decoders of it: {', '.join(decoder.missing_dependencies)}"
        raise UserError(f"{path}: found pixels as {syntax.name}; expected {need}")
    return ""


def _exact(values_HW: np.ndarray) -> np.ndarray:
    """Return small integers as they are, which need less memory, and all others as float64."""
    small = values_HW.dtype.kind in "iu" and values_HW.itemsize <= 4
    return values_HW if small else values_HW.astype(np.float64)


def _padding(stored_HW: np.ndarray, data: Any) -> np.ndarray:
    """Return a boolean mask_HW of padding (DICOM PS3.3, section C.7.5.1.1.2).

    Padding is from PixelPaddingValue to PixelPaddingRangeLimit, both included.
    """
    first = data.get("PixelPaddingValue")
    if first is None:
        return np.zeros(stored_HW.shape, dtype=bool)
    limits = [
        int(value) for value in (first, data.get("PixelPaddingRangeLimit")) if value is not None
    ]
    # Some writers give the padding of signed pixels as an unsigned number, or the reverse.
    # Compare bit patterns.
    bits = 8 * stored_HW.itemsize
    if stored_HW.dtype.kind == "i":
        limits = [limit - 2**bits if limit >= 2 ** (bits - 1) else limit for limit in limits]
    else:
        limits = [limit + 2**bits if limit < 0 else limit for limit in limits]
    return (stored_HW >= min(limits)) & (stored_HW <= max(limits))
