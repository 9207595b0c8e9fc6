"""Read the chunks of a PNG and check that its pixels are complete; Pillow makes missing rows black.

Source: Portable Network Graphics, third edition.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from chexseg.errors import UserError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Bytes that are inflated at once.
_CHUNK = 2**20
#: Colour type -> samples per pixel.
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
#: (first column, first row, step of columns, step of rows) of each pass of an interlaced PNG.
_ADAM7 = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4),
    (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip


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


def read(file: BinaryIO) -> Png:
    """Return the chunks of a PNG up to the end of its pixels, like Pillow's the last of a kind."""
    size = colours = 0
    significant: int | None = None
    stream: list[bytes] = []
    for kind, content in _chunks(file):
        if stream and kind != b"IDAT":
            break
        if kind == b"IHDR":
            size = _size(content)
        elif kind == b"PLTE":
            colours = len(content) // 3
        elif kind == b"sBIT":
            significant = content[0]
        elif kind == b"IDAT":
            stream.append(content)
    return Png(size, b"".join(stream), colours, significant)


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Yield (kind, content) of every whole chunk; Pillow checks their checksums."""
    file.seek(len(SIGNATURE))
    while len(start := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        yield kind, file.read(length)
        file.seek(4, io.SEEK_CUR)


def _size(header: bytes) -> int:
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    size = 0
    for left, top, right, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = math.ceil((width - left) / right), math.ceil((height - top) / down)
        if columns > 0 and rows > 0:
            size += rows * (1 + math.ceil(columns * depth * _SAMPLES[colour] / 8))
    return size


def _inflated(png: Png) -> int:
    """Return the bytes of the pixels, or a higher number than `Png.size` if there are more."""
    inflater, content, size = zlib.decompressobj(), png.stream, 0
    while content and not inflater.eof and size <= png.size:
        size += len(inflater.decompress(content, _CHUNK))
        content = inflater.unconsumed_tail
    return size


def check(png: Png, highest: int, path: object) -> None:
    """Raise `UserError` if rows or colours of the palette are missing.

    highest: the highest number in the palette that a pixel has, -1 without a palette.
    """
    size = _inflated(png)
    if size != png.size:
        amount = size if size < png.size else f"more than {png.size}"
        raise UserError(f"{path}: found {amount} bytes of pixels; expected {png.size}")
    if highest >= png.colours > 0:
        raise UserError(
            f"{path}: found the colour number {highest}; expected at most {png.colours - 1},"
            " the last in the palette"
        )
