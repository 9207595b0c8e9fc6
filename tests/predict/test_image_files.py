"""Test which files are found, and that no two of them share a name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chexseg.errors import UserError
from chexseg.predict import image_files


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_a_directory_is_searched_for_known_endings_and_a_named_file_may_have_any(tmp_path):
    touch(tmp_path, "d/a.JPG", "d/deep/b.png", "d/c.txt", "d/.a.png", "d/e.dcm", "IM0001")
    files, left_out = image_files.find(
        [tmp_path / "d", tmp_path / "IM0001", tmp_path / "d" / "e.dcm"]
    )
    assert left_out == [tmp_path / "d/c.txt"]
    assert files == {
        "IM0001": tmp_path / "IM0001",
        "a": tmp_path / "d/a.JPG",
        "b": tmp_path / "d/deep/b.png",
        "e": tmp_path / "d/e.dcm",
    }
    assert list(files) == sorted(files)


def test_chexperts_layout_gives_chexlocalizes_ids_however_it_is_named(tmp_path):
    image = tmp_path / "valid/patient64541/study1/view1_frontal.jpg"
    touch(tmp_path, "valid/patient64541/study1/view1_frontal.jpg")
    for path in (tmp_path, image.parent, image):
        assert image_files.find([path])[0] == {"patient64541_study1_view1_frontal": image}


def test_in_a_directory_content_tells_an_image_without_an_ending(tmp_path, write_dicom):
    pydicom = pytest.importorskip("pydicom")
    grey_HW = np.arange(12, dtype=np.uint16).reshape(3, 4)
    for ending in ("jpeg", "png", "tiff"):
        Image.fromarray(grey_HW.astype(np.uint8)).save(tmp_path / f"a {ending} file", format=ending)
    write_dicom(tmp_path / "IM0001", grey_HW)
    write_dicom(tmp_path / "damaged", grey_HW).write_bytes((tmp_path / "IM0001").read_bytes()[:300])
    index = pydicom.dcmread(write_dicom(tmp_path / "DICOMDIR", grey_HW))
    del index.Rows, index.Columns, index.PixelData
    index.save_as(tmp_path / "DICOMDIR")
    (tmp_path / "README").write_text("DICM")
    files, left_out = image_files.find([tmp_path])
    assert list(files) == ["IM0001", "a jpeg file", "a png file", "a tiff file"]
    assert left_out == [tmp_path / "DICOMDIR", tmp_path / "README", tmp_path / "damaged"]


@pytest.mark.parametrize(
    ("paths", "ids"),
    [
        (["/d/a/x.png", "/d/b/x.png", "/d/b/y.png"], ["a_x", "b_x", "y"]),
        (["/a/c/x.png", "/b/c/x.png"], ["a_c_x", "b_c_x"]),
        (["/d/a/x.png", "/e/a/x.png", "/e/a_y/x.png"], ["d_a_x", "e_a_x", "a_y_x"]),
        (["/d/x.png", "/d/x.jpg", "/e/x.jpg"], ["x_png", "x_jpg", "x"]),
        (["/d/1.2.840.1", "/d/1.2.840.2.dcm"], ["1.2.840.1", "1.2.840.2"]),
        (
            ["/v/patient1/study1/view1.jpg", "/t/patient1/study1/view1.jpg"],
            ["v_patient1_study1_view1", "t_patient1_study1_view1"],
        ),
    ],
)
def test_ids_are_as_short_as_they_can_be_told_apart(paths, ids):
    assert image_files.image_ids(paths) == dict(zip(paths, ids, strict=True))


def test_where_even_the_whole_path_is_shared_both_are_named():
    with pytest.raises(
        UserError, match=r"/d/a/x\.png and /d/a_x\.png: both have the image id d_a_x;"
    ):
        image_files.image_ids(["/d/a/x.png", "/e/a/x.png", "/d/a_x.png", "/e/a_x.png"])


@pytest.mark.parametrize("name", [b"two\nlines", b"no utf-8 \xff", b"bell\x07"])
@pytest.mark.parametrize("suffix", [b".png", b""])
def test_names_that_mask_files_refuse_are_refused_in_one_line(tmp_path, name, suffix):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name + suffix))
    Image.fromarray(np.zeros((3, 4), dtype=np.uint8)).save(path, "png")
    for given in (path, tmp_path):
        with pytest.raises(UserError, match="expected: a name of printable UTF-8") as caught:
            image_files.find([given])
        message = str(caught.value)
        assert message.isprintable() and message.encode() and repr(path.stem)[1:-1] in message


def test_a_folder_that_mask_files_refuse_matters_only_if_it_is_part_of_an_id(tmp_path):
    touch(tmp_path, "a\n/x.png", "b/x.png")
    assert list(image_files.find([tmp_path / "a\n"])[0]) == ["x"]
    with pytest.raises(UserError, match="expected: a name of printable UTF-8"):
        image_files.find([tmp_path])


@pytest.mark.parametrize(("name", "accepted"), [(251 * "x", True), (126 * "é", False)])
def test_an_id_whose_overlay_could_not_be_written_is_refused(name, accepted, tmp_path):
    touch(tmp_path, name)
    if accepted:
        assert list(image_files.find([tmp_path / name])[0]) == [name]
        return
    with pytest.raises(UserError, match=r"found the image id é{40}\.\.\. of 252 bytes"):
        image_files.find([tmp_path / name])
