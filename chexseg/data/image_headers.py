"""Check that image files store every pixel that their headers promise; Pillow fills gaps with black.

Formats: PNG's third edition, TIFF 6.0, and the headers of JPEG (T.81), JPEG-LS (T.87) and JPEG 2000
(T.800) streams.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image

from chexseg.errors import UserError

PNG = b"\x89PNG\r\n\x1a\n"
#: Colour type -> samples per pixel.
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
#: (first column, first row, step of columns, step of rows) of each pass of an interlaced PNG.
_ADAM7 = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4),
    (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip
_TAG = ExifTags.Base
#: TIFF compressions of black and white images, whose decoder fills missing rows: T.4 and T.6.
_FAX = (3, 4)
_TIFF_JPEG = 7
_J2K = b"\xff\x4f\xff\x51"
_JPEG = b"\xff\xd8"
#: Markers of a frame: lossy with Huffman codes, and JPEG-LS. Marker of a scan.
_HUFFMAN, _JPEG_LS, _SCAN = {0xC0, 0xC1, 0xC2}, 0xF7, 0xDA
#: Grey level of pixels that are missing at the end of a JPEG.
_MISSING = 128


@dataclass(frozen=True)
class Png:
    """A PNG's chunks that describe pixels.

    size: bytes that the pixels take, filter types included. stream: the deflated pixels.
    colours: entries of the palette. significant_bits: of a grey pixel, from sBIT; None without it.
    """

    size: int
    stream: bytes
    colours: int
    significant_bits: int | None


def read_png(file: BinaryIO) -> Png:
    """Return the chunks of a PNG up to the end of its pixels, like Pillow's the last of a kind."""
    size, colours = 0, 0
    significant: int | None = None
    stream: list[bytes] = []
    for kind, content in _chunks(file):
        if stream and kind != b"IDAT":
            break
        if kind == b"IHDR":
            size = _png_size(content)
        elif kind == b"PLTE":
            colours = len(content) // 3
        elif kind == b"sBIT":
            significant = content[0]
        elif kind == b"IDAT":
            stream.append(content)
    return Png(size, b"".join(stream), colours, significant)


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Yield (kind, content) of every whole chunk; Pillow checks their checksums."""
    file.seek(len(PNG))
    while len(start := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        yield kind, file.read(length)
        file.seek(4, io.SEEK_CUR)


def _png_size(header: bytes) -> int:
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    size = 0
    for left, top, right, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = math.ceil((width - left) / right), math.ceil((height - top) / down)
        if columns > 0 and rows > 0:
            size += rows * (1 + math.ceil(columns * depth * _SAMPLES[colour] / 8))
    return size


def check_png(png: Png, highest: int, path: object) -> None:
    """Raise `UserError` if rows or colours of the palette are missing.

    highest: the highest number in the palette that a pixel has, -1 without a palette.
    """
    size = len(zlib.decompressobj().decompress(png.stream, png.size + 1))
    if size != png.size:
        amount = size if size < png.size else f"more than {png.size}"
        raise UserError(f"{path}: found {amount} bytes of pixels; expected {png.size}")
    if highest >= png.colours > 0:
        raise UserError(
            f"{path}: found the colour number {highest}; expected at most {png.colours - 1},"
            " the last in the palette"
        )


def check_tiff(tags: Mapping[int, Any], file: BinaryIO, path: object) -> None:
    """Raise `UserError` if strips or tiles are missing, or if tags leave the meaning open."""
    if _TAG.PhotometricInterpretation not in tags:
        raise UserError(f"{path}: found no PhotometricInterpretation; expected which grey is 0")
    formats = set(tags.get(_TAG.SampleFormat, (1,)))
    if formats != {1}:
        raise UserError(
            f"{path}: SampleFormat: found {', '.join(map(str, formats))}; expected 1, unsigned"
        )
    if tags.get(_TAG.Compression) in _FAX:
        raise UserError(
            f"{path}: found the compression of a fax, black and white; expected grey or colour"
        )
    width, height = tags[_TAG.ImageWidth], tags[_TAG.ImageLength]
    tiled = _TAG.TileWidth in tags
    across, down = width, tags.get(_TAG.RowsPerStrip, height)
    if tiled:
        across, down = tags[_TAG.TileWidth], tags[_TAG.TileLength]
    offsets = tags[_TAG.TileOffsets if tiled else _TAG.StripOffsets]
    planes = tags[_TAG.SamplesPerPixel] if tags.get(_TAG.PlanarConfiguration) == 2 else 1
    parts = math.ceil(width / across) * math.ceil(height / down) * planes
    if len(offsets) != parts or not all(offsets):
        stored = sum(map(bool, offsets))
        raise UserError(
            f"{path}: found {stored} {'tiles' if tiled else 'strips'}; expected {parts} for"
            f" {width} x {height} pixels"
        )
    if tags.get(_TAG.Compression) != _TIFF_JPEG:
        return
    counts = tags[_TAG.TileByteCounts if tiled else _TAG.StripByteCounts]
    for number, (offset, count) in enumerate(zip(offsets, counts, strict=True)):
        file.seek(offset)
        stream = read_stream(file.read(count))
        top = number % math.ceil(height / down) * down
        rows = down if tiled else min(down, height - top)
        if stream.height < rows or stream.width < min(across, width):
            raise UserError(
                f"{path}: found a JPEG stream of {stream.width} x {stream.height} pixels;"
                f" expected {across} x {rows}"
            )


@dataclass(frozen=True)
class Stream:
    """The header of a compressed stream. signed: of the samples; None if it doesn't say."""

    height: int
    width: int
    signed: bool | None


def read_stream(stream: bytes) -> Stream:
    """Return the header of a JPEG, JPEG-LS or JPEG 2000 stream; raise ValueError for another."""
    if not stream.startswith(_JPEG):
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
    position, kind = len(_JPEG), 0
    while kind != _SCAN:
        marker, kind = stream[position], stream[position + 1]
        if marker != 0xFF:
            raise ValueError("no marker where one must be")
        if kind == 0xFF:  # a marker may follow any number of fill bytes
            position += 1
            continue
        yield kind, position
        position += 2 + int(struct.unpack_from(">H", stream, position + 2)[0])


def check_jpeg(stream: bytes, last_pixel: int, path: object) -> None:
    """Raise `UserError` for a JPEG whose scan ends before its last pixel, as decoded.

    libjpeg only warns, and makes the missing pixels mid-grey. Additional bytes after a whole scan
    have no effect. After a scan that ends early they become pixels.
    """
    if last_pixel != _MISSING or not stream.startswith(_JPEG):
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
