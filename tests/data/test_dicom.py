"""DICOM files that the tests write: both photometric interpretations, windows, rescaling, and what is refused."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from chexseg.data import dicom

pydicom = pytest.importorskip("pydicom")
TOP = 4095


@pytest.fixture
def stored_HW() -> np.ndarray:
    return np.random.default_rng(0).integers(200, 3000, (30, 50))


def test_least_is_black_and_greatest_white_in_between_in_proportion(stored_HW, tmp_path, write_dicom):
    pixels_HW = dicom.decode(write_dicom(tmp_path / "a.dcm", stored_HW))
    low, high = stored_HW.min(), stored_HW.max()
    assert pixels_HW.dtype == np.uint8
    np.testing.assert_allclose(pixels_HW, 255 * (stored_HW - low) / (high - low), atol=0.5001)


def test_both_photometric_interpretations_of_a_film_are_the_same_picture(stored_HW, tmp_path, write_dicom):
    dark_air = dicom.decode(write_dicom(tmp_path / "2.dcm", stored_HW))
    dark_bone = dicom.decode(write_dicom(tmp_path / "1.dcm", TOP - stored_HW, "MONOCHROME1"))
    assert np.array_equal(dark_air, dark_bone)
    window = {"WindowCenter": 1500, "WindowWidth": 1000}
    mirrored = {
        "WindowCenter": TOP - 1500 + 1,
        "WindowWidth": 1000,
    }  # the standard's window reaches from c - w/2 to c + w/2 - 1
    dark_air = dicom.decode(write_dicom(tmp_path / "4.dcm", stored_HW, **window)).astype(int)
    dark_bone = dicom.decode(write_dicom(tmp_path / "3.dcm", TOP - stored_HW, "MONOCHROME1", **mirrored))
    assert np.abs(dark_air - dark_bone).max() <= 1  # the two windows are rounded from opposite sides


def test_the_first_window_and_the_rescaling_before_it_are_applied(stored_HW, tmp_path, write_dicom):
    rescaled = {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": [2000, 0], "WindowWidth": [1001, 1]}
    pixels_HW = dicom.decode(write_dicom(tmp_path / "a.dcm", stored_HW, **rescaled))
    expected_HW = np.clip((2.0 * stored_HW - 1000 - 1999.5) / 1000 + 0.5, 0, 1) * 255  # PS3.3, C.11.2.1.2.1
    np.testing.assert_allclose(pixels_HW, expected_HW, atol=0.51)
    assert (pixels_HW == 0).mean() > 0.1 and (pixels_HW == 255).mean() > 0.1


def test_a_voi_lookup_table_is_applied(stored_HW, tmp_path, write_dicom):
    table = pydicom.Dataset()
    table.LUTDescriptor, table.LUTData = [TOP + 1, 0, 16], [value // 2048 * 1000 for value in range(TOP + 1)]
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    pixels_HW = dicom.decode(write_dicom(tmp_path / "a.dcm", stored_HW, VOILUTSequence=[table]))
    assert np.array_equal(pixels_HW, np.where(stored_HW >= 2048, 255, 0))


def test_a_picture_of_one_grey_is_black(tmp_path, write_dicom):
    assert not dicom.decode(write_dicom(tmp_path / "a.dcm", np.full((4, 6), 700))).any()


def test_what_is_no_radiograph_is_refused(stored_HW, tmp_path, refused, write_dicom):
    whole = write_dicom(tmp_path / "a.dcm", stored_HW).read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[:-500])
    (tmp_path / "header.dcm").write_bytes(whole[:200])
    (tmp_path / "text.dcm").write_text("no image")
    for name, words in {"cut": "readable", "header": "photometric", "text": "readable", "missing": "readable"}.items():
        with refused(tmp_path / f"{name}.dcm", words):
            dicom.decode(tmp_path / f"{name}.dcm")
    with refused("MONOCHROME1", "found the photometric interpretation PALETTE COLOR"):
        dicom.decode(write_dicom(tmp_path / "p.dcm", stored_HW, "PALETTE COLOR"))
    with refused("found 3 frames"):
        dicom.decode(write_dicom(tmp_path / "f.dcm", np.stack([stored_HW] * 3), NumberOfFrames=3))


def test_without_pydicom_the_message_names_the_extra(stored_HW, tmp_path, monkeypatch, write_dicom):
    path = write_dicom(tmp_path / "a.dcm", stored_HW)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(dicom.UserError, match=r"a\.dcm: DICOM files need pydicom; .* 'chexseg\[dicom\]'$"):
        dicom.decode(path)


def test_it_is_known_by_its_contents_or_its_ending(stored_HW, tmp_path, write_dicom):
    write_dicom(tmp_path / "IM0001", stored_HW)
    (tmp_path / "x.png").write_bytes(b"x" * 200)
    assert dicom.recognises(tmp_path / "IM0001") and dicom.recognises(tmp_path / "missing.DCM")
    assert not dicom.recognises(tmp_path / "x.png") and not dicom.recognises(tmp_path / "missing")
