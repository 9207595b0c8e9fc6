"""Read the headers of JPEG 2000 code streams, and check them before they are decoded.

Source: ITU-T T.800, annex A unless another is named.
"""

from __future__ import annotations

import collections
import struct
from dataclasses import dataclass

from rich.filesize import decimal

from chexseg.data.formats import limits
from chexseg.errors import UserError

_START = b"\xff\x4f\xff\x51"
#: The marker of a part of a tile, and that of its data.
_TILE_PART, _DATA = b"\xff\x90", b"\xff\x93"
#: Markers of a coding style: of all components, and of one.
_STYLE, _STYLE_OF_ONE = 0xFF52, 0xFF53
#: Bytes that OpenJPEG takes for a tile, a precinct, a code block, and for a layer of a code block.
#: Measured were 9,600 for a tile and 543 for a precinct. The others are bounds: not measured.
_TILE, _PRECINCT, _BLOCK, _LAYER = 12_000, 600, 400, 48


@dataclass(frozen=True)
class Header:
    """The size of an image and of its tiles, in pixels, and its samples."""

    height: int
    width: int
    tile_height: int
    tile_width: int
    tiles: int
    components: int
    precision: int
    signed: bool


@dataclass(frozen=True)
class _Style:
    """The parts of a tile's wavelet coefficients (A.6.1).

    levels: of the wavelet transform. width, height: exponents of a code block's, less 2. precincts:
    the exponents of their sizes, two in each byte, from the lowest resolution on; empty for 15.
    """

    layers: int
    levels: int
    width: int
    height: int
    precincts: bytes

    def counts(self, tile_height: int, tile_width: int) -> tuple[int, int]:
        """Return the precincts and the code blocks of a tile."""
        precincts = blocks = 0
        for resolution in range(min(self.levels, 32) + 1):
            shift = self.levels - resolution
            height, width = -(-tile_height >> shift), -(-tile_width >> shift)
            exponents = self.precincts[resolution] if self.precincts else 0xFF
            down, across = exponents >> 4, exponents & 15
            precincts += -(-height >> down) * -(-width >> across)
            # All resolutions but the lowest have three bands, each of half the size.
            bands, half = (3, 1) if resolution else (1, 0)
            block_down = min(self.height + 2, max(down - half, 0))
            block_across = min(self.width + 2, max(across - half, 0))
            blocks += bands * -(-height >> half + block_down) * -(-width >> half + block_across)
        return precincts, blocks


def start_of(stream: bytes) -> int:
    """Return the start of a code stream, which may be in the box of a file (annex I).

    Raises ValueError if there is none.
    """
    position = 0
    while not stream.startswith(_START, position):
        # A copy of the stream for each box would take hours for many.
        box = stream[position : position + 16].ljust(16, b"\0")
        length, kind, long = struct.unpack(">I4sQ", box)
        header = 16 if length == 1 else 8
        length = long if length == 1 else length
        if kind != b"jp2c" and length < header:  # 0: it reaches to the end
            raise ValueError("no JPEG 2000 code stream")
        position += header if kind == b"jp2c" else length
    return position


def read(stream: bytes) -> Header:
    """Return the header of a code stream. Raises ValueError if there is none."""
    start = start_of(stream)
    right, bottom, left, top, across, down, tile_left, tile_top, components, sample = (
        struct.unpack_from(">8IHB", stream, start + 8)
    )
    if not across * down:
        raise ValueError("no tiles")
    return Header(
        height=bottom - top,
        width=right - left,
        tile_height=min(down, bottom - top),
        tile_width=min(across, right - left),
        tiles=-((tile_left - right) // across) * -((tile_top - bottom) // down),
        components=components,
        precision=sample % 128 + 1,
        signed=sample >= 128,
    )


def check(stream: bytes, path: object) -> None:
    """Raise `UserError` for a stream without all parts of its tiles, or that takes much memory.

    A stream of 382 bytes may tell the decoder to allocate gigabytes, for parts that it lacks.
    """
    header, start = read(stream), start_of(stream)
    styles, tile_part = _styles(stream, start + 2)
    promised, parts = {}, collections.Counter[int]()
    while stream[tile_part : tile_part + 2] == _TILE_PART:
        tile, length, _, total = struct.unpack_from(">HIBB", stream, tile_part + 4)
        styles += _styles(stream, tile_part + 12)[0]
        parts[tile] += 1
        if total:  # 0: another part says it
            promised[tile] = total
        tile_part = tile_part + length if length else len(stream)
    if len(parts) != header.tiles or any(parts[tile] < total for tile, total in promised.items()):
        raise UserError(
            f"{path}: found {len(parts)} tiles of a JPEG 2000 image; expected {header.tiles}, with"
            " all of their parts"
        )
    needed = _memory(header, styles)
    most = limits.JPEG2000_MORE + limits.JPEG2000_FACTOR * header.height * header.width
    if needed > most:
        raise UserError(
            f"{path}: found a JPEG 2000 image with so many tiles, precincts, code blocks or layers"
            f" that decoding takes about {decimal(needed)}; expected at most {decimal(most)} for"
            f" {header.height} x {header.width} pixels"
        )


def _styles(stream: bytes, position: int) -> tuple[list[_Style], int]:
    """Return the coding styles of a header that begins here, and where its tiles or data begin.

    Raises ValueError for more than two: one for the only component, and one for all.
    """
    styles: list[_Style] = []
    while stream[position : position + 2] not in (_TILE_PART, _DATA):
        marker, length = struct.unpack_from(">HH", stream, position)
        content = stream[position + 4 : position + 2 + length]
        if marker == _STYLE:
            own_precincts, _, layers, _, levels, width, height = struct.unpack_from(
                ">BBHB3B", content
            )
            styles.append(
                _Style(layers, levels, width, height, content[10:] if own_precincts & 1 else b"")
            )
        elif marker == _STYLE_OF_ONE:
            own_precincts, levels, width, height = struct.unpack_from("4B", content, 1)
            styles.append(
                _Style(1, levels, width, height, content[7:] if own_precincts & 1 else b"")
            )
        if len(styles) > 2:
            raise ValueError("several coding styles")
        position += 2 + length
    return styles, position


def _memory(header: Header, styles: list[_Style]) -> int:
    """Return about how many bytes OpenJPEG takes for all but the pixels of one component."""
    counts = [style.counts(header.tile_height, header.tile_width) for style in styles]
    precincts = max(precincts for precincts, _ in counts)
    blocks = max(blocks for _, blocks in counts)
    layers = max(style.layers for style in styles)
    return header.tiles * (_TILE + precincts * _PRECINCT + blocks * (_BLOCK + layers * _LAYER))
