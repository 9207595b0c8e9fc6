"""Test DICOM files without a preamble, and those whose pixels need another decoder."""

from __future__ import annotations

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
    for length in (*range(len(whole) // 3, len(whole) - 2, 211), len(whole) - 3):
        # Some programs end a stream that they cut off. GDCM fills it in silence.
        for cut in (whole[:length], whole[:length] + end):
            content.PixelData = pydicom.encaps.encapsulate([cut])
            content.save_as(tmp_path / "cut.dcm")
            with pytest.raises(UserError):
                images.decode(tmp_path / "cut.dcm")


def lossless(restarts: list[int], height: int = 4, interval: int = 5) -> bytes:
    """Return a stream of four rows of 5 pixels without loss, with these restarts and no pixels."""
    frame = b"\xff\xc3\0\x0b\x10" + bytes([0, height, 0, 5, 1, 1, 0x11, 0])
    scan = b"\xff\xda\0\x08\1\1\0\1\0\0" + b"".join(bytes([7, 0xFF, 0xD0 + n]) for n in restarts)
    return b"\xff\xd8" + frame + b"\xff\xdd\0\4" + bytes([0, interval]) + scan + b"\xff\xd9"


def test_a_lossless_jpeg_is_prolonged_before_its_end():
    whole = lossless([0, 1, 2])
    assert jpeg.prolonged(whole, "x") == whole[:-2] + b"\xaa" + whole[-2:]
    assert jpeg.prolonged(lossless([], interval=0), "x").endswith(b"\xaa\xff\xd9")
    many = [number % 8 for number in range(11)]
    assert jpeg.prolonged(lossless(many, height=12), "x")


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (lossless([0, 1]), "x: found 2 restarts of a JPEG; expected 3"),
        (lossless([0, 2, 1]), "x: found 3 restarts of a JPEG; expected 3, in order"),
        (lossless([0, 1, 2])[:-2], "x: found a JPEG of more than 8 bits with loss, several scans"),
        (lossless([]).replace(b"\xff\xc3", b"\xff\xc1"), "more than 8 bits with loss"),
    ],
)
def test_a_lossless_jpeg_without_all_restarts_or_its_end_is_refused(stream, words):
    with pytest.raises(UserError, match=words):
        jpeg.prolonged(stream, "x")
