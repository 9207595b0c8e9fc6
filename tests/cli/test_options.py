"""Test writing to --out: complete or not at all, never over other files, errors in one line."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from chexseg.cli.options import new_directory
from chexseg.errors import UserError

TAKEN = "already exists; expected: a new or empty directory$"


def fill(directory: Path, text: str = "new") -> None:
    directory.mkdir()
    (directory / "file").write_text(text)


def test_equal_outs_do_not_interfere_and_the_first_to_finish_wins(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UserError, match=f"out: {TAKEN}"), new_directory(out) as later:
        fill(later, "later")
        with new_directory(out) as first:
            assert first != later
            fill(first, "first")
        assert (later / "file").read_text() == "later"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (out / "file").read_text() == "first"


def test_neighbours_of_any_name_stay(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / ".out.partial").symlink_to(tmp_path / "mine")
    (tmp_path / ".new.partial").mkdir()
    (tmp_path / ".new.partial" / "notes").write_text("kept")
    for name in ("out", "new"):
        with new_directory(tmp_path / name) as directory:
            fill(directory)
    assert (tmp_path / ".new.partial" / "notes").read_text() == "kept"
    assert list((tmp_path / "mine").iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "directory", "link to a file", "link to a directory"])
def test_whatever_appears_at_out_meanwhile_stays(kind, tmp_path):
    out, other = tmp_path / "out", tmp_path / "other"
    with pytest.raises(UserError, match="out") as caught, new_directory(out) as directory:
        fill(directory)
        place = other if "link" in kind else out
        fill(place, "theirs") if "directory" in kind else place.write_text("theirs")
        if "link" in kind:
            out.symlink_to(other)
    assert "\n" not in str(caught.value)
    assert (out / "file" if "directory" in kind else out).read_text() == "theirs"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_empty_directory_is_filled_also_through_a_link_with_the_usual_mode(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    with new_directory(tmp_path / "link") as directory:
        fill(directory)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "empty" / "file").read_text() == "new"
    (tmp_path / "usual").mkdir()
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("empty", "usual")}
    assert len(modes) == 1


@pytest.mark.parametrize("name", [253 * "x", 300 * "x", "file/out"])
def test_an_error_names_what_the_user_named(name, tmp_path):
    """Check a name of 253 characters: allowed, but too long for the names derived from it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as caught, new_directory(tmp_path / name) as directory:
        fill(directory)
        (directory / f"{name}.png").write_text("")
    path = str(caught.value.filename)
    assert path.startswith(str(tmp_path / name)) or path == str(tmp_path / "file")
    assert os.listdir(tmp_path) == ["file"]


def test_an_error_without_a_file_names_the_directory(tmp_path):
    with pytest.raises(OSError) as caught, new_directory(tmp_path / "out"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(tmp_path / "out") and os.listdir(tmp_path) == []


def test_a_private_directory_stays_private(tmp_path):
    out = tmp_path / "out"
    out.mkdir(mode=0o700)
    with new_directory(out) as directory:
        directory.mkdir()
        (directory / "masks.json").write_text("{}")
    assert out.stat().st_mode & 0o777 == 0o700
    assert (out / "masks.json").exists()
