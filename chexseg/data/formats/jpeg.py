"""Read the headers of compressed streams, and check that a JPEG is whole.

Sources: ITU-T T.81 (JPEG), T.87 (JPEG-LS) and T.800 (JPEG 2000).
"""

from __future__ import annotations

import collections
import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import simplejpeg

from chexseg.data.formats import limits
from chexseg.errors import UserError

_J2K = b"\xff\x4f\xff\x51"
#: JPEG 2000: the marker of a part of a tile.
_TILE_PART = b"\xff\x90"
_START = b"\xff\xd8"
#: Markers of a frame: all but JPEG-LS, lossy with Huffman codes, progressive, and JPEG-LS.
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_HUFFMAN, _PROGRESSIVE, _JPEG_LS = {0xC0, 0xC1, 0xC2}, {0xC2, 0xC6}, 0xF7
#: The first marker of a frame with arithmetic coding.
_ARITHMETIC = 0xC9
#: Markers of a scan, and of the end.
_SCAN, _END = 0xDA, 0xD9
_LAST = b"\xff\xd9"
#: Markers without a length: restart intervals, and TEM.
_ALONE = {*range(0xD0, 0xD8), 0x01}


@dataclass(frozen=True)
class Stream:
    """The header of a compressed stream.

    precision: bits of a sample. signed: of the samples; None if it doesn't say. is_whole: False for
    JPEG-LS without an end, which its decoder, CharLS, may read forever.
    """

    height: int
    width: int
    precision: int
    signed: bool | None
    is_whole: bool = True


def read(stream: bytes) -> Stream:
    """Return the header of a JPEG, JPEG-LS or JPEG 2000 stream; raise ValueError for another."""
    if not stream.startswith(_START):
        start = _code_stream(stream)
        right, bottom, left, top = struct.unpack_from(">4I", stream, start + 8)
        sample = stream[start + 42]
        return Stream(bottom - top, right - left, sample % 128 + 1, sample >= 128)
    for kind, start in _segments(stream):
        if kind == _JPEG_LS or kind in _FRAMES:
            precision, height, width = struct.unpack_from(">BHH", stream, start + 4)
            signed = False if kind in _HUFFMAN else None
            is_whole = kind != _JPEG_LS or stream.rstrip(b"\0").endswith(_LAST)
            return Stream(height, width, precision, signed, is_whole)
    raise ValueError("no frame header")


def check_scans(stream: bytes, path: object) -> None:
    """Raise `UserError` for a JPEG of more than `limits.MOST_SCANS`."""
    if not is_jpeg(stream):
        return
    scans = (kind for kind, _ in _segments(stream) if kind == _SCAN)
    if next(itertools.islice(scans, limits.MOST_SCANS, None), None) is not None:
        raise UserError(
            f"{path}: found a JPEG of more than {limits.MOST_SCANS} scans; expected fewer"
        )


def _segments(stream: bytes) -> Iterator[tuple[int, int]]:
    """Yield (marker, position) of each segment of a JPEG up to its end."""
    position = len(_START)
    while position + 1 < len(stream):
        marker, kind = stream[position], stream[position + 1]
        # As libjpeg does, skip fill bytes and whatever else stands between segments: the data of a
        # scan, where the byte 0 follows each 0xFF.
        if marker != 0xFF or kind in (0x00, 0xFF):
            position = max(stream.find(b"\xff", position + 1), position + 1)
            continue
        if kind in _ALONE:
            position += 2
            continue
        yield kind, position
        if kind == _END:
            return
        position += 2 + int(struct.unpack_from(">H", stream, position + 2)[0])


def is_jpeg(stream: bytes) -> bool:
    """Return whether a stream is JPEG or JPEG-LS, not JPEG 2000."""
    return stream.startswith(_START)


def check(stream: bytes, path: object) -> None:
    """Raise `UserError` for a damaged or incomplete JPEG, which libjpeg decodes with a warning.

    It makes missing pixels mid-grey, and takes additional bytes for pixels. Other decoders do so
    without a warning, or end the process at damaged tables. Of JPEG 2000 only the tiles are
    checked, of JPEG-LS nothing: its decoder refuses what is incomplete.
    """
    if not is_jpeg(stream):
        _check_tiles(stream, path)
        return
    frame = next((segment for segment in _segments(stream) if segment[0] in _FRAMES), None)
    if frame is None:
        return
    kind, start = frame
    if kind >= _ARITHMETIC:
        raise UserError(
            f"{path}: found a JPEG with arithmetic coding, whose end can't be checked; expected"
            " Huffman coding"
        )
    components = stream[start + 10 : start + 10 + 3 * stream[start + 9] : 3]
    if len(set(components)) < len(components):
        raise UserError(f"{path}: found a JPEG with channels of one id; expected different ones")
    # simplejpeg makes pixels of eight bits only. How many a sample has changes its value, but not
    # how its code is read.
    eight = bytes([min(stream[start + 4], 8)])
    try:
        simplejpeg.decode_jpeg(
            stream[: start + 4] + eight + stream[start + 5 :] + _LAST,  # some programs omit the end
            "CMYK" if len(components) == 4 else "GRAY",
            min_factor=8,  # decodes everything, but makes the smallest image
            strict=True,
        )
    except ValueError as error:
        raise UserError(
            f"{path}: found a damaged or very unusual JPEG ({error}); expected a whole one"
        ) from None
    progressive = kind in _PROGRESSIVE
    missing = set(itertools.product(components, range(64 if progressive else 1)))
    for segment, position in _segments(stream):
        if segment == _SCAN:
            missing.difference_update(_completed(stream, position, progressive))
    if missing:
        raise UserError(f"{path}: found a JPEG that lacks scans; expected a whole one")


def _completed(stream: bytes, scan: int, progressive: bool) -> Iterator[tuple[int, int]]:
    """Return (component, coefficient) of those that have all bits after the scan at `scan`.

    Scans of other JPEGs have all coefficients: 0 stands for them.
    """
    count = stream[scan + 4]
    components = stream[scan + 5 : scan + 5 + 2 * count : 2]
    first, last, bits = stream[scan + 5 + 2 * count : scan + 8 + 2 * count]
    if not progressive:
        first, last, bits = 0, 0, 0
    return itertools.product(components, range(first, last + 1) if bits % 16 == 0 else ())


def _code_stream(stream: bytes) -> int:
    """Return the start of a JPEG 2000 code stream, which may be in the box of a file (annex I).

    Raises ValueError if there is none.
    """
    position = 0
    while not stream.startswith(_J2K, position):
        # A copy of the stream for each box would take hours for many.
        box = stream[position : position + 16].ljust(16, b"\0")
        length, kind, long = struct.unpack(">I4sQ", box)
        header = 16 if length == 1 else 8
        length = long if length == 1 else length
        if kind != b"jp2c" and length < header:  # 0: it reaches to the end
            raise ValueError("no JPEG 2000 code stream")
        position += header if kind == b"jp2c" else length
    return position


def _check_tiles(stream: bytes, path: object) -> None:
    """Raise `UserError` for a JPEG 2000 stream without all of its tiles and their parts."""
    start = _code_stream(stream)
    right, bottom, _, _, across, down, left, top = struct.unpack_from(">8I", stream, start + 8)
    tiles = -((left - right) // across) * -((top - bottom) // down)
    position = start + 2
    while stream[position : position + 2] != _TILE_PART:
        position += 2 + int(struct.unpack_from(">H", stream, position + 2)[0])
    promised, parts = {}, collections.Counter[int]()
    while stream[position : position + 2] == _TILE_PART:
        tile, length, _, total = struct.unpack_from(">HIBB", stream, position + 4)
        parts[tile] += 1
        if total:  # 0: another part says it
            promised[tile] = total
        position = position + length if length else len(stream)
    if len(parts) != tiles or any(parts[tile] < total for tile, total in promised.items()):
        raise UserError(
            f"{path}: found {len(parts)} tiles of a JPEG 2000 image; expected {tiles}, with all"
            " of their parts"
        )
