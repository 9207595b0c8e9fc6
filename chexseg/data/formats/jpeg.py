"""Read the headers of compressed streams, and check that a JPEG is whole.

Sources: ITU-T T.81 (JPEG) and T.87 (JPEG-LS).
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import simplejpeg

from chexseg.data.formats import jpeg2000, limits
from chexseg.errors import UserError

_START = b"\xff\xd8"
#: Markers of a frame: all but JPEG-LS, lossy with Huffman codes, progressive, and JPEG-LS.
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_HUFFMAN, _PROGRESSIVE, _JPEG_LS = {0xC0, 0xC1, 0xC2}, {0xC2, 0xC6}, 0xF7
#: The first marker of a frame with arithmetic coding.
_ARITHMETIC = 0xC9
#: Markers of a scan, and of the end.
_SCAN, _END = 0xDA, 0xD9
_LAST = b"\xff\xd9"
#: Segments of applications, of which those with EXIF data and lists of images (CIPA DC-007).
_EXIF, _IMAGES = 0xE1, 0xE2
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
    components: int
    precision: int
    signed: bool | None
    is_whole: bool = True


def read(stream: bytes) -> Stream:
    """Return the header of a JPEG, JPEG-LS or JPEG 2000 stream; raise ValueError for another."""
    if not stream.startswith(_START):
        header = jpeg2000.read(stream)
        return Stream(
            header.height, header.width, header.components, header.precision, header.signed
        )
    for kind, start in _segments(stream):
        if kind == _JPEG_LS or kind in _FRAMES:
            precision, height, width, components = struct.unpack_from(">BHHB", stream, start + 4)
            signed = False if kind in _HUFFMAN else None
            is_whole = kind != _JPEG_LS or stream.rstrip(b"\0").endswith(_LAST)
            return Stream(height, width, components, precision, signed, is_whole)
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


def tags(stream: bytes) -> Iterator[bytes]:
    """Yield what a JPEG has in the form of a TIFF: lists of images, and EXIF data, joined."""
    exif = []
    for kind, position in _segments(stream):
        if kind not in (_EXIF, _IMAGES):
            continue
        (length,) = struct.unpack_from(">H", stream, position + 2)
        content = stream[position + 4 : position + 2 + length]
        if kind == _EXIF and content.startswith(b"Exif\0\0"):
            exif.append(content[6:])
        elif kind == _IMAGES and content.startswith(b"MPF\0"):
            yield content[4:]
    yield b"".join(exif)


def is_jpeg(stream: bytes) -> bool:
    """Return whether a stream is JPEG or JPEG-LS, not JPEG 2000."""
    return stream.startswith(_START)


def check(stream: bytes, path: object) -> None:
    """Raise `UserError` for a damaged or incomplete JPEG, which libjpeg decodes with a warning.

    It makes missing pixels mid-grey, and takes additional bytes for pixels. Other decoders do so
    without a warning, or end the process at damaged tables. Of JPEG 2000 only the layout
    is checked, of JPEG-LS nothing: its decoder refuses what is incomplete.
    """
    if not is_jpeg(stream):
        jpeg2000.check(stream, path)
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
