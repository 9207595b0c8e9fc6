"""Test that images without all of their pixels, or with contradictory headers, are refused."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chexseg.data import images
from chexseg.data.formats import jpeg
from chexseg.data.formats import tiff as tiff_format

SIDE = 64


@pytest.fixture
def noise_HW() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png(path: Path, rows_HW: np.ndarray, palette: bytes = b"") -> Path:
    """Return a PNG whose header says `SIDE` rows and columns of 8 bits."""
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 3 if palette else 0, 0, 0, 0)
    pixels = b"".join(b"\0" + row.tobytes() for row in rows_HW)
    chunks = chunk(b"IHDR", header) + (chunk(b"PLTE", palette) if palette else b"")
    chunks += chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def test_a_png_with_fewer_or_more_rows_than_its_header_is_refused(noise_HW, tmp_path, refused):
    whole = png(tmp_path / "whole.png", noise_HW)
    np.testing.assert_array_equal(images.decode(whole), noise_HW)
    with refused("found 2080 bytes of pixels; expected 4160"):
        images.decode(png(tmp_path / "half.png", noise_HW[:32]))
    with refused("found more than 4160 bytes of pixels"):
        images.decode(png(tmp_path / "double.png", np.vstack([noise_HW] * 2)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (13, 9), (64, 48)])
def test_every_kind_of_whole_png_is_read(tmp_path, mode, size):
    content = np.random.default_rng(0).integers(0, 256, size[::-1], dtype=np.uint8)
    Image.fromarray(content).convert(mode).save(tmp_path / "a.png")
    assert images.decode(tmp_path / "a.png").shape == size[::-1]


def test_an_interlaced_png_is_read_whole_and_refused_in_part(noise_HW, tmp_path, refused):
    """Write the seven passes of a picture of 3 x 5 pixels by hand; some of them are empty."""
    pixels_HW = noise_HW[:5, :3]
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)]
    passes += [(0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    parts = [pixels_HW[top::down, left::right] for left, top, right, down in passes]
    rows = [b"\0" + row.tobytes() for part in parts for row in part if row.size]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 5, 8, 0, 0, 0, 1))
    path = tmp_path / "a.png"
    for kept in (rows, rows[:-1]):
        path.write_bytes(
            b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"".join(kept)))
        )
        if kept is rows:
            np.testing.assert_array_equal(images.decode(path), pixels_HW)
    with refused(path, "bytes of pixels"):
        images.decode(path)


def test_a_colour_beyond_the_palette_is_refused(noise_HW, tmp_path, refused):
    grey = bytes(np.repeat(np.arange(256, dtype=np.uint8), 3))
    whole = png(tmp_path / "whole.png", noise_HW, grey)
    np.testing.assert_array_equal(images.decode(whole), noise_HW)
    with refused("found the colour number 255; expected at most 99"):
        images.decode(png(tmp_path / "short.png", noise_HW, grey[:300]))


def tiff(path: Path, content: bytes, **changes: tuple[int, list[int]] | None) -> Path:
    """Return an uncompressed grey TIFF of `SIDE` rows and columns in one strip.

    changes: name -> (tag, values) to replace or add, None to leave a tag out. Values of
    StripOffsets and TileOffsets count from the first pixel.
    """
    tags: dict[str, tuple[int, list[int]] | None] = {
        "width": (256, [SIDE]),
        "height": (257, [SIDE]),
        "bits": (258, [8]),
        "compression": (259, [1]),
        "photometric": (262, [1]),
        "offsets": (273, [0]),
        "samples": (277, [1]),
        "rows": (278, [SIDE]),
        "counts": (279, [len(content)]),
        **changes,
    }
    entries = sorted(entry for entry in tags.values() if entry)
    start = 8 + 2 + 12 * len(entries) + 4
    first = start + 4 * sum(len(values) for _, values in entries if len(values) > 1)
    directory, outside = struct.pack("<H", len(entries)), b""
    for tag, values in entries:
        shift = first if tag in (273, 324) else 0
        packed = struct.pack(f"<{len(values)}I", *(v + shift if v >= 0 else 0 for v in values))
        where = packed if len(values) == 1 else struct.pack("<I", start + len(outside))
        outside += b"" if len(values) == 1 else packed
        directory += struct.pack("<HHI", tag, 4, len(values)) + where
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + outside + content)
    return path


TILES = {"offsets": None, "counts": None, "rows": None, "across": (322, [32]), "down": (323, [32])}


def test_a_tiff_of_strips_or_tiles_is_read_if_they_cover_it(noise_HW, tmp_path, refused):
    content, path = noise_HW.tobytes(), tmp_path / "a.tif"
    tiles = b"".join(noise_HW[y : y + 32, x : x + 32].tobytes() for y in (0, 32) for x in (0, 32))
    quarters = [0, 1024, 2048, 3072]
    for offsets, words in (
        (quarters, None),
        (quarters[:1], "found 1 strips; expected 4"),
        (quarters[:2], "found 2 strips; expected 4 for 64 x 64 pixels"),
        ([*quarters, 0], "found 5 strips; expected 4"),
    ):
        strips = {"rows": (278, [16]), "counts": (279, [1024] * len(offsets))}
        tiff(path, content, **strips, offsets=(273, offsets))
        if words is None:
            np.testing.assert_array_equal(images.decode(path), noise_HW)
        else:
            with refused(path, words):
                images.decode(path)
    for offsets, words in (
        (quarters, None),
        (quarters[:3], "found 3 tiles; expected 4"),
        ([0, 1024, -1, 3072], "found 3 tiles; expected 4"),  # an offset of 0
    ):
        counts = (325, [1024] * len(offsets))
        tiff(path, tiles, **TILES, tile_offsets=(324, offsets), tile_counts=counts)
        if words is None:
            np.testing.assert_array_equal(images.decode(path), noise_HW)
        else:
            with refused(path, words):
                images.decode(path)


def test_a_tiff_with_strips_and_tiles_is_refused(noise_HW, tmp_path, refused):
    """One kind would be checked and the other decoded."""
    tiles = {name: value for name, value in TILES.items() if value}
    offsets = {"tile_offsets": (324, [0, 1024, 2048, 3072]), "tile_counts": (325, [1024] * 4)}
    path = tiff(tmp_path / "a.tif", noise_HW.tobytes(), **tiles, **offsets)
    with refused(path, "found tags of strips and of tiles"):
        images.decode(path)


@pytest.mark.parametrize(
    "changes",
    [{"bits": (258, [4])}, {"height": (257, [32])}, {"width": (256, [32])}, {"counts": (279, [9])}],
)
def test_a_tiff_with_more_or_fewer_bytes_than_pixels_is_refused(
    noise_HW, tmp_path, refused, changes
):
    path = tiff(tmp_path / "a.tif", noise_HW.tobytes(), **changes)
    with refused(path, "bytes of pixels; expected"):
        images.decode(path)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_every_kind_of_whole_tiff_is_read(noise_HW, tmp_path, mode, compression):
    grey = Image.fromarray(noise_HW[:33, :21])
    source = grey.convert("RGB") if mode == "CMYK" else grey
    source.convert(mode).save(tmp_path / "a.tif", compression=compression)
    assert images.decode(tmp_path / "a.tif").shape == (33, 21)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"photometric": None}, "no PhotometricInterpretation"),
        ({"format": (339, [2])}, "SampleFormat: found 2; expected 1"),
    ],
)
def test_a_tiff_whose_tags_leave_its_greys_open_is_refused(
    noise_HW, tmp_path, refused, bits, changes, words
):
    content = noise_HW.astype("<u2" if bits == 16 else "u1").tobytes()
    tags = {"bits": (258, [bits])}
    np.testing.assert_array_equal(
        images.decode(tiff(tmp_path / "a.tif", content, **tags)), noise_HW
    )
    path = tiff(tmp_path / "b.tif", content, **tags, **changes)
    with refused(path, "found pixels of 32 bits" if bits == 16 and "format" in changes else words):
        images.decode(path)


def test_a_tiff_whose_decoder_would_fill_missing_rows_is_refused(noise_HW, tmp_path, refused):
    """Promise twice as many rows as the strip's JPEG stream or fax code has."""
    for compression, words in (("jpeg", "JPEG stream of 64 x 32"), ("group4", "fax")):
        picture = Image.fromarray(noise_HW[:32]).convert("L" if compression == "jpeg" else "1")
        buffer = io.BytesIO()
        picture.save(buffer, "TIFF", compression=compression)
        with Image.open(buffer) as saved:
            tags = saved.tag_v2
            start, count = tags[273][0], tags[279][0]
            code, photometric, tables = tags[259], tags[262], tags.get(347)
        changes = {"compression": (259, [code]), "photometric": (262, [photometric])}
        if tables is None:
            changes["bits"] = (258, [1])
        path = tiff(tmp_path / "a.tif", buffer.getvalue()[start : start + count], **changes)
        with refused(path, words):
            images.decode(path)
    Image.fromarray(noise_HW).save(tmp_path / "whole.tif", compression="jpeg")
    assert images.decode(tmp_path / "whole.tif").shape == noise_HW.shape


@pytest.mark.parametrize(
    "compression", [2, 3, 4, 6, 32771, 32809, 34712], ids=lambda number: f"compression {number}"
)
def test_compressions_whose_decoders_fill_what_is_missing_are_refused(
    noise_HW, refused, compression
):
    """Those of faxes, JPEG of the old kind, and whatever else isn't known to be whole."""
    tags = {259: compression, 262: 1, 256: SIDE, 257: SIDE}
    with refused(f"a.tif: found the compression {compression}, such as of a fax"):
        tiff_format.check(tags, io.BytesIO(noise_HW.tobytes()), "a.tif")


@pytest.mark.parametrize("damage", ["half zeros", "cut", "one bit"])
def test_deflated_pixels_that_are_damaged_are_refused(noise_HW, tmp_path, refused, damage):
    """libtiff doesn't compare the checksum, and makes what is missing black."""
    whole = zlib.compress(noise_HW.tobytes())
    middle = len(whole) // 2
    content = {
        "half zeros": whole[:middle] + bytes(len(whole) - middle),
        "cut": whole[:middle],
        "one bit": whole[:-1] + bytes([whole[-1] ^ 1]),
    }[damage]
    for stored, words in ((whole, None), (content, "found ")):
        tags = {"compression": (259, [8]), "counts": (279, [len(stored)])}
        path = tiff(tmp_path / "a.tif", stored, **tags)
        if words is None:
            np.testing.assert_array_equal(images.decode(path), noise_HW)
        else:
            with refused(path, words):
                images.decode(path)


@pytest.mark.parametrize(
    ("side", "words"), [(1024, None), (2048, None), (4096, "found tiles of 4096 x 4096 pixels")]
)
def test_a_tile_takes_no_more_memory_than_an_image_of_its_size_may(
    noise_HW, tmp_path, refused, side, words
):
    """Check a tile that is larger than the image, in 16 kB of compressed pixels."""
    tile = np.zeros((side, side), dtype=np.uint8)
    tile[:SIDE, :SIDE] = noise_HW
    content = zlib.compress(tile.tobytes(), 9)
    tags = {"offsets": None, "counts": None, "rows": None, "compression": (259, [8])}
    tags |= {"across": (322, [side]), "down": (323, [side])}
    places = {"tile_offsets": (324, [0]), "tile_counts": (325, [len(content)])}
    path = tiff(tmp_path / "a.tif", content, **tags, **places)
    if words is None:
        np.testing.assert_array_equal(images.decode(path), noise_HW)
    else:
        with refused(path, words):
            images.decode(path)


@pytest.mark.parametrize("shape", [(SIDE, 16 * SIDE), (16 * SIDE, SIDE)])
def test_a_jpeg_stream_that_is_larger_than_its_strip_is_refused(tmp_path, refused, shape):
    """libjpeg would decode all of it."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros(shape, dtype=np.uint8)).save(buffer, "JPEG")
    path = tiff(tmp_path / "a.tif", buffer.getvalue(), compression=(259, [7]))
    with refused(path, f"found a JPEG stream of {shape[1]} x {shape[0]} pixels; expected 64 x 64"):
        images.decode(path)


def test_no_more_of_a_strip_is_inflated_than_the_image_has_rows(noise_HW, tmp_path, monkeypatch):
    """Check 2**32 - 1 rows per strip, by which writers say: one strip."""
    asked = []
    monkeypatch.setattr(tiff_format, "_check_deflated", lambda _, most, path: asked.append(most))
    content = zlib.compress(noise_HW.tobytes())
    tags = {"compression": (259, [8]), "rows": (278, [2**32 - 1])}
    images.decode(tiff(tmp_path / "a.tif", content, **tags))
    assert asked == [SIDE * SIDE]


def test_a_tiff_of_one_plane_need_not_say_how_many_it_has(noise_HW, tmp_path):
    path = tiff(tmp_path / "a.tif", noise_HW.tobytes(), planar=(284, [2]))
    np.testing.assert_array_equal(images.decode(path), noise_HW)


@pytest.mark.parametrize("marker", [0xD0, 0xD7])
def test_a_marker_without_a_length_hides_no_header(noise_HW, marker):
    """libjpeg skips such a marker. A comment then contains another header, which it doesn't read."""
    buffer = io.BytesIO()
    Image.fromarray(noise_HW[:8]).save(buffer, "JPEG")
    plain = buffer.getvalue()
    frame = struct.pack(">BBHBHHB", 0xFF, 0xC0, 11, 8, 64, 64, 1) + b"\x01\x11\x00"
    comment = b"\xff\xfe" + struct.pack(">H", 2 + 20 + len(frame)) + bytes(20) + frame
    as_length = struct.pack(">H", 2 + 4 + 20)  # would lead into the comment
    hidden = plain[:2] + bytes([0xFF, marker]) + as_length + comment + plain[2:]
    with Image.open(io.BytesIO(hidden)) as image:
        assert image.size == (noise_HW.shape[1], 8)
    stream = jpeg.read(hidden)
    assert (stream.height, stream.width) == (8, noise_HW.shape[1])


def saved(noise_HW: np.ndarray, mode: str = "L", **options: object) -> bytes:
    """Return the bytes of a JPEG, for colour with a different picture in each channel."""
    picture = Image.fromarray(noise_HW)
    if mode != "L":
        channels = [Image.fromarray(noise_HW[::step, ::step][:64, :64]) for step in (1, -1, 1, -1)]
        picture = Image.merge(mode, [each.resize(picture.size) for each in channels[: len(mode)]])
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def markers(content: bytes, kinds: range) -> list[int]:
    return [at for at in range(len(content)) if content[at] == 0xFF and content[at + 1] in kinds]


def cut(content: bytes, at: int) -> bytes:
    return content[:at].rstrip(b"\xff") + b"\xff\xd9"


RESTARTS, SCANS = range(0xD0, 0xD8), range(0xDA, 0xDB)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("half", "premature end"),
        ("half, in colour", "premature end"),
        ("comment with the marker of the end", "premature end"),
        ("after a restart interval", "instead of RST"),
        ("without an interval in the middle", "instead of RST"),
        ("in the second scan", "premature end"),
        ("without the last scan", "lacks scans"),
        ("without the scan of a channel", "lacks scans"),
    ],
)
def test_a_jpeg_with_an_early_end_marker_is_refused(noise_HW, tmp_path, refused, name, words):
    """Without this check each would be read, with pixels that the file lacks."""
    plain, rows = saved(noise_HW), saved(noise_HW, restart_marker_rows=1)
    colour, scans = saved(noise_HW, "RGB"), saved(noise_HW, progressive=True)
    restarts, starts = markers(rows, RESTARTS), markers(scans, SCANS)
    several = saved(noise_HW, "RGB", progressive=True)
    contents = {
        "half": cut(plain, len(plain) // 2),
        "half, in colour": cut(colour, len(colour) // 2),
        "comment with the marker of the end": cut(
            plain[:2] + b"\xff\xfe\x00\x06\xff\xd9ab" + plain[2:], len(plain) // 2
        ),
        "after a restart interval": cut(rows, restarts[2]),
        "without an interval in the middle": rows[: restarts[2]] + rows[restarts[3] :],
        "in the second scan": cut(scans, starts[1] + 40) + scans[starts[2] :],
        "without the last scan": cut(scans, starts[-1]),
        "without the scan of a channel": cut(several, markers(several, SCANS)[2]),
    }
    path = tmp_path / "a.jpg"
    path.write_bytes(contents[name])
    with Image.open(path) as image:
        image.load()  # Pillow has no fault to find
    with refused(path, words):
        images.decode(path)


@pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 1}, {"progressive": True}])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_whole_jpeg_is_read(noise_HW, tmp_path, mode, options):
    """Nor does it matter what stands after its end, and whether a fill byte precedes a marker."""
    content = saved(noise_HW, mode, **options)
    path = tmp_path / "a.jpg"
    for variant in (content, content + b"after the end", content[:2] + b"\xff" + content[2:]):
        path.write_bytes(variant)
        assert images.decode(path).shape == noise_HW.shape


def test_a_jpeg_with_arithmetic_coding_is_refused(noise_HW, refused):
    """Its decoder doesn't notice that data is missing."""
    content = saved(noise_HW).replace(b"\xff\xc0", b"\xff\xc9", 1)
    with refused("a.jpg: found a JPEG with arithmetic coding"):
        jpeg.check(content, "a.jpg")


def test_a_jpeg_without_loss_is_checked_too(refused):
    """One bit for each pixel: all are 128, the prediction of the first (T.81, annex H)."""

    def segment(kind: int, content: bytes) -> bytes:
        return bytes([0xFF, kind]) + struct.pack(">H", len(content) + 2) + content

    header = (
        b"\xff\xd8"
        + segment(0xC4, b"\x00" + b"\x01" + bytes(15) + b"\x00")  # one code, for no difference
        + segment(0xC3, struct.pack(">BHHB", 8, SIDE, SIDE, 1) + b"\x01\x11\x00")
        + segment(0xDA, b"\x01\x01\x00\x01\x00\x00")
    )
    bits = bytes(SIDE * SIDE // 8)
    jpeg.check(header + bits + b"\xff\xd9", "a.jpg")
    with refused("a.jpg: found a damaged or very unusual JPEG", "premature end"):
        jpeg.check(header + bits[: len(bits) // 2] + b"\xff\xd9", "a.jpg")


def test_channels_of_one_id_hide_no_missing_scan(noise_HW, refused):
    several = saved(noise_HW, "RGB", progressive=True)
    frame = markers(several, range(0xC2, 0xC3))[0]
    content = bytearray(several)
    content[frame + 13] = content[frame + 10]  # the second channel gets the id of the first
    with refused("a.jpg: found a JPEG with channels of one id"):
        jpeg.check(bytes(content), "a.jpg")


def test_a_jpeg_in_a_tiff_that_ends_early_is_refused(noise_HW, tmp_path, refused):
    """The streams of a file share tables, which stand in a tag."""
    path = tmp_path / "a.tif"
    Image.fromarray(noise_HW).save(path, compression="jpeg")
    assert images.decode(path).shape == noise_HW.shape
    content = bytearray(path.read_bytes())
    with Image.open(path) as image:
        start, count = image.tag_v2[273][0], image.tag_v2[279][0]
    middle = start + count // 2
    content[middle : middle + 2] = b"\xff\xd9"
    path.write_bytes(content)
    with refused(path, "premature end"):
        images.decode(path)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_whole_jpeg_that_ends_in_mid_grey_is_read(noise_HW, tmp_path, progressive):
    noise_HW[-16:, -16:] = 128
    for content in (noise_HW, np.full_like(noise_HW, 128)):
        path = tmp_path / "a.jpg"
        Image.fromarray(content).save(path, quality=100, progressive=progressive)
        assert images.decode(path)[-1, -1] == 128
