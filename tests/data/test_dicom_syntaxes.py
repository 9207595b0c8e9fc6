"""Test DICOM files without a preamble, and those whose pixels need another decoder."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from chexseg.data import dicom, images
from chexseg.data.formats import jpeg
from chexseg.errors import UserError
from chexseg.predict import image_files

pydicom = pytest.importorskip("pydicom")
LOSSLESS = {
    "JPEGLossless": "JPEGLosslessProcess14",
    "JPEGLosslessSV1": "JPEGLosslessProcess14_1",
    "JPEGLSLossless": "JPEGLSLossless",
    "JPEGLSNearLossless": "JPEGLSNearLossless",
}


@pytest.fixture
def film(tmp_path, write_dicom) -> Path:
    stored_HW = np.random.default_rng(0).integers(0, 2**16, (30, 50))
    bits = {"BitsStored": 16, "HighBit": 15}
    return write_dicom(tmp_path / "film.dcm", stored_HW, **bits)


def bare(film: Path, syntax: str) -> bytes:
    """Return a file without preamble and without the group that gives the transfer syntax."""
    data = pydicom.dcmread(film)
    data.file_meta = pydicom.dataset.FileMetaDataset()
    out = pydicom.filebase.DicomBytesIO()
    out.is_implicit_VR, out.is_little_endian = syntax == "implicit", True
    del data["SOPClassUID"]
    data.ImageType = ["ORIGINAL", "PRIMARY"]
    pydicom.filewriter.write_dataset(out, data)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["meta group", "explicit", "implicit"])
@pytest.mark.parametrize("name", ["bare.dcm", "IM0001"])
def test_a_file_without_a_preamble_is_read(kind, name, film, tmp_path):
    content = film.read_bytes()[132:] if kind == "meta group" else bare(film, kind)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / name).write_bytes(content)
    (folder / "notes").write_bytes(b"\x08\x00\x05\x00" + bytes(200))  # a length of 0
    assert np.array_equal(images.decode(folder / name), images.decode(film))
    assert list(image_files.find([folder])[0].values()) == [folder / name]


@pytest.mark.parametrize("kind", ["meta group", "explicit", "implicit"])
def test_a_file_without_a_preamble_that_is_cut_off_is_refused(kind, film, tmp_path):
    content = film.read_bytes()[132:] if kind == "meta group" else bare(film, kind)
    for end in range(132, len(content) - 1, 97):
        (tmp_path / "cut").write_bytes(content[:end])
        with pytest.raises(UserError) as caught:
            images.decode(tmp_path / "cut")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("start", [b"", b"\x08\x00", bytes(132), b"\x08\x00\x08\x00CS\xff\xff"])
def test_other_files_are_not_taken_for_dicom(start):
    assert not dicom.recognises(start.ljust(132, b"\x01") if len(start) > 4 else start)


@pytest.mark.parametrize("syntax", [*LOSSLESS, "HTJ2KLossless"])
def test_pixels_without_a_decoder_name_it(syntax, film, monkeypatch):
    from pydicom.pixels.decoders.base import Decoder

    data = pydicom.dcmread(film)
    data.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
    data.PixelData = pydicom.encaps.encapsulate([frame(syntax)])
    data.save_as(film)
    monkeypatch.setattr(Decoder, "is_available", False)
    hint = (
        r"expected GDCM, which decodes it; hint: pip install 'chexseg\[dicom-jpeg\]'$"
        if syntax in LOSSLESS
        else "expected one of pydicom's decoders of it: pylibjpeg"
    )
    with pytest.raises(UserError, match=hint) as caught:
        images.decode(film)
    assert str(caught.value).startswith(f"{film}: found pixels as ")


def frame(syntax: str) -> bytes:
    """Return a stream of 30 x 50 pixels of 16 bits: its header and end only."""
    size = bytes([16, 0, 30, 0, 50, 1, 1, 0x11, 0])
    if syntax in LOSSLESS:
        marker = 0xF7 if "LS" in syntax.removeprefix("JPEG")[:2] else 0xC3
        return b"\xff\xd8\xff" + bytes([marker, 0, 11]) + size + b"\xff\xd9"
    values = (0, *(50, 30, 0, 0, 50, 30, 0, 0))
    header = b"".join(value.to_bytes(4, "big") for value in values[1:])
    return b"\xff\x4f\xff\x51\x00\x29\x00\x00" + header + b"\x00\x01\x0f\x01\x01"


def test_a_jpeg_ls_stream_without_its_end_is_refused_before_it_is_decoded(film, monkeypatch):
    """CharLS would read some of them forever."""
    data = pydicom.dcmread(film)
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless
    data.PixelData = pydicom.encaps.encapsulate([frame("JPEGLSLossless")[:-2]])
    data.save_as(film)
    monkeypatch.setattr("pydicom.pixels.utils.iter_pixels", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(UserError, match="found compressed pixels without their end"):
        images.decode(film)


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_lossless_jpeg_is_decoded_by_gdcm(syntax, film, tmp_path):
    gdcm = pytest.importorskip("gdcm", reason="needs python-gdcm, of the extra dicom-jpeg")
    reader, change, writer = (
        gdcm.ImageReader(),
        gdcm.ImageChangeTransferSyntax(),
        gdcm.ImageWriter(),
    )
    reader.SetFileName(str(film))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, LOSSLESS[syntax])))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(tmp_path / "other.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    assert np.array_equal(images.decode(tmp_path / "other.dcm"), images.decode(film))
    content = pydicom.dcmread(tmp_path / "other.dcm")
    (stream,) = pydicom.encaps.generate_frames(content.PixelData, number_of_frames=1)
    whole, end = bytes(stream).rstrip(b"\0"), b"\xff\xd9"
    lengths = range(len(whole) // 3, len(whole) - 2, 211)
    # Some programs end a stream that they cut off. GDCM fills it in silence.
    ended = [whole[:length] + end for length in (*lengths, len(whole) - 3)]
    for cut in (*ended, *(whole[:length] for length in lengths)):
        content.PixelData = pydicom.encaps.encapsulate([cut])
        content.save_as(tmp_path / "cut.dcm")
        with pytest.raises(UserError):
            images.decode(tmp_path / "cut.dcm")


@pytest.mark.parametrize("damage", ["no tables", "a table of too many codes", "no predictor"])
def test_damaged_tables_are_refused_before_gdcm_ends_the_process(damage, film, tmp_path, refused):
    pytest.importorskip("gdcm", reason="needs python-gdcm, of the extra dicom-jpeg")
    whole = lossless(pydicom.dcmread(film).pixel_array)
    tables, scan = whole.index(b"\xff\xc4"), whole.index(b"\xff\xda")
    stream = {
        "whole": whole,
        "no tables": whole[:tables] + whole[tables + 38 :],
        "a table of too many codes": whole[: tables + 5] + b"\xff" + whole[tables + 6 :],
        "no predictor": whole[: scan + 7] + b"\0" + whole[scan + 8 :],
    }
    data = pydicom.dcmread(film)
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1
    for name in ("whole", damage):
        data.PixelData = pydicom.encaps.encapsulate([stream[name]])
        data.save_as(tmp_path / f"{name}.dcm")
    assert np.array_equal(images.decode(tmp_path / "whole.dcm"), images.decode(film))
    with refused(tmp_path / f"{damage}.dcm", "found a damaged or very unusual JPEG"):
        images.decode(tmp_path / f"{damage}.dcm")


def test_a_jpeg_with_more_bits_allocated_is_refused(film, refused, monkeypatch):
    data = pydicom.dcmread(film)
    data.PixelData = pydicom.encaps.encapsulate([lossless(data.pixel_array)])
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1
    data.BitsAllocated = 32
    data.save_as(film)
    monkeypatch.setattr(dicom, "_decoder", lambda syntax, path: "")  # without GDCM too
    with refused(film, "BitsAllocated: found 32; expected 8 or 16"):
        images.decode(film)


def lossless(pixels_HW: np.ndarray, rows: int = 0) -> bytes:
    """Return a JPEG of 16 bits without loss, with a restart after so many rows; 0: none."""
    height, width = pixels_HW.shape
    bits = ""
    parts = []
    for row, line in enumerate(pixels_HW.astype(int)):
        starts = row == 0 or (rows and row % rows == 0)
        left_W = np.r_[2**15 if starts else pixels_HW[row - 1, 0], line[:-1]]
        for change in (line - left_W + 2**15) % 2**16 - 2**15:
            size = int(abs(change)).bit_length()
            value = change if change > 0 else change + 2**size - 1
            # The code of a size is the size itself, in five bits.
            bits += f"{size:05b}" + (f"{value:0{size}b}" if 0 < size < 16 else "")
        if row == height - 1 or (rows and (row + 1) % rows == 0):
            bits += "1" * (-len(bits) % 8)
            parts.append(bytes.fromhex(f"{int(bits, 2):0{len(bits) // 4}x}"))
            bits = ""
    tables = b"\xff\xc4\x00\x24\x00" + bytes([0, 0, 0, 0, 17, *11 * [0], *range(17)])
    frame = b"\xff\xc3\x00\x0b\x10" + struct.pack(">HHBBBB", height, width, 1, 1, 0x11, 0)
    interval = b"\xff\xdd\x00\x04" + struct.pack(">H", rows * width)
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x01\x00\x00"
    codes = b"".join(
        part.replace(b"\xff", b"\xff\x00") + bytes([0xFF, 0xD0 + number % 8])
        for number, part in enumerate(parts)
    )
    return b"\xff\xd8" + tables + frame + interval + scan + codes[:-2] + b"\xff\xd9"


def test_a_lossless_jpeg_without_all_bits_of_a_restart_is_refused(refused):
    """libjpeg-turbo checks them, whatever the number of bits."""
    pixels_HW = np.random.default_rng(0).integers(0, 2**16, (8, 12))
    whole = lossless(pixels_HW, rows=2)
    jpeg.check(whole, "x.dcm")
    first, second = (whole.index(bytes([0xFF, 0xD0 + number])) for number in (0, 1))
    for damaged in (
        whole[: first - 3] + whole[first:],
        whole[:first] + whole[second:],
        whole[:-9] + whole[-2:],
        whole[:second] + bytes(9) + whole[second:],
    ):
        with refused("x.dcm", "found a damaged or very unusual JPEG"):
            jpeg.check(damaged, "x.dcm")
