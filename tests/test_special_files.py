"""Test that files handed to chexseg are regular files: a pipe or device is one line at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chexseg.config import study_file
from chexseg.data import chexlocalize, images
from chexseg.data.audit import validation
from chexseg.data.raw_split import RawSplit
from chexseg.data.remote_path import ReadOnce
from chexseg.errors import ChexsegError
from chexseg.evaluation import heat_maps
from chexseg.evaluation.evaluate import evaluate
from chexseg.models import checkpoint_import
from chexseg.predict import image_files, segment

READERS: dict[str, Callable[[Path], Any]] = {
    "image": images.read,
    "image read once": lambda path: images.read(ReadOnce(path)),
    "image to predict on": lambda path: image_files.check(
        image_files.find([path])[0], lambda done: None
    ),
    "masks": chexlocalize.read,
    "masks to evaluate": lambda path: evaluate(path, path),
    "study": study_file.load,
    "heat map": heat_maps.read,
    "heat map of NumPy": lambda path: heat_maps.read(path.rename(path.with_suffix(".npy"))),
}


def place(path: Path, kind: str) -> Path:
    """Make a pipe, or a link to a device; the tests can't use /dev/zero, which never ends."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/null")
    return path


@pytest.mark.parametrize("kind", ["device", "pipe"])
@pytest.mark.parametrize("reader", READERS)
def test_only_regular_files_are_read(tmp_path, reader, kind):
    with pytest.raises(ChexsegError, match="not a regular file") as caught:
        READERS[reader](place(tmp_path / "file", kind))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["device", "pipe"])
def test_only_regular_files_are_raw_data(tmp_path, phantom_root, kind):
    root = tmp_path / "root"
    shutil.copytree(phantom_root, root)
    split = RawSplit(root, "train")
    image = place(Path(split.table["path"][0]), kind)
    masks = place(root / chexlocalize.FILES["test"], kind)
    with pytest.raises(ChexsegError, match="not a regular file"):
        RawSplit(root, "test").fingerprint()
    messages = [message for kind in validation.check(root).faults.values() for message in kind]
    for path in (image, masks):
        assert any(str(path) in text and "not a regular file" in text for text in messages)


@pytest.mark.parametrize("kind", ["device", "pipe"])
def test_what_is_no_regular_file_is_no_checkpoint_and_no_segmenter(tmp_path, kind):
    with pytest.raises(ChexsegError, match="no such file"):
        checkpoint_import.read(place(tmp_path / "weights.pt", kind))
    (tmp_path / "segmenter.safetensors").write_bytes(b"x")
    place(tmp_path / "segmenter.json", kind)
    with pytest.raises(ChexsegError, match="not a regular file"):
        segment.load(tmp_path)
