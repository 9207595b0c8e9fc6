"""Images to squares and back: nothing shifts, nothing outside the frame, damaged files are refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from chexseg.data import images
from chexseg.data.images import Frame

SHAPES = [(320, 320), (329, 320), (320, 390), (2320, 2828), (64, 77), (50, 320), (31, 17)]


def disc(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return ((y - 0.4 * height) / (0.25 * height)) ** 2 + ((x - 0.6 * width) / (0.3 * width)) ** 2 < 1


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
def test_undo_brings_masks_back_to_the_images_own_size(height, width):
    mask_HW = disc(height, width)
    frame = Frame(height, width, 96)
    back_HW = frame.undo(frame.masks(mask_HW[None]))[0]
    assert back_HW.shape == (height, width)
    assert iou(back_HW, mask_HW) > 0.92


def test_undo_is_exact_where_the_image_was_enlarged():
    mask_HW = np.random.default_rng(0).random((31, 45)) < 0.5
    for size in (45, 46, 64, 137):
        frame = Frame(31, 45, size)
        assert np.array_equal(frame.undo(frame.masks(mask_HW[None]))[0], mask_HW)


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
        assert images.dimensions(tmp_path / name) == (12, 16)


@pytest.mark.parametrize(("name", "share"), [("image.jpg", 0.5), ("image.png", 0.5), ("image.jpg", 0.02), ("image.png", 0.02)])
def test_truncated_images_are_refused(tmp_path, refused, name, share):
    path = tmp_path / name
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with refused(path, "no readable image"):
        images.decode(path)


def test_the_header_alone_gives_the_size(tmp_path):
    path = tmp_path / "image.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 300), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:20_000])
    assert images.dimensions(path) == (200, 300)


@pytest.mark.parametrize("read", [images.decode, images.dimensions])
def test_what_is_no_image_is_refused(tmp_path, refused, read):
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty.jpg").touch()
    for name in ("text.jpg", "empty.jpg", "."):
        with refused(tmp_path / name, "no readable image"):
            read(tmp_path / name)
    with refused(tmp_path / "missing.jpg", "no such image"):
        read(tmp_path / "missing.jpg")


def test_pixels_of_no_known_range_are_refused(tmp_path, refused):
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "float.tiff")
    with refused(tmp_path / "float.tiff", "8 or 16 bits"):
        images.decode(tmp_path / "float.tiff")


def test_the_published_radiograph(sample):
    pixels_HW = images.decode(sample / "valid/patient64541/study1/view1_frontal.jpg")
    assert pixels_HW.shape == (2320, 2828) and pixels_HW.max() > 200
    square = Frame(*pixels_HW.shape, 320).image(pixels_HW)
    assert not square[:28].any() and not square[-28:].any() and abs(square[29:-29].mean() - pixels_HW.mean()) < 1
