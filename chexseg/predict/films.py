"""Which image files are meant, what each is called, and its pixels."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from chexseg.data import dicom, images
from chexseg.errors import UserError

#: What a directory is searched for. A file that is named itself may end in anything.
ENDINGS = (".jpg", ".jpeg", ".png", *dicom.ENDINGS)


def find(paths: Iterable[Path]) -> dict[str, Path]:
    """Image id -> file, sorted by id, of the files given and of all below the directories given, each once.

    Raises `UserError` for a path that isn't there and for a directory without an image.
    """
    files: dict[str, Path] = {}
    for path in paths:
        found = _below(path) if path.is_dir() else [path]
        if not path.exists():
            raise UserError(f"{path}: no such file or directory; allowed: an image, or a directory with images")
        if not found:
            raise UserError(f"{path}: found no image; allowed: a directory with files that end in {', '.join(ENDINGS)}")
        files |= {os.path.abspath(file): file for file in found}
    return dict(sorted((image_id, files[path]) for path, image_id in image_ids(files).items()))


def _below(directory: Path) -> list[Path]:
    # Names that begin with a dot are other systems' notes on a file, under the file's own ending.
    files = (file for file in directory.rglob("*") if not file.name.startswith("."))
    return sorted(file for file in files if file.suffix.lower() in ENDINGS and file.is_file())


def image_ids(paths: Iterable[str]) -> dict[str, str]:
    """Absolute path -> id: the name without its ending; of ``patient1/study1/view1`` all three, joined by underscores, as
    CheXlocalize has it.

    Where several would share an id, each is lengthened by its folders until none does; files of one place whose names
    differ in the ending alone keep it as a part of the name. Raises `UserError` where nothing helps.
    """
    parts = {path: _parts(path) for path in paths}
    places = Counter(parts.values())
    for path, part in parts.items():
        if places[part] > 1:
            parts[path] = (*part[:-1], Path(path).name.replace(".", "_"))
    depth = {path: 3 if _as_chexpert(part) else 1 for path, part in parts.items()}
    while True:
        ids = {path: "_".join(part[-depth[path] :]) for path, part in parts.items()}
        shared = Counter(ids.values())
        longer = [path for path, part in parts.items() if shared[ids[path]] > 1 and depth[path] < len(part)]
        if not longer:
            break
        for path in longer:
            depth[path] += 1
    name = next((name for name, count in shared.items() if count > 1), None)
    if name is not None:
        first, second = [path for path in ids if ids[path] == name][:2]
        raise UserError(f"{first} and {second}: both would be called {name}; allowed: names that differ")
    return ids


def _parts(path: str) -> tuple[str, ...]:
    """Folders and name without the ending; a dot elsewhere in a name (DICOM's own names are full of them) stays."""
    whole = Path(path)
    name = whole.stem if whole.suffix.lower() in ENDINGS else whole.name
    return (*whole.parent.parts[1:], name)


def _as_chexpert(parts: tuple[str, ...]) -> bool:
    return re.search(r"(^|/)patient\d+/study\d+/view[^/]*$", "/".join(parts)) is not None


def decode(path: Path) -> np.ndarray:
    """The grey pixels_HW (uint8) of a file. Raises `UserError` for what can't be read."""
    return dicom.decode(path) if dicom.recognises(path) else images.decode(path)


def check(files: Mapping[str, Path], progress: Callable[[int], None]) -> None:
    """Decode every file once; `progress` is called with how many are done.

    Raises `UserError` naming the first that can't be read, and how many can't: a damaged file ends the work before the
    first network sees an image, not hours later.
    """
    faults = []
    for done, path in enumerate(files.values(), 1):
        try:
            decode(path)
        except UserError as error:
            faults.append(str(error))
        progress(done)
    if faults:
        raise UserError(faults[0] + (f" ({len(faults)} of {len(files)} files can't be read)" if len(faults) > 1 else ""))
