"""Test fitting images into squares and back: no shift, nothing outside, damaged files refused."""

from __future__ import annotations

import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from chexseg.data import images
from chexseg.data.images import Frame

SHAPES = [(320, 320), (329, 320), (320, 390), (2320, 2828), (64, 77), (50, 320), (31, 17)]


JPEG = {"jpg": {"quality": 100, "subsampling": 0}}


def restored(frame: Frame, masks_KSS: np.ndarray) -> np.ndarray:
    """Return square masks at the original size: borders removed, nearest neighbour."""
    inner = frame.cut(masks_KSS)
    rows = ((np.arange(frame.height) + 0.5) * inner.shape[1] / frame.height).astype(int)
    columns = ((np.arange(frame.width) + 0.5) * inner.shape[2] / frame.width).astype(int)
    return inner[:, rows[:, None], columns[None, :]]


def disc(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return ((y - 0.4 * height) / (0.25 * height)) ** 2 + (
        (x - 0.6 * width) / (0.3 * width)
    ) ** 2 < 1


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return (first & second).sum() / (first | second).sum()


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_the_long_side_fills_the_square_and_the_rest_is_black(height, width):
    frame = Frame(height, width, 96)
    square = frame.image(np.full((height, width), 200, dtype=np.uint8))
    assert square.shape == (96, 96) and square.dtype == np.uint8
    rows, columns = (np.flatnonzero(square.any(axis=axis)) for axis in (1, 0))
    assert max(len(rows), len(columns)) == 96
    assert abs(len(rows) / len(columns) - height / width) < 1.5 / 96 * max(1, height / width)
    for filled in (rows, columns):  # centred: borders of the two sides differ by at most one pixel
        assert abs(filled[0] - (95 - filled[-1])) <= 1
        assert np.array_equal(filled, np.arange(filled[0], filled[-1] + 1))
    assert (square[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] == 200).all()


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_masks_go_where_their_pixels_go(height, width):
    mask_HW = disc(height, width)
    frame = Frame(height, width, 96)
    square_HW = frame.image(np.where(mask_HW, 255, 0).astype(np.uint8)) > 127
    masks_KHW = frame.masks(np.stack([mask_HW, np.zeros_like(mask_HW)]))
    assert masks_KHW.shape == (2, 96, 96) and masks_KHW.dtype == bool and not masks_KHW[1].any()
    assert iou(masks_KHW[0], square_HW) > 0.93


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_squares_of_masks_resize_back_to_the_original_size(height, width):
    mask_HW = disc(height, width)
    frame = Frame(height, width, 96)
    back_HW = restored(frame, frame.masks(mask_HW[None]))[0]
    assert back_HW.shape == (height, width)
    assert iou(back_HW, mask_HW) > 0.92


def test_resizing_back_is_exact_if_the_image_was_enlarged():
    mask_HW = np.random.default_rng(0).random((31, 45)) < 0.5
    for size in (45, 46, 64, 137):
        frame = Frame(31, 45, size)
        assert np.array_equal(restored(frame, frame.masks(mask_HW[None]))[0], mask_HW)


def test_a_sliver_keeps_at_least_one_pixel():
    assert Frame(1, 5000, 64).inner == (1, 64)
    assert Frame(1, 5000, 64).masks(np.ones((1, 1, 5000), dtype=bool)).sum() == 64


def test_decode_reads_grey_colour_and_sixteen_bits(tmp_path):
    grey_HW = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)
    saved = {
        "grey.png": Image.fromarray(grey_HW),
        "colour.png": Image.fromarray(grey_HW).convert("RGB"),
        "deep.png": Image.fromarray(grey_HW.astype(np.uint16) * 257),
        "palette.png": Image.fromarray(grey_HW).convert("P"),
    }
    for name, image in saved.items():
        image.save(tmp_path / name)
        pixels_HW = images.decode(tmp_path / name)
        assert pixels_HW.dtype == np.uint8 and np.array_equal(pixels_HW, grey_HW), name


@pytest.mark.parametrize(
    ("name", "share"),
    [("image.jpg", 0.5), ("image.png", 0.5), ("image.jpg", 0.02), ("image.png", 0.02)],
)
def test_truncated_images_are_refused(tmp_path, refused, name, share):
    path = tmp_path / name
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with refused(path, "no readable image"):
        images.decode(path)


def test_what_is_no_image_is_refused(tmp_path, refused):
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty.jpg").touch()
    for name in ("text.jpg", "empty.jpg", "."):
        with refused(tmp_path / name, "no readable image"):
            images.decode(tmp_path / name)
    with refused(tmp_path / "missing.jpg", "no such image"):
        images.decode(tmp_path / "missing.jpg")


def test_pixels_of_no_known_range_are_refused(tmp_path, refused):
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "float.tiff")
    with refused(tmp_path / "float.tiff", "8 or 16 bits"):
        images.decode(tmp_path / "float.tiff")


def test_the_published_radiograph(sample):
    pixels_HW = images.decode(sample / "valid/patient64541/study1/view1_frontal.jpg")
    assert pixels_HW.shape == (2320, 2828) and pixels_HW.max() > 200
    square = Frame(*pixels_HW.shape, 320).image(pixels_HW)
    assert (
        not square[:28].any()
        and not square[-28:].any()
        and abs(square[29:-29].mean() - pixels_HW.mean()) < 1
    )


@pytest.fixture
def film_HW() -> np.ndarray:
    """Return grey levels from 0 to 255 with no two equal rows or columns."""
    return (
        np.random.default_rng(0).permutation(np.arange(320) % 256).astype(np.uint8).reshape(16, 20)
    )


def png(path: Path, values_HW: np.ndarray, significant_bits: int | None = None) -> Path:
    """Return a grey PNG of sixteen bits, optionally with a chunk sBIT."""
    Image.fromarray(values_HW.astype(np.uint16)).save(path)
    if significant_bits is not None:
        chunk = b"sBIT" + bytes([significant_bits])
        whole = path.read_bytes()
        path.write_bytes(
            whole[:33]
            + struct.pack(">I", 1)
            + chunk
            + struct.pack(">I", zlib.crc32(chunk))
            + whole[33:]
        )
    return path


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_the_bits_in_use_are_scaled(film_HW, tmp_path, bits, ending):
    values_HW = film_HW.astype(np.uint16) << (bits - 8)
    Image.fromarray(values_HW).save(tmp_path / f"film.{ending}")
    np.testing.assert_array_equal(images.decode(tmp_path / f"film.{ending}"), film_HW)
    values_HW[0, :2] = 65535  # a burnt-in marker
    Image.fromarray(values_HW).save(tmp_path / f"film.{ending}")
    film_HW[0, :2] = 255
    np.testing.assert_array_equal(images.decode(tmp_path / f"film.{ending}"), film_HW)


def test_declared_bits_count_unless_the_values_were_scaled_up(film_HW, tmp_path):
    dark_HW = film_HW.astype(np.uint16) // 8  # by its maximum it would be an eight-bit image
    np.testing.assert_array_equal(images.decode(png(tmp_path / "a.png", dark_HW, 12)), dark_HW >> 4)
    scaled_HW = film_HW.astype(np.uint16) * 257
    for bits in (0, 1, 12, 16, 255):
        np.testing.assert_array_equal(
            images.decode(png(tmp_path / "b.png", scaled_HW, bits)), film_HW
        )


def test_the_least_of_two_bytes_is_not_lost_in_colour_either(film_HW, tmp_path, refused):
    """Check a grey file whose header says grey and alpha.

    Pillow reads colour of sixteen bits as eight, and can't write it.
    """
    for bits, path in ((16, tmp_path / "full.png"), (12, tmp_path / "twelve.png")):
        values_HW = film_HW.astype(np.uint16) << (bits - 8)
        rows = (
            np.dstack([values_HW, np.full_like(values_HW, 65535)])
            .astype(">u2")
            .reshape(16, -1)
            .view(np.uint8)
        )
        data = zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes())
        chunks = [
            b"IHDR" + struct.pack(">IIBBBBB", 20, 16, 16, 4, 0, 0, 0),
            b"IDAT" + data,
            b"IEND",
        ]
        framed = (
            struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one))
            for one in chunks
        )
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))
    np.testing.assert_array_equal(images.decode(tmp_path / "full.png"), film_HW)
    with refused(tmp_path / "twelve.png", "16 bits, of which at most 14 are in use"):
        images.decode(tmp_path / "twelve.png")


def test_a_tiff_whose_white_is_zero_is_the_same_film(film_HW, tmp_path):
    # Pillow inverts eight bits when it writes and when it reads them, but never sixteen bits.
    for values_HW in (film_HW, (255 - film_HW.astype(np.uint16)) << 4):
        Image.fromarray(values_HW).save(
            tmp_path / "film.tiff", tiffinfo={ExifTags.Base.PhotometricInterpretation: 0}
        )
        np.testing.assert_array_equal(images.decode(tmp_path / "film.tiff"), film_HW)


def test_a_tiff_of_several_pages_is_refused(film_HW, tmp_path, refused):
    page = Image.fromarray(film_HW)
    page.save(tmp_path / "film.tiff", save_all=True, append_images=[page])
    with refused(tmp_path / "film.tiff", "found 2 pages; expected one"):
        images.decode(tmp_path / "film.tiff")


@pytest.mark.parametrize("ending", ["jpg", "png", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(film_HW, tmp_path, ending, orientation):
    stored = {
        1: film_HW,
        2: film_HW[:, ::-1],
        3: film_HW[::-1, ::-1],
        4: film_HW[::-1],
        5: film_HW.T,
        6: np.rot90(film_HW),
        7: film_HW[::-1, ::-1].T,
        8: np.rot90(film_HW, -1),
    }[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"film.{ending}"
    Image.fromarray(stored).save(path, exif=exif, **JPEG.get(ending, {}))
    image = images.read(path)
    assert image.orientation == orientation and image.stored_shape == stored.shape
    assert image.pixels_HW.shape == film_HW.shape
    assert np.abs(image.pixels_HW.astype(int) - film_HW).max() <= (16 if ending == "jpg" else 0)


def test_sixteen_bits_are_turned_too(film_HW, tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for ending in ("png", "tiff"):
        path = tmp_path / f"film.{ending}"
        Image.fromarray(np.rot90(film_HW).astype(np.uint16) << 4).save(path, exif=exif)
        np.testing.assert_array_equal(images.decode(path), film_HW)


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0nonsense",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
    ],
)
def test_damaged_exif_data_turn_nothing(film_HW, tmp_path, exif):
    for ending in ("jpg", "png"):
        Image.fromarray(film_HW).save(tmp_path / f"film.{ending}", exif=exif)
        assert images.read(tmp_path / f"film.{ending}").orientation == 1


@pytest.mark.parametrize("ending", ["eps", "gif", "bmp", "webp", "pdf", "ppm", "ico"])
def test_only_jpeg_png_and_tiff_are_opened_whatever_the_name(
    film_HW, tmp_path, refused, monkeypatch, ending
):
    monkeypatch.setattr(
        subprocess, "check_call", lambda *_: pytest.fail("another program is started")
    )
    path = tmp_path / "film.jpg"
    Image.fromarray(film_HW).save(path, format=ending)
    with refused(
        path,
        "found no readable image (unknown format); expected an undamaged JPEG, PNG, TIFF or "
        "DICOM image",
    ):
        images.decode(path)


def test_the_shared_cases(shared, refused):
    cases = shared / "cases"
    plain_HW, deep_HW = (
        images.decode(cases / "png16" / name) for name in ("plain.jpg", "png16_12bit.png")
    )
    assert np.abs(plain_HW.astype(int) - deep_HW).max() < 8 and len(np.unique(deep_HW)) > 250
    plain_HW, turned_HW = (
        images.decode(cases / "exif" / name) for name in ("plain.jpg", "exif6.jpg")
    )
    assert np.abs(plain_HW.astype(int) - turned_HW).mean() < 2
    with refused(cases / "eps_named.jpg", "unknown format"):
        images.decode(cases / "eps_named.jpg")
    with refused(cases / "dicom/lut.dcm", "RescaleSlope: found nan"):
        images.decode(cases / "dicom/lut.dcm")
