"""Test that no file of a directory tree is left out: links, loops, depth, unreadable folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from chexseg.errors import UserError
from chexseg.evaluation import heat_maps
from chexseg.file_tree import files_below
from chexseg.predict import image_files

DEEP = 1500


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.fixture
def deep(tmp_path) -> Iterator[Path]:
    """Yield a directory with a file `DEEP` levels below it."""
    top = folder = tmp_path / "deep"
    os.mkdir(folder)
    folders = [str(folder)]
    for _ in range(DEEP):
        folders.append(f"{folders[-1]}/d")
        os.mkdir(folders[-1])
    file = Path(folders[-1], "x_Edema_map.npy")
    file.touch()
    Path(folders[-1], "x.png").touch()
    yield top
    file.unlink()  # pytest's own removal would recurse too deep
    Path(folders[-1], "x.png").unlink()
    for name in reversed(folders):
        os.rmdir(name)


def test_a_linked_folder_is_entered_and_a_loop_only_once(tmp_path):
    touch(tmp_path, "d/z/a.png", "d/b.png", "other/c.png", "other/sub/e.png")
    links = {"d/a": "../d/z", "d/o": "../other", "other/back": "../d", "d/z/up": ".."}
    for link, target in links.items():
        (tmp_path / link).symlink_to(target)
    (tmp_path / "d/f.png").symlink_to("b.png")
    (tmp_path / "d/self").symlink_to("self")
    (tmp_path / "d/gone.png").symlink_to("nowhere")
    found = [path.relative_to(tmp_path / "d").as_posix() for path in files_below(tmp_path / "d")]
    # Each file once, and under its real folder where that is inside.
    expected = ["b.png", "f.png", "gone.png", "o/c.png", "o/sub/e.png", "self", "z/a.png"]
    assert found == expected
    (tmp_path / "link").symlink_to("d")
    assert len(files_below(tmp_path / "link")) == len(expected)


@pytest.mark.parametrize("link", ["d/up", "other/up"])
def test_a_link_to_a_folder_around_it_is_refused(tmp_path, link):
    touch(tmp_path, "d/a.png", "other/c.png")
    (tmp_path / "d/o").symlink_to("../other")
    (tmp_path / link).symlink_to("..")
    with pytest.raises(UserError, match=r"up: found a link to .*, which contains it; expected:"):
        files_below(tmp_path / "d")


def test_images_and_heat_maps_of_linked_folders_are_found(tmp_path):
    touch(tmp_path, "elsewhere/c.png", "elsewhere/c_Edema_map.npy", "d/b.png")
    (tmp_path / "d/linked").symlink_to("../elsewhere")
    files, left_out = image_files.find([tmp_path / "d"])
    assert list(files) == ["b", "c"]
    assert left_out == [tmp_path / "d/linked/c_Edema_map.npy"]
    assert heat_maps.find(tmp_path / "d")[0].keys() == {"c"}


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    touch(tmp_path, "b.png")
    (tmp_path / "c.png").symlink_to("nowhere")
    (tmp_path / "folder").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    files, left_out = image_files.find([tmp_path])
    assert left_out == [tmp_path / "folder", tmp_path / "pipe"]
    files["b"].unlink()
    with pytest.raises(UserError, match=r"no such image file.* \(2 of 2 files can't be read\)"):
        image_files.check(files, lambda done: None)


def test_deep_folders(deep):
    """Path.rglob ended in a RecursionError."""
    assert [path.name for path in files_below(deep)] == ["x.png", "x_Edema_map.npy"]
    assert list(image_files.find([deep])[0]) == ["x"]
    assert heat_maps.find(deep)[0].keys() == {"x"}


def test_a_folder_that_cannot_be_listed_is_a_mistake(tmp_path, monkeypatch):
    touch(tmp_path, "a/x.png", "closed/y.png")
    scan = os.scandir

    def refuse(folder):
        if str(folder).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    for find in (lambda path: image_files.find([path]), heat_maps.find):
        with pytest.raises(UserError, match=r"closed: can't be listed \(Permission denied\); exp"):
            find(tmp_path)
