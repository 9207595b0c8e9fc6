"""Read the headers of compressed streams, and check that a JPEG is complete; libjpeg only warns.

Sources: ITU-T T.81 (JPEG), T.87 (JPEG-LS) and T.800 (JPEG 2000).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from chexseg.errors import UserError

_J2K = b"\xff\x4f\xff\x51"
_START = b"\xff\xd8"
#: Markers of a frame: lossy with Huffman codes, and JPEG-LS. Marker of a scan.
_HUFFMAN, _JPEG_LS, _SCAN = {0xC0, 0xC1, 0xC2}, 0xF7, 0xDA
#: Markers without a length: restart intervals, and TEM.
_ALONE = {*range(0xD0, 0xD8), 0x01}
#: Grey level of pixels that are missing at the end of a JPEG.
_MISSING = 128


@dataclass(frozen=True)
class Stream:
    """The header of a compressed stream. signed: of the samples; None if it doesn't say."""

    height: int
    width: int
    signed: bool | None


def read(stream: bytes) -> Stream:
    """Return the header of a JPEG, JPEG-LS or JPEG 2000 stream; raise ValueError for another."""
    if not stream.startswith(_START):
        start = stream.index(_J2K)  # files may put boxes before it
        right, bottom, left, top = struct.unpack_from(">4I", stream, start + 8)
        return Stream(bottom - top, right - left, stream[start + 42] >= 128)
    for kind, start in _segments(stream):
        if kind == _JPEG_LS or (0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC)):
            height, width = struct.unpack_from(">HH", stream, start + 5)
            return Stream(height, width, False if kind in _HUFFMAN else None)
    raise ValueError("no frame header")


def _segments(stream: bytes) -> Iterator[tuple[int, int]]:
    """Yield (marker, position) of each segment of a JPEG up to the first scan, that included."""
    position, kind = len(_START), 0
    while kind != _SCAN:
        marker, kind = stream[position], stream[position + 1]
        # As libjpeg does, skip fill bytes and whatever else stands between segments.
        if marker != 0xFF or kind in (0x00, 0xFF):
            position += 1
            continue
        if kind in _ALONE:
            position += 2
            continue
        yield kind, position
        position += 2 + int(struct.unpack_from(">H", stream, position + 2)[0])


def check(stream: bytes, last_pixel: int, path: object) -> None:
    """Raise `UserError` for a JPEG whose scan ends before its last pixel, as decoded.

    libjpeg only warns, and makes the missing pixels mid-grey. Additional bytes after a whole scan
    have no effect. After a scan that ends early they become pixels.
    """
    if last_pixel != _MISSING or not stream.startswith(_START):
        return
    kinds = dict(_segments(stream))
    if not kinds.keys() & _HUFFMAN:
        return
    end = stream.index(b"\xff\xd9", kinds[_SCAN])
    streams = (stream, stream[:end] + bytes(range(1, 255)) + stream[end:])
    whole, longer = (
        np.asarray(Image.open(io.BytesIO(each), formats=("JPEG",))) for each in streams
    )
    if not np.array_equal(whole, longer):
        raise UserError(f"{path}: found a JPEG that ends before its last pixel; expected all")
