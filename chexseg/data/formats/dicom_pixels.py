"""Read the stored pixels of a DICOM film, and check before decoding that they fill its size."""

from __future__ import annotations

import itertools
import math
import struct
from itertools import islice
from typing import Any

from chexseg.data.formats import jpeg, limits
from chexseg.data.formats.dicom_elements import UNDEFINED, shown
from chexseg.errors import UserError

#: Start of the transfer syntaxes of JPEG, JPEG-LS and JPEG 2000, and of films.
_JPEG = "1.2.840.10008.1.2.4."
_SEVERAL = "found more than one frame; expected one"


def read(data: Any, path: object) -> None:
    """Read the pixels of `dicom_elements.read`'s data set into it, still compressed.

    Raises `UserError` if they are damaged, contradict the elements, or are more bytes than those
    explain. What this accepts is decoded to no more than Rows x Columns pixels.
    """
    from pydicom.uid import RLELossless

    if data.BitsAllocated not in range(1, 65):  # as pydicom, which would look after reading
        raise UserError(
            f"{path}: BitsAllocated: found {shown(data.BitsAllocated)}; expected 8 or 16"
        )
    # int() raises for NaN, which no comparison below would refuse.
    expected = int(data.Rows * data.Columns) * math.ceil(data.BitsAllocated / 8)
    syntax = data.file_meta.TransferSyntaxUID
    element = data.get_item("PixelData", keep_deferred=True)
    kind = getattr(element, "VR", None)  # none in a file that leaves the types out
    if kind not in (None, "OB", "OW", "OB or OW", "UN"):
        raise UserError(f"{path}: PixelData: found the type {shown(kind)}; expected OB or OW")
    length = getattr(element, "length", UNDEFINED)
    if not syntax.is_compressed and length != UNDEFINED:
        _check_length(length, expected, data, path)
    most = limits.COMPRESSED_FACTOR * expected + limits.COMPRESSED_MORE
    data.buffer.allow(most, f"stored pixels for {data.Rows} x {data.Columns} (Rows x Columns)")
    stored = data.PixelData  # read now, and no earlier
    if not syntax.is_compressed:
        _check_length(len(stored), expected, data, path)
        return
    frame = _frame(data, path)
    if syntax.startswith(_JPEG):
        _check_stream(frame, data, path)
    elif syntax == RLELossless:
        decoded = _run_length_bytes(frame)
        # Some writers pad by more than the one byte that makes the length even.
        if not 0 <= decoded - expected < data.Columns:
            _check_length(decoded, expected, data, path)


def _check_stream(content: bytes, data: Any, path: object) -> None:
    """Raise `UserError` if a JPEG stream is damaged, or contradicts the elements."""
    stream = jpeg.read(content)
    if not stream.is_whole:
        raise UserError(
            f"{path}: found compressed pixels without their end; expected an undamaged file"
        )
    jpeg.check_scans(content, path)
    if (stream.height, stream.width) != (data.Rows, data.Columns):
        raise UserError(
            f"{path}: found compressed pixels of {stream.height} x {stream.width};"
            f" expected {data.Rows} x {data.Columns} (Rows x Columns)"
        )
    if stream.components != 1:  # GDCM takes memory for all before it looks at any
        raise UserError(
            f"{path}: found compressed pixels of {stream.components} channels; expected 1"
        )
    if stream.precision != data.BitsStored:
        raise UserError(
            f"{path}: found compressed pixels of {stream.precision} bits; expected"
            f" {data.BitsStored} (BitsStored)"
        )
    if jpeg.is_jpeg(content) and data.BitsAllocated not in (8, 16):  # GDCM would end the process
        raise UserError(
            f"{path}: BitsAllocated: found {shown(data.BitsAllocated)}; expected 8 or 16, as"
            " for each JPEG"
        )
    if stream.signed not in (None, bool(data.PixelRepresentation)):
        raise UserError(
            f"{path}: PixelRepresentation: found {shown(data.PixelRepresentation)};"
            f" expected {int(stream.signed)}, as in the compressed pixels"
        )
    jpeg.check(content, path)


def _check_length(stored: int, expected: int, data: Any, path: object) -> None:
    """Raise `UserError` if the bytes of decoded pixels aren't those of Rows x Columns.

    pydicom ignores what is too much, so a wrong number of rows or columns would not be noticed.
    """
    if not data.file_meta.TransferSyntaxUID.is_compressed:
        expected += expected % 2 * (stored % 2 == 0)  # padded to an even number
        if 0 < 2 * expected <= stored:
            raise UserError(f"{path}: {_SEVERAL}")
    if stored != expected:
        raise UserError(
            f"{path}: found {stored} bytes of pixels; expected {expected} for"
            f" {data.Rows} x {data.Columns} pixels (Rows x Columns)"
        )


def _frame(data: Any, path: object) -> bytes:
    """Return the compressed frame, as pydicom's decoders find it.

    Raises `UserError` if there are several: no other than the first would be checked.
    """
    from pydicom.encaps import generate_fragments, generate_frames

    # The first item is the table of the frames' offsets, which takes 40 bytes for each of 4.
    if len(next(generate_fragments(data.PixelData))) > limits.LONGEST_DICOM_VALUE:
        raise UserError(f"{path}: {_SEVERAL}")
    names = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
    offsets = tuple(data[name].value for name in names) if names[0] in data else None
    frames = generate_frames(data.PixelData, number_of_frames=1, extended_offsets=offsets)
    first, *others = islice(frames, 2)
    if others:
        raise UserError(f"{path}: {_SEVERAL}")
    return bytes(first)


def _run_length_bytes(frame: bytes) -> int:
    """Return the number of bytes that a frame's segments decode to (DICOM PS3.5, annex G)."""
    count, *offsets = struct.unpack_from("<16I", frame)
    total = 0
    for start, end in itertools.pairwise([*offsets[:count], len(frame)]):
        position = start
        while position + 1 < end:
            code = frame[position]
            if code < 128:
                total += min(code + 1, end - position - 1)
                position += code + 2
            else:
                total += (257 - code) * (code != 128)
                position += 2 if code != 128 else 1
    return total
