"""Test that no decoder is called for a file that tells it to take far more than its pixels."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from chexseg.data import images
from chexseg.data.formats import jpeg, jpeg2000, limits

NUMBERS = limits.MOST_TIFF_NUMBERS + 1


@pytest.fixture
def noise() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (600, 500), dtype=np.uint8)
    return Image.fromarray(values)


def code_stream(
    side: int,
    tile: int = 0,
    layers: int = 1,
    levels: int = 0,
    block: int = 4,
    precincts: bytes = b"",
) -> bytes:
    """Return a JPEG 2000 stream of one channel whose tiles are empty."""
    tile = tile or side
    size = struct.pack(">H8IH3B", 0, side, side, 0, 0, tile, tile, 0, 0, 1, 7, 1, 1)
    style = struct.pack(">BBHB5B", bool(precincts), 0, layers, 0, levels, block, block, 0, 1)
    style += precincts
    header = b"\xff\x4f"
    for marker, content in ((0xFF51, size), (0xFF52, style)):
        header += struct.pack(">HH", marker, len(content) + 2) + content
    tiles = (-(-side // tile)) ** 2
    parts = (
        struct.pack(">HHHIBBH", 0xFF90, 10, number, 14, 0, 1, 0xFF93) for number in range(tiles)
    )
    return header + b"".join(parts) + b"\xff\xd9"


@pytest.mark.parametrize(
    "bomb",
    [
        {"side": 1000, "precincts": b"\x00"},
        {"side": 64, "layers": 65_535, "precincts": b"\x00"},
        {"side": 255, "tile": 1},
        {"side": 4000, "levels": 1, "block": 0, "precincts": b"\xff\x11"},
        {"side": 4000, "levels": 32, "tile": 64},
    ],
)
def test_a_jpeg_2000_image_in_countless_parts_is_refused(bomb, refused):
    with refused("so many tiles, precincts, code blocks or layers"):
        jpeg2000.check(code_stream(**bomb), "film")


def test_the_style_of_a_tile_counts_too(refused):
    stream = code_stream(1000)
    style = struct.pack(">HH11B", 0xFF52, 13, 1, 0, 0, 1, 0, 0, 4, 4, 0, 1, 0)
    part = stream.index(b"\xff\x90")
    longer = struct.pack(">I", 14 + len(style))
    changed = stream[: part + 6] + longer + stream[part + 10 : part + 12] + style
    with refused("so many tiles, precincts"):
        jpeg2000.check(changed + stream[part + 12 :], "film")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tile_size": (64, 64)},
        {"codeblock_size": (16, 16), "num_resolutions": 6},
        {"precinct_size": (64, 64), "codeblock_size": (32, 32)},
        {"quality_layers": [80, 40, 20, 10, 5], "quality_mode": "rates"},
        {"progression": "RPCL", "irreversible": True, "tile_size": (128, 128)},
    ],
)
@pytest.mark.parametrize("boxes", [True, False])
def test_what_encoders_write_is_accepted(noise, options, boxes):
    file = io.BytesIO()
    noise.save(file, "JPEG2000", no_jp2=not boxes, **options)
    jpeg2000.check(file.getvalue(), "film")
    header = jpeg.read(file.getvalue())
    assert (header.height, header.width, header.components, header.precision) == (600, 500, 1, 8)


def tiff(count: int, tags: int = 1, kind: int = 3) -> bytes:
    """Return a TIFF's start with tags of `count` values each, all at one place."""
    entries = (struct.pack("<HHII", 0x112 + tag, kind, count, 8) for tag in range(tags))
    return struct.pack("<2sHIH", b"II", 42, 8, tags) + b"".join(entries) + bytes(4)


def with_exif(noise: Image.Image, format: str, tags: bytes) -> bytes:
    """Return an image with EXIF data in a chunk, or in as many segments as it takes."""
    file = io.BytesIO()
    noise.save(file, format)
    content = file.getvalue()
    if format == "PNG":
        chunk = b"eXIf" + tags
        framed = struct.pack(">I", len(tags)) + chunk + struct.pack(">I", zlib.crc32(chunk))
        return content[:33] + framed + content[33:]
    parts = [b"Exif\0\0" + tags[start : start + 60_000] for start in range(0, len(tags), 60_000)]
    segments = (b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part for part in parts)
    return content[:2] + b"".join(segments) + content[2:]


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
@pytest.mark.parametrize(
    ("tags", "words"),
    [
        (tiff(70_000).ljust(limits.MOST_EXIF + 1, b"\0"), "bytes of EXIF data"),
        (tiff(30_000, tags=40).ljust(70_000, b"\0"), "1200000 numbers in tags"),
    ],
)
def test_exif_data_that_is_long_or_used_many_times_is_refused(
    noise, format, tags, words, tmp_path, refused
):
    path = tmp_path / "film"
    path.write_bytes(with_exif(noise, format, tags))
    with refused(words):
        images.decode(path)
    path.write_bytes(with_exif(noise, format, tiff(3).ljust(70_000, b"\0")))
    assert images.decode(path).shape == (600, 500)


def test_the_list_of_a_jpegs_images_is_bounded(noise, tmp_path, refused):
    """Pillow unpacks all of it when it opens the file."""
    file = io.BytesIO()
    noise.save(file, "JPEG")
    part = b"MPF\0" + tiff(30_000, tags=40).ljust(60_000, b"\0")
    content = file.getvalue()
    segment = b"\xff\xe2" + struct.pack(">H", len(part) + 2) + part
    path = tmp_path / "film"
    path.write_bytes(content[:2] + segment + content[2:])
    with refused("1200000 numbers in tags"):
        images.decode(path)


@pytest.mark.parametrize(("order", "large"), [("<", True), ("<", False), (">", False)])
def test_a_tiff_of_too_many_numbers_is_refused_before_they_are_read(
    order, large, tmp_path, refused
):
    """Pillow takes a BigTIFF of the other order of bytes for an older TIFF."""
    mark = b"II" if order == "<" else b"MM"
    if large:
        start = struct.pack(f"{order}HHHQ", 43, 8, 0, 16)
        page = struct.pack(f"{order}QHHQQ", 1, 273, 4, NUMBERS, 0)
    else:
        start, page = (
            struct.pack(f"{order}HI", 42, 8),
            struct.pack(f"{order}HHHII", 1, 273, 4, NUMBERS, 0),
        )
    path = tmp_path / "film.tif"
    path.write_bytes(mark + start + page + bytes(16))
    with refused(f"{NUMBERS} numbers in tags"):
        images.decode(path)
