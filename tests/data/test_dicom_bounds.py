"""Test that a DICOM file takes memory and time for its pixels, whatever else is in it.

Each of the refused files is small; as large as a file may be, it would take gigabytes or hours.
"""

from __future__ import annotations

import struct

import numpy as np
import pytest

from chexseg.data import dicom, images
from chexseg.data.formats import jpeg, limits

pydicom = pytest.importorskip("pydicom")
SIDE = 64
PIXELS_HW = np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE)
IMPLICIT, RLE, JPEG_2000 = "1.2.840.10008.1.2", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90"
UNDEFINED = b"\xff" * 4
ITEM = b"\xfe\xff\x00\xe0"
ITEM_END, END = b"\xfe\xff\x0d\xe0" + bytes(4), b"\xfe\xff\xdd\xe0" + bytes(4)
#: More elements, items or fragments than are read in the tests of them.
MANY = 10_001
PRIVATE, WINDOW, TABLES, CHARACTERS = (9, 0x1001), (0x28, 0x1050), (0x28, 0x3010), (8, 5)


def element(tag: tuple[int, int], value: bytes, vr: bytes = b"") -> bytes:
    """Return an element, of implicit type without `vr`."""
    value += b" " * (len(value) % 2)
    if vr in (b"OB", b"SQ"):
        return struct.pack("<HH2sHI", *tag, vr, 0, len(value)) + value
    form = "<HH2sH" if vr else "<HHI"
    return struct.pack(form, *tag, *([vr] if vr else []), len(value)) + value


def undefined(tag: tuple[int, int], items: bytes) -> bytes:
    """Return an element of implicit type and undefined length."""
    return struct.pack("<HH", *tag) + UNDEFINED + items + END


def empty(count: int, first_group: int = 9) -> bytes:
    """Return so many different elements without a value."""
    return b"".join(
        struct.pack("<HHI", first_group + 2 * (number >> 16), number & 0xFFFF, 0)
        for number in range(count)
    )


def encapsulated(*fragments: bytes, offsets: bytes = b"") -> bytes:
    items = (ITEM + struct.pack("<I", len(part)) + part for part in (offsets, *fragments))
    return struct.pack("<HH2sH", 0x7FE0, 0x10, b"OB", 0) + UNDEFINED + b"".join(items) + END


def run_lengths(count: int) -> bytes:
    """Return a frame of `count` bytes that are equal."""
    return struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x00" * (count // 128)


@pytest.fixture
def film(tmp_path):
    """Return ``film(before, after, syntax, pixels, meta)``, which writes one and returns its path.

    before, after: elements before and after those of group 28; pixels: the last element.
    """

    def write(before=b"", after=b"", syntax=IMPLICIT, pixels=None, meta=b""):
        us = b"" if syntax == IMPLICIT else b"US"
        numbers = {2: 1, 0x10: SIDE, 0x11: SIDE, 0x100: 8, 0x101: 8, 0x102: 7, 0x103: 0}
        group = [
            element((0x28, key), struct.pack("<H", value), us) for key, value in numbers.items()
        ]
        group.insert(1, element((0x28, 4), b"MONOCHROME2", us and b"CS"))
        meta += element((2, 0x10), syntax.encode(), b"UI")
        start = bytes(128) + b"DICM" + element((2, 0), struct.pack("<I", len(meta)), b"UL")
        if pixels is None:
            pixels = element((0x7FE0, 0x10), PIXELS_HW.tobytes())
        path = tmp_path / "film.dcm"
        path.write_bytes(start + meta + before + b"".join(group) + after + pixels)
        return path

    return write


@pytest.fixture
def undecoded(monkeypatch) -> None:
    monkeypatch.setattr("pydicom.pixels.utils.iter_pixels", lambda *_, **__: pytest.fail("decoded"))


@pytest.mark.usefixtures("undecoded")
@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([run_lengths(SIDE * SIDE * 100)], "found 409600 bytes of pixels; expected 4096 for"),
        ([run_lengths(2**27)], "found stored pixels for 64 x 64 (Rows x Columns) of more than 1,0"),
        ([run_lengths(SIDE * SIDE), run_lengths(SIDE * SIDE * 100)], "found more than one frame"),
    ],
    ids=["too many", "far too many", "in the second frame"],
)
def test_run_lengths_are_added_before_they_are_expanded(film, refused, frames, words):
    """A byte of the file becomes 64. The second frame was decoded with the first."""
    offsets = struct.pack("<II", 0, 8 + len(frames[0])) if len(frames) > 1 else b""
    with refused("film.dcm", words):
        images.decode(film(syntax=RLE, pixels=encapsulated(*frames, offsets=offsets)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WindowCenter", b"1\\" * 5000),
        ("RescaleSlope", b"1\\" * 5000),
        ("PixelPaddingValue", bytes(5000)),
        ("VOILUTSequence", (ITEM + bytes(4)) * 70_000),
    ],
)
def test_an_element_of_many_values_is_refused_before_it_is_parsed(
    film, refused, monkeypatch, name, value
):
    """A value of two bytes became an object of 236, and an empty item one of 656."""
    parsed = []
    convert = pydicom.dataset.convert_raw_data_element
    monkeypatch.setattr(
        "pydicom.dataset.convert_raw_data_element",
        lambda raw, **rest: parsed.append(raw.tag) or convert(raw, **rest),
    )
    tag = pydicom.tag.Tag(name)
    with refused("film.dcm", f"{name}: found {len(value):,} bytes; expected at most "):
        images.decode(film(after=element((tag.group, tag.element), value)))
    assert tag not in parsed


MANY_PARTS = {
    "elements": {"before": empty(MANY)},
    "elements after the pixels": {
        "pixels": element((0x7FE0, 0x10), PIXELS_HW.tobytes()) + empty(MANY, 0x7FE1)
    },
    "items": {"before": undefined(PRIVATE, (ITEM + bytes(4)) * MANY)},
    "nested elements": {
        "before": undefined(PRIVATE, ITEM + UNDEFINED + empty(MANY) + ITEM_END),
    },
    "tables": {"after": undefined(TABLES, (ITEM + bytes(4)) * MANY)},
    "fragments": {"syntax": JPEG_2000, "pixels": encapsulated(*[b""] * (MANY // 2 + 1))},
}


@pytest.mark.parametrize("parts", MANY_PARTS.values(), ids=MANY_PARTS)
def test_many_elements_items_or_fragments_are_refused(film, refused, monkeypatch, parts):
    """Each takes 290 to 656 bytes of memory, whether it is needed or not."""
    monkeypatch.setattr(limits, "MOST_DICOM_READS", MANY - 1, raising=False)
    with refused("film.dcm", "found so many DICOM elements, items or fragments"):
        images.decode(film(**parts))


@pytest.mark.parametrize(
    "parts",
    [
        {"before": element(CHARACTERS, b"ab\\" * 30_000)},
        {
            "before": undefined(
                PRIVATE,
                (ITEM + UNDEFINED + element(CHARACTERS, b"\\" * 1000) + ITEM_END) * 70,
            )
        },
        {"meta": element((2, 2), b"1\\" * 30_000, b"UI") + element((2, 3), bytes(9000), b"UI")},
    ],
    ids=["character set", "nested character sets", "meta elements"],
)
def test_many_values_of_what_is_parsed_on_the_way_are_refused(film, refused, parts):
    """20 MB of character sets took more than 40 s, of meta elements 1.7 GB."""
    with refused("film.dcm", "found meta elements and character sets of more than 65,536 bytes"):
        images.decode(film(**parts))


def test_long_values_in_a_table_of_undefined_length_are_refused(film, refused):
    values = element((0x28, 0x3002), bytes(600_000))
    table = undefined(TABLES, ITEM + UNDEFINED + values + ITEM_END)
    with refused("film.dcm", "VOILUTSequence: found 600,000 bytes; expected at most 524,288"):
        images.decode(film(after=table))


def test_a_long_table_of_offsets_is_refused(film, refused):
    with refused("film.dcm", "found more than one frame"):
        images.decode(film(syntax=JPEG_2000, pixels=encapsulated(b"xx", offsets=bytes(5000))))


def test_bits_that_no_pixel_has_allow_no_more_to_be_read(film, refused):
    bits = element((0x28, 0x100), struct.pack("<H", 65528))
    with refused("film.dcm", "BitsAllocated: found 65528; expected 8 or 16"):
        images.decode(film(after=bits))


def test_what_real_devices_write_besides_the_pixels_is_read_or_skipped(film):
    icon = element((0x28, 0x10), struct.pack("<H", 512)) + element((0x7FE0, 0x10), bytes(2**18))
    nested = undefined(PRIVATE, (ITEM + UNDEFINED + empty(50) + ITEM_END) * 100)
    center = element(WINDOW, b"\\".join([b"128.000000000000"] * 100))
    width = element((0x28, 0x1051), b"\\".join([b"256.000000000000"] * 100))
    path = film(
        before=element(CHARACTERS, b"ISO_IR 100")
        + undefined((8, 0x1140), (ITEM + UNDEFINED + element(CHARACTERS, b"") + ITEM_END) * 50)
        + element(PRIVATE, bytes(40_000_000))
        + undefined((11, 0x1001), ITEM + UNDEFINED + nested + ITEM_END),
        after=center
        + width
        + undefined((0x88, 0x200), ITEM + UNDEFINED + icon + ITEM_END)
        + element((0x6000, 0x3000), bytes(2**20)),
        pixels=element((0x7FE0, 0x10), PIXELS_HW.tobytes())
        + element((0xFFFC, 0xFFFC), bytes(9999)),
    )
    np.testing.assert_array_equal(images.decode(path), PIXELS_HW)
    assert dicom.holds_image(path)


def test_a_frame_in_many_fragments_is_read(film):
    rows = PIXELS_HW.tobytes()
    codes = b"".join(b"\x7f" + rows[start : start + 128] for start in range(0, len(rows), 128))
    frame = struct.pack("<16I", 1, 64, *[0] * 14) + codes
    parts = [frame[start : start + 4] for start in range(0, len(frame), 4)]
    path = film(syntax=RLE, pixels=encapsulated(*parts))
    np.testing.assert_array_equal(images.decode(path), PIXELS_HW)


def test_an_index_of_many_records_is_no_image(tmp_path, monkeypatch):
    """It is left out, however many; its records aren't read."""
    monkeypatch.setattr(limits, "MOST_DICOM_READS", MANY - 1, raising=False)
    meta = element((2, 0x10), IMPLICIT.encode(), b"UI")
    start = bytes(128) + b"DICM" + element((2, 0), struct.pack("<I", len(meta)), b"UL") + meta
    path = tmp_path / "DICOMDIR"
    path.write_bytes(start + undefined((4, 0x1220), (ITEM + bytes(4)) * MANY))
    assert not dicom.holds_image(path)


@pytest.mark.usefixtures("undecoded")
def test_pixels_that_are_a_sequence_are_refused_before_its_items_are_parsed(film, refused):
    items = ITEM + bytes(4)
    pixels = element((0x7FE0, 0x10), items * (SIDE * SIDE // len(items)), b"SQ")
    with refused("PixelData: found the type SQ; expected OB or OW"):
        images.decode(film(syntax="1.2.840.10008.1.2.1", pixels=pixels))


@pytest.mark.usefixtures("undecoded")
def test_a_jpeg_of_more_channels_than_the_film_is_refused(film, refused):
    """CharLS takes memory for all channels before it looks at one."""
    channels = b"".join(bytes([number, 0x11, 0]) for number in range(1, 256))
    stream = b"\xff\xd8\xff\xf7" + struct.pack(">HBHHB", 8 + len(channels), 8, SIDE, SIDE, 255)
    pixels = encapsulated(stream + channels + b"\xff\xd9")
    with refused("found compressed pixels of 255 channels; expected 1"):
        images.decode(film(syntax="1.2.840.10008.1.2.4.80", pixels=pixels))


def test_boxes_before_a_jpeg_2000_stream_are_not_each_copied_with_it():
    """A copy of a megabyte for each of 8 bytes took 3 s, and an hour for 30 of them."""

    class Stream(bytes):
        def __add__(self, other: bytes) -> bytes:
            pytest.fail("copied")

    with pytest.raises(ValueError, match="no JPEG 2000 code stream"):
        jpeg.read(Stream(struct.pack(">I4s", 8, b"free") * 3))
