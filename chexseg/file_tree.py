"""List the files of a directory tree, through links to folders, without leaving any out."""

from __future__ import annotations

import os
from pathlib import Path

from chexseg.errors import UserError, reason


def files_below(directory: Path) -> list[Path]:
    """Return everything in a directory and its folders that is no folder, sorted.

    Links to folders are followed. Each folder is entered once, so that loops end and no file is
    listed under two links; real folders come before links. A link that leads nowhere counts as a
    file. Raises `UserError` for a folder that can't be listed, and for a link to a folder outside
    `directory` that contains the link: it would bring in all that is beside `directory`.
    """
    files: list[Path] = []
    folders: list[str] = [str(directory)]
    links: list[str] = []
    entered: set[tuple[int, int]] = set()
    # Without recursion, for which a thousand levels are too many.
    while folders or links:
        if not folders:
            folders, links = sorted(links, reverse=True), []
        folder = folders.pop()
        try:
            status = os.stat(folder)
            if (identity := (status.st_dev, status.st_ino)) in entered:
                continue
            entered.add(identity)
            if os.path.islink(folder) and folder != str(directory):
                _refuse_parent(folder)
            with os.scandir(folder) as entries:
                for entry in entries:
                    if not _is_folder(entry):
                        files.append(Path(entry.path))
                    elif entry.is_symlink():
                        links.append(entry.path)
                    else:
                        folders.append(entry.path)
        except OSError as error:
            raise UserError(
                f"{error.filename or folder}: can't be listed ({reason(error)});"
                " expected: a folder that this user may read"
            ) from None
    return sorted(files)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one. Raises `PermissionError`."""
    try:
        return entry.is_dir()
    except PermissionError:
        raise
    except OSError:  # a link to itself
        return False


def _refuse_parent(link: str) -> None:
    target = os.path.realpath(link)
    if os.path.commonpath([target, os.path.realpath(os.path.dirname(link))]) == target:
        raise UserError(
            f"{link}: found a link to {target}, which contains it;"
            " expected: links to other folders; hint: remove the link"
        )
