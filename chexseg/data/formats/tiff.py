"""Check that a TIFF has all strips or tiles, and these all pixels; decoders fill what is missing.

Source: TIFF, revision 6.0.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, BinaryIO

from PIL import ExifTags

from chexseg.data.formats import jpeg, limits
from chexseg.errors import UserError

_TAG = ExifTags.Base
#: Compressions: none, and JPEG. Fax codes and the first kind of JPEG are decoded with gaps.
_RAW, _JPEG = 1, 7
#: Compressions by zlib: since 2002, and before.
_DEFLATE = (8, 32946)
#: Other compressions: LZW, PackBits, LZMA and Zstandard.
_OTHERS = (5, 32773, 34925, 50000)
_STRIPS = {_TAG.StripOffsets, _TAG.StripByteCounts}
_TILES = {_TAG.TileWidth, _TAG.TileLength, _TAG.TileOffsets, _TAG.TileByteCounts}
#: Pixels of a tile that may be larger than the image.
_LARGEST_TILE = 2048**2
#: The tag with the tables that the JPEG streams of a file share, and their bytes at most. They are
#: read once for each stream, and a stream can use 2,700 bytes.
_JPEG_TABLES, _MOST_TABLES = 347, 4096
#: Types of tags that are kept as bytes: BYTE, ASCII and UNDEFINED.
_BYTES = (1, 2, 7)
#: Tags of a page; an older TIFF has room for as many.
_MOST_TAGS = 2**16


def check_numbers(file: BinaryIO, path: object) -> None:
    """Raise `UserError` for a TIFF, or EXIF data, with too many numbers in the first page's tags.

    Pillow makes a Python object of each. Several tags may have the same bytes. Other formats pass.
    """
    start = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    large = start[2:3] == b"\x2b"  # BigTIFF, as Pillow tells it
    number, place = ("Q", 8) if large else ("H", 4)
    with suppress(struct.error):  # too short: Pillow reads no tags
        if order:
            (page,) = struct.unpack_from(f"{order}{'Q' if large else 'I'}", start, place)
            file.seek(min(page, 2**62))  # more is an error
            (count,) = struct.unpack(
                f"{order}{number}", file.read(struct.calcsize(f"{order}{number}"))
            )
            _check_counts(file, count, f"{order}HH{'Q8x' if large else 'I4x'}", path)
    file.seek(0)


def _check_counts(file: BinaryIO, tags: int, form: str, path: object) -> None:
    length = struct.calcsize(form)
    content = file.read(length * min(tags, _MOST_TAGS))
    whole = content[: len(content) // length * length]
    numbers = sum(count for _, kind, count in struct.iter_unpack(form, whole) if kind not in _BYTES)
    for found, most, what in (
        (tags, _MOST_TAGS, "tags"),
        (numbers, limits.MOST_TIFF_NUMBERS, "numbers in tags"),
    ):
        if found > most:
            raise UserError(f"{path}: found {found} {what}; expected at most {most}")


def check(tags: Mapping[int, Any], file: BinaryIO, path: object) -> None:
    """Raise `UserError` if strips or tiles are missing, or if tags leave the meaning open."""
    if _TAG.PhotometricInterpretation not in tags:
        raise UserError(f"{path}: found no PhotometricInterpretation; expected which grey is 0")
    formats = set(tags.get(_TAG.SampleFormat, (1,)))
    if formats != {1}:
        raise UserError(
            f"{path}: SampleFormat: found {', '.join(map(str, formats))}; expected 1, unsigned"
        )
    compression = tags.get(_TAG.Compression, _RAW)
    if compression not in (_RAW, _JPEG, *_DEFLATE, *_OTHERS):
        raise UserError(
            f"{path}: found the compression {compression}, such as of a fax; allowed: none, JPEG,"
            " Deflate, LZW, PackBits, LZMA, Zstandard"
        )
    width, height = tags[_TAG.ImageWidth], tags[_TAG.ImageLength]
    if _STRIPS & tags.keys() and _TILES & tags.keys():
        raise UserError(f"{path}: found tags of strips and of tiles; expected one kind")
    tiled = _TAG.TileWidth in tags
    across, down = width, min(tags.get(_TAG.RowsPerStrip, height), height)
    if tiled:
        across, down = tags[_TAG.TileWidth], tags[_TAG.TileLength]
        # A tile is decoded as a whole, so it takes memory for all of its pixels.
        if across * down > max(_LARGEST_TILE, (width + 15) * (height + 15)):
            raise UserError(
                f"{path}: found tiles of {across} x {down} pixels; expected none larger than the"
                f" image, {width} x {height}"
            )
    offsets = tags[_TAG.TileOffsets if tiled else _TAG.StripOffsets]
    planes = tags.get(_TAG.SamplesPerPixel, 1) if tags.get(_TAG.PlanarConfiguration) == 2 else 1
    parts = math.ceil(width / across) * math.ceil(height / down) * planes
    if len(offsets) != parts or not all(offsets):
        stored = sum(map(bool, offsets))
        raise UserError(
            f"{path}: found {stored} {'tiles' if tiled else 'strips'}; expected {parts} for"
            f" {width} x {height} pixels"
        )
    counts = tags[_TAG.TileByteCounts if tiled else _TAG.StripByteCounts]
    length = file.seek(0, io.SEEK_END)
    if min(counts) < 0 or sum(counts) > length:  # each is read: 20,000 times the same megabyte
        raise UserError(
            f"{path}: found {'tiles' if tiled else 'strips'} of {sum(counts)} bytes in a file of"
            f" {length}; expected ones that don't overlap"
        )
    if compression == _RAW:
        # Pillow doesn't look at the counts. They differ if another tag is wrong.
        bits = sum(tags.get(_TAG.BitsPerSample, (1,))) // planes
        size = math.ceil(across * bits / 8) * (parts * down if tiled else height * planes)
        if sum(counts) != size:
            raise UserError(f"{path}: found {sum(counts)} bytes of pixels; expected {size}")
    if compression not in (_JPEG, *_DEFLATE):
        return
    tables = tags.get(_JPEG_TABLES, b"")
    if len(tables) > _MOST_TABLES:
        raise UserError(
            f"{path}: found JPEG tables of {len(tables)} bytes; expected at most {_MOST_TABLES}"
        )
    for number, (offset, count) in enumerate(zip(offsets, counts, strict=True)):
        file.seek(offset)
        content = file.read(count)
        if compression in _DEFLATE:
            bits = sum(tags.get(_TAG.BitsPerSample, (1,)))
            _check_deflated(content, math.ceil(across * bits / 8) * down, path)
            continue
        if tables:
            content = tables[:-2] + content[2:]  # without the end of one, the start of the other
        stream = jpeg.read(content)
        jpeg.check_scans(content, path)
        top = number % math.ceil(height / down) * down
        rows = down if tiled else min(down, height - top)
        # 15 rows fill the last block of 16.
        too_large = stream.height > down + 15 or stream.width > across
        if too_large or stream.height < rows or stream.width < min(across, width):
            raise UserError(
                f"{path}: found a JPEG stream of {stream.width} x {stream.height} pixels;"
                f" expected {across} x {rows}"
            )
        jpeg.check(content, path)


def _check_deflated(content: bytes, most: int, path: object) -> None:
    """Raise `UserError` for a zlib stream that is damaged or ends early; libtiff may not notice.

    most: bytes of its pixels. What follows these is not looked at.
    """
    inflater, inflated = zlib.decompressobj(), 0
    try:
        while content and not inflater.eof and inflated <= most:
            inflated += len(inflater.decompress(content, 2**20))
            content = inflater.unconsumed_tail
    except zlib.error as error:
        raise UserError(f"{path}: found damaged pixels ({error}); expected whole ones") from None
    if not inflater.eof and inflated <= most:
        raise UserError(f"{path}: found pixels that end early; expected all")
