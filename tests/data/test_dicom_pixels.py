"""Test that the pixels of a DICOM file are whole, and those that its header promises."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from chexseg.data import images

pydicom = pytest.importorskip("pydicom")


@pytest.mark.parametrize("form", ["JPEG", "JPEG2000"])
def test_a_header_that_contradicts_compressed_pixels_is_refused(
    tmp_path, refused, write_dicom, form
):
    ramp_HW = np.linspace(0, 255, 32 * 128).reshape(32, 128).astype(np.uint8)
    options = {"no_jp2": True} if form == "JPEG2000" else {"quality": 95}

    def write(**elements):
        buffer = io.BytesIO()
        Image.fromarray(ramp_HW).save(buffer, form, **options)
        path = write_dicom(tmp_path / "a.dcm", ramp_HW, BitsStored=8, HighBit=7)
        data = pydicom.dcmread(path)
        name = "JPEG2000Lossless" if form == "JPEG2000" else "JPEGBaseline8Bit"
        data.file_meta.TransferSyntaxUID = getattr(pydicom.uid, name)
        data.BitsAllocated = 8
        data.PixelData = pydicom.encaps.encapsulate([buffer.getvalue()])
        data["PixelData"].VR = "OB"
        for keyword, value in elements.items():
            setattr(data, keyword, value)
        data.save_as(path)
        return path

    assert np.abs(images.decode(write()).astype(int) - ramp_HW).max() < 5
    with refused("found compressed pixels of 32 x 128; expected 64 x 64 (Rows x Columns)"):
        images.decode(write(Rows=64, Columns=64))
    with refused("PixelRepresentation: found 1; expected 0"):
        images.decode(write(PixelRepresentation=1))
    with refused("found compressed pixels of 8 bits; expected 6 (BitsStored)"):
        images.decode(write(BitsStored=6, HighBit=5))


@pytest.fixture
def decode_jpeg_2000(tmp_path, refused, write_dicom):
    """Return ``decode(stream, words)`` of 64 x 96 pixels; words: of the refusal, or None."""

    def decode(stream: bytes, words: str | None = None) -> None:
        path = write_dicom(tmp_path / "a.dcm", np.zeros((64, 96)), BitsStored=8, HighBit=7)
        data = pydicom.dcmread(path)
        data.file_meta.TransferSyntaxUID, data.BitsAllocated = pydicom.uid.JPEG2000Lossless, 8
        data.PixelData = pydicom.encaps.encapsulate([stream])
        data["PixelData"].VR = "OB"
        data.save_as(path)
        if words is None:
            assert images.decode(path).shape == (64, 96)
        else:
            with refused(path, words):
                images.decode(path)

    return decode


def test_a_jpeg_2000_stream_without_its_last_tiles_is_refused(decode_jpeg_2000):
    """OpenJPEG makes missing tiles black."""
    noise_HW = np.random.default_rng(0).integers(0, 256, (64, 96), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise_HW).save(buffer, "JPEG2000", no_jp2=True, tile_size=(32, 32))
    whole = buffer.getvalue()
    decode_jpeg_2000(whole)
    half = whole[: whole.rindex(b"\xff\x90\x00\x0a\x00\x05")] + b"\xff\xd9"  # tile 5 of 0 to 5
    decode_jpeg_2000(half, "found 5 tiles of a JPEG 2000 image; expected 6")


def test_boxes_of_a_jpeg_2000_file_hide_no_missing_tile(decode_jpeg_2000):
    """Put a whole code stream into a box that decoders skip."""
    noise_HW = np.random.default_rng(0).integers(0, 256, (64, 96), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise_HW).save(buffer, "JPEG2000", tile_size=(32, 32))
    boxes = buffer.getvalue()
    start = boxes.index(b"jp2c") - 4
    whole = boxes[start + 8 :]
    half = whole[: whole.rindex(b"\xff\x90\x00\x0a\x00\x05")] + b"\xff\xd9"

    def box(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", 8 + len(content)) + kind + content

    hidden = box(b"uuid", bytes(16) + whole)
    decode_jpeg_2000(boxes)
    decode_jpeg_2000(
        boxes[:start] + hidden + box(b"jp2c", half), "found 5 tiles of a JPEG 2000 image"
    )


def test_the_stream_that_is_checked_is_the_one_that_is_decoded(tmp_path, refused, write_dicom):
    """An extended offset table points to the second of two fragments, half a JPEG."""
    noise_HW = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise_HW).save(buffer, "JPEG", quality=95)
    whole = buffer.getvalue() + bytes(len(buffer.getvalue()) % 2)
    half = whole[: len(whole) // 4 * 2] + b"\xff\xd9"
    path = write_dicom(tmp_path / "a.dcm", noise_HW, BitsStored=8, HighBit=7)
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID, data.BitsAllocated = pydicom.uid.JPEGBaseline8Bit, 8
    data.PixelData = pydicom.encaps.encapsulate([whole, half], has_bot=False)
    data["PixelData"].VR = "OB"
    data.ExtendedOffsetTable = struct.pack("<Q", 8 + len(whole))
    data.ExtendedOffsetTableLengths = struct.pack("<Q", len(half))
    data.save_as(path)
    with refused(path, "premature end"):
        images.decode(path)


def test_run_length_codes_may_be_padded(tmp_path, write_dicom):
    noise_HW = np.random.default_rng(0).integers(0, 4096, (40, 31), dtype=np.uint16)
    path = write_dicom(tmp_path / "a.dcm", noise_HW)
    data = pydicom.dcmread(path)
    data.compress(pydicom.uid.RLELossless)
    (frame,) = pydicom.encaps.generate_frames(data.PixelData, number_of_frames=1)
    plain = images.decode(path)
    data.PixelData = pydicom.encaps.encapsulate([frame + bytes(4)])
    data.save_as(path)
    np.testing.assert_array_equal(images.decode(path), plain)


@pytest.mark.parametrize("compressed", [False, True])
def test_pixels_that_do_not_fill_rows_and_columns_are_refused(
    tmp_path, refused, write_dicom, compressed
):
    """pydicom reads as many as the header says, so that films would be sheared or cut."""
    noise_HW = np.random.default_rng(0).integers(0, 4096, (40, 31), dtype=np.uint16)
    for rows, columns in ((40, 31), (40, 30), (20, 31), (39, 31)):
        path = write_dicom(tmp_path / "a.dcm", noise_HW)
        data = pydicom.dcmread(path)
        if compressed:
            data.compress(pydicom.uid.RLELossless)
        data.Rows, data.Columns = rows, columns
        data.save_as(path)
        if (rows, columns) == (40, 31):
            assert images.decode(path).shape == (40, 31)
        else:
            words = f"found 2480 bytes of pixels; expected {2 * rows * columns} for"
            twice = rows == 20 and not compressed
            with refused(path, "found more than one frame" if twice else words):
                images.decode(path)


def test_a_jpeg_stream_with_an_early_end_marker_is_refused(tmp_path, refused, write_dicom):
    noise_HW = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise_HW).save(buffer, "JPEG", quality=95)
    path = write_dicom(tmp_path / "a.dcm", noise_HW, BitsStored=8, HighBit=7)
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID, data.BitsAllocated = pydicom.uid.JPEGBaseline8Bit, 8
    part = buffer.getvalue()[: len(buffer.getvalue()) // 2] + b"\xff\xd9"
    data.PixelData = pydicom.encaps.encapsulate([part])
    data["PixelData"].VR = "OB"
    data.save_as(path)
    with refused(path, "found a damaged or very unusual JPEG", "premature end"):
        images.decode(path)
