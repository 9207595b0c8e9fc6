"""Test DICOM files: both photometric interpretations, windows, rescaling, and what is refused."""

from __future__ import annotations

import struct
import sys

import numpy as np
import pytest
from PIL import Image

from chexseg.data import dicom, images
from chexseg.errors import UserError

pydicom = pytest.importorskip("pydicom")
TOP = 4095


@pytest.fixture
def stored_HW() -> np.ndarray:
    return np.random.default_rng(0).integers(200, 3000, (30, 50))


def test_least_is_black_and_greatest_white_in_between_in_proportion(
    stored_HW, tmp_path, write_dicom
):
    pixels_HW = images.decode(write_dicom(tmp_path / "a.dcm", stored_HW))
    low, high = stored_HW.min(), stored_HW.max()
    assert pixels_HW.dtype == np.uint8
    np.testing.assert_allclose(pixels_HW, 255 * (stored_HW - low) / (high - low), atol=0.5001)


def test_both_photometric_interpretations_of_a_film_are_the_same_picture(
    stored_HW, tmp_path, write_dicom
):
    dark_air = images.decode(write_dicom(tmp_path / "2.dcm", stored_HW))
    dark_bone = images.decode(write_dicom(tmp_path / "1.dcm", TOP - stored_HW, "MONOCHROME1"))
    assert np.array_equal(dark_air, dark_bone)
    window = {"WindowCenter": 1500, "WindowWidth": 1000}
    mirrored = {
        "WindowCenter": TOP - 1500 + 1,
        "WindowWidth": 1000,
    }  # the standard's window spans c - w/2 to c + w/2 - 1
    dark_air = images.decode(write_dicom(tmp_path / "4.dcm", stored_HW, **window)).astype(int)
    dark_bone = images.decode(
        write_dicom(tmp_path / "3.dcm", TOP - stored_HW, "MONOCHROME1", **mirrored)
    )
    assert (
        np.abs(dark_air - dark_bone).max() <= 1
    )  # the two windows are rounded from opposite sides


def test_the_first_window_and_the_rescaling_before_it_are_applied(stored_HW, tmp_path, write_dicom):
    rescaled = {
        "RescaleSlope": 2,
        "RescaleIntercept": -1000,
        "WindowCenter": [2000, 0],
        "WindowWidth": [1001, 1],
    }
    pixels_HW = images.decode(write_dicom(tmp_path / "a.dcm", stored_HW, **rescaled))
    expected_HW = (
        np.clip((2.0 * stored_HW - 1000 - 1999.5) / 1000 + 0.5, 0, 1) * 255
    )  # PS3.3, C.11.2.1.2.1
    np.testing.assert_allclose(pixels_HW, expected_HW, atol=0.51)
    assert (pixels_HW == 0).mean() > 0.1 and (pixels_HW == 255).mean() > 0.1


def test_a_voi_lookup_table_is_applied(stored_HW, tmp_path, write_dicom):
    table = pydicom.Dataset()
    table.LUTDescriptor, table.LUTData = (
        [TOP + 1, 0, 16],
        [value // 2048 * 1000 for value in range(TOP + 1)],
    )
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    pixels_HW = images.decode(write_dicom(tmp_path / "a.dcm", stored_HW, VOILUTSequence=[table]))
    assert np.array_equal(pixels_HW, np.where(stored_HW >= 2048, 255, 0))


def test_a_picture_of_one_grey_is_black(tmp_path, write_dicom):
    assert not images.decode(write_dicom(tmp_path / "a.dcm", np.full((4, 6), 700))).any()


def test_what_is_no_radiograph_is_refused(stored_HW, tmp_path, refused, write_dicom):
    whole = write_dicom(tmp_path / "a.dcm", stored_HW).read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[:-500])
    (tmp_path / "header.dcm").write_bytes(whole[:200])
    (tmp_path / "text.dcm").write_text("no image")
    for name, words in {
        "cut": "found 2500 bytes of pixels; expected 3000",
        "header": "photometric",
        "text": "readable",
        "missing": "no such image",
    }.items():
        with refused(tmp_path / f"{name}.dcm", words):
            images.decode(tmp_path / f"{name}.dcm")
    with refused("MONOCHROME1", "found the photometric interpretation 'PALETTE COLOR'"):
        images.decode(write_dicom(tmp_path / "p.dcm", stored_HW, "PALETTE COLOR"))
    with refused("SamplesPerPixel: found 3"):
        images.decode(write_dicom(tmp_path / "s.dcm", stored_HW, SamplesPerPixel=3))
    with refused("more than one frame"):
        images.decode(write_dicom(tmp_path / "f.dcm", np.stack([stored_HW] * 3)))


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"HighBit": 15}, "HighBit: found 15; expected 11"),
        ({"RescaleSlope": -1}, "found RescaleSlope alone"),
        ({"RescaleSlope": -1, "RescaleIntercept": ""}, "found RescaleSlope alone"),
        ({"RescaleIntercept": 5}, "found RescaleIntercept alone"),
        ({"WindowCenter": 1000}, "found WindowCenter alone"),
        ({"WindowWidth": 1000}, "found WindowWidth alone"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(
    stored_HW, tmp_path, refused, write_dicom, elements, words
):
    path = write_dicom(tmp_path / "a.dcm", stored_HW, **elements)
    with refused(path, words):
        images.decode(path)


@pytest.mark.parametrize(("count", "words"), [(12, "found 12 frames"), (1, "more than one frame")])
def test_several_frames_are_refused_before_all_are_decoded(
    tmp_path, refused, write_dicom, monkeypatch, count, words
):
    path = write_dicom(tmp_path / "a.dcm", np.zeros((40, 60)))
    data = pydicom.dcmread(path)
    data.compress(pydicom.uid.RLELossless)
    (frame,) = pydicom.encaps.generate_frames(data.PixelData, number_of_frames=1)
    data.PixelData, data.NumberOfFrames = pydicom.encaps.encapsulate([frame] * 12), count
    data.save_as(path)
    decoded = []
    decode = pydicom.pixels.decoders.base.DecodeRunner._decode_frame

    def counting(runner, source):
        decoded.append(source)
        return decode(runner, source)

    monkeypatch.setattr(pydicom.pixels.decoders.base.DecodeRunner, "_decode_frame", counting)
    with refused(path, words):
        images.decode(path)
    assert len(decoded) <= 2


def test_without_pydicom_the_message_names_the_extra(stored_HW, tmp_path, monkeypatch, write_dicom):
    path = write_dicom(tmp_path / "a.dcm", stored_HW)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(
        UserError, match=r"a\.dcm: DICOM files need pydicom; .* 'chexseg\[dicom\]'$"
    ):
        images.decode(path)


def test_its_content_decides_and_no_ending(stored_HW, tmp_path, write_dicom):
    path = write_dicom(tmp_path / "film.png", stored_HW)
    assert dicom.recognises(path.read_bytes()) and images.decode(path).shape == stored_HW.shape
    Image.fromarray(images.decode(path)).save(tmp_path / "film.dcm", format="PNG")
    assert np.array_equal(images.decode(tmp_path / "film.dcm"), images.decode(path))
    assert not dicom.recognises(b"x" * 200) and not dicom.recognises(b"DICM")


def test_padding_is_black_and_the_film_as_it_is_without(stored_HW, tmp_path, write_dicom):
    plain_HW = images.decode(write_dicom(tmp_path / "plain.dcm", stored_HW))
    padded_HW = np.pad(stored_HW, 5, constant_values=60000)
    film = np.s_[5:-5, 5:-5]
    sixteen = {"BitsStored": 16, "HighBit": 15}
    for name, photometric, values_HW, elements in (
        ("value", "MONOCHROME2", padded_HW, {"PixelPaddingValue": 60000}),
        (
            "limit",
            "MONOCHROME2",
            padded_HW,
            {"PixelPaddingValue": 65535, "PixelPaddingRangeLimit": 50000},
        ),
        (
            "other way round",
            "MONOCHROME2",
            padded_HW,
            {"PixelPaddingValue": 50000, "PixelPaddingRangeLimit": 65535},
        ),
        (
            "inverted",
            "MONOCHROME1",
            np.pad(TOP - stored_HW, 5, constant_values=60000),
            {"PixelPaddingValue": 60000},
        ),
        (
            "rescaled",
            "MONOCHROME2",
            padded_HW,
            {"PixelPaddingValue": 60000, "RescaleSlope": 2, "RescaleIntercept": -9},
        ),
    ):
        pixels_HW = images.decode(
            write_dicom(tmp_path / f"{name}.dcm", values_HW, photometric, **sixteen, **elements)
        )
        np.testing.assert_array_equal(pixels_HW[film], plain_HW, name)
        assert pixels_HW.sum() == plain_HW.sum(), name


@pytest.mark.parametrize(("vr", "padding"), [("SS", -20000), ("US", 45536)])
def test_signed_padding_counts_in_either_notation(stored_HW, tmp_path, write_dicom, vr, padding):
    plain_HW = images.decode(write_dicom(tmp_path / "plain.dcm", stored_HW))
    signed = {"BitsStored": 16, "HighBit": 15, "PixelRepresentation": 1}
    path = write_dicom(tmp_path / "a.dcm", np.pad(stored_HW, 5, constant_values=-20000), **signed)
    data = pydicom.dcmread(path)
    data.add_new("PixelPaddingValue", vr, padding)
    data.save_as(path)
    np.testing.assert_array_equal(images.decode(path), np.pad(plain_HW, 5))


def test_a_film_of_nothing_but_padding_is_refused(tmp_path, refused, write_dicom):
    with refused(tmp_path / "a.dcm", "nothing but padding"):
        images.decode(write_dicom(tmp_path / "a.dcm", np.full((4, 6), 7), PixelPaddingValue=7))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_burnt_in_marker_does_not_squeeze_the_film(tmp_path, write_dicom, photometric):
    stored_HW = np.random.default_rng(0).integers(200, 3000, (60, 100))
    plain_HW = images.decode(write_dicom(tmp_path / "plain.dcm", stored_HW, photometric))
    marked_HW = stored_HW.copy()
    marked_HW[:4, :10], marked_HW[-4:, -2:] = 65535, 40000
    path = write_dicom(tmp_path / "marked.dcm", marked_HW, photometric, BitsStored=16, HighBit=15)
    expected_HW = np.where(
        marked_HW == stored_HW, plain_HW, 255 if photometric == "MONOCHROME2" else 0
    )
    differing = images.decode(path) != expected_HW
    assert (
        differing.mean() < 0.001
    )  # a marker covers the radiograph's only pixel with its largest value


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "name", ["RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"]
)
def test_factors_that_are_not_finite_are_refused(
    stored_HW, tmp_path, refused, write_dicom, name, value
):
    elements = {
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
        "WindowCenter": 1500,
        "WindowWidth": 1000,
        name: value,
    }
    with refused(tmp_path / "a.dcm", f"{name}: found {value}"):
        images.decode(write_dicom(tmp_path / "a.dcm", stored_HW, **elements))


def test_rescaling_to_nothing_or_beyond_all_bounds_is_refused(
    stored_HW, tmp_path, refused, write_dicom
):
    for slope, words in (("0", "RescaleSlope: found 0"), ("1e308", "finite")):
        with refused(tmp_path / "a.dcm", words):
            images.decode(
                write_dicom(tmp_path / "a.dcm", stored_HW, RescaleSlope=slope, RescaleIntercept="0")
            )


def test_more_pixels_than_memory_is_for_are_refused_before_they_are_read(
    stored_HW, tmp_path, refused, write_dicom
):
    with refused(tmp_path / "a.dcm", "65535 x 65535 pixels"):
        images.decode(write_dicom(tmp_path / "a.dcm", stored_HW, Rows=65535, Columns=65535))


def test_the_shared_padded_films_are_the_plain_one(shared):
    plain_HW, *padded = (
        images.decode(shared / f"cases/dicom/{name}.dcm")
        for name in ("plain", "padding_high", "padding_low_signed")
    )
    for pixels_HW in padded:
        film = pixels_HW > 0
        assert 0.7 < film.mean() < 0.95
        assert np.abs(pixels_HW[film].astype(int) - plain_HW[film]).max() <= 1


def test_a_deflated_file_is_refused_before_it_is_inflated(tmp_path, write_dicom, monkeypatch):
    """Refuse a deflated file: a megabyte may expand to a thousand, and pydicom inflates first."""
    path = write_dicom(tmp_path / "film.dcm", np.zeros((4, 4)))
    syntax = b"1.2.840.10008.1.2.1"
    path.write_bytes(
        path.read_bytes().replace(b"UI\x14\0" + syntax + b"\0", b"UI\x16\0" + syntax + b".99")
    )
    far = path.with_name("far")  # its file meta group is long before the transfer syntax
    content = path.read_bytes()
    private = struct.pack("<HH2sHI", 2, 0x102, b"OB", 0, 6000) + bytes(6000)
    far.write_bytes(content[:144] + private + content[144:])
    monkeypatch.setattr("zlib.decompress", lambda *_, **__: pytest.fail("inflated"))
    for deflated in (path, far):
        with pytest.raises(UserError, match="found a deflated DICOM file"):
            images.read(deflated)
        assert dicom.holds_image(deflated), "and it is no file to be left out without a word"
