"""Write the files of a report and their list, and overwrite or delete nobody else's files.

The list is in the same directory. The next report there reads it to know which files are
chexseg's, and which of them are outdated.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Set
from pathlib import Path

from chexseg.errors import UserError, reason
from chexseg.store import links
from chexseg.store.manifest import DAMAGE, is_inside, sha256, sha256_of
from chexseg.untrusted import bounded_json

#: Names of the lists of `report`, `compare` and `evaluate`.
REPORT, COMPARE, EVALUATE = "report.json", "compare-files.json", "evaluate-files.json"
#: Folders of a report. Files are deleted only below these.
FOLDERS = ("tables", "figures")
PAGE = "index.html"
#: A text of every page. Lists of earlier versions don't name the page.
_PAGE_TEXT = b"chexseg study report"
_SHA256 = re.compile(r"[0-9a-f]{64}")
#: Bytes of a list; a report of 100 studies has 1 MB.
_MOST_BYTES = 2**24
_EXPECTED = (
    "expected: a new directory, or one with unchanged files of the same command;"
    " hint: move the file away, or choose another --out"
)


def write(out: Path, contents: Mapping[str, bytes], list_name: str) -> None:
    """Write files (name below `out` -> content) and their list; delete unmodified outdated ones.

    Files that have their content already aren't written. Files that were edited and are outdated
    are kept. Raises `UserError`, before anything is written, if the list isn't chexseg's, or if one
    of the names exists and is neither equal to the new content nor a file that the list has with
    its SHA-256, or for a folder that is a link.
    """
    earlier = _listed(out / list_name)
    digests = {name: {hashlib.sha256(content).hexdigest()} for name, content in contents.items()}
    changed = [
        name
        for name, digest in digests.items()
        if _check(out, name, digest | earlier.get(name, set()), earlier) not in digest
    ]
    for name in changed:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
    # If this process is killed in between, the next one knows both the old and the new files.
    both = {name: earlier.get(name, set()) | digests.get(name, set()) for name in earlier | digests}
    _save(out / list_name, both)
    for name in changed:
        with links.replacing(out / name) as file:
            file.write(contents[name])
    outdated = {name: hashes for name, hashes in earlier.items() if name not in contents}
    kept = {name: hashes for name, hashes in outdated.items() if not _delete(out, name, hashes)}
    _save(out / list_name, kept | digests)


def _listed(path: Path) -> dict[str, set[str]]:
    """Return name -> possible SHA-256 of the files in a list; empty if there is no list."""
    try:
        with links.open_regular(path) as file:
            text = file.read(_MOST_BYTES)
        files = bounded_json.loads(text)["files"]
        listed = {
            name: {hashes} if isinstance(hashes, str) else set(hashes)
            for name, hashes in files.items()
        }
        valid = all(map(_is_own_name, listed)) and all(
            _SHA256.fullmatch(digest) for hashes in listed.values() for digest in hashes
        )
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        if error.errno not in DAMAGE:  # it can't be read by this user, or now
            raise
        valid = False
    # A file of others can have any content.
    except (ValueError, TypeError, LookupError, AttributeError):
        valid = False
    if not valid:
        raise UserError(f"{path}: found a file that isn't chexseg's list of files; {_EXPECTED}")
    return listed


def _is_own_name(name: str) -> bool:
    folder, _, below = name.partition("/")
    return is_inside(name) and (folder in FOLDERS if below else name.endswith((".csv", ".html")))


def _check(out: Path, name: str, digests: Set[str], earlier: Mapping[str, Set[str]]) -> str | None:
    """Return the file's SHA-256, None if there is no file; raise `UserError` for any but these."""
    path = out / name
    links.refuse_links(out, path.parent)
    if not os.path.lexists(path):
        return None
    try:
        with links.open_regular(path) as file:
            digest = sha256(file)
            file.seek(0)
            is_earlier_page = name == PAGE and name not in earlier and _PAGE_TEXT in file.read()
    except OSError as error:
        if error.errno not in DAMAGE:
            raise
        raise UserError(f"{path}: can't be read ({reason(error)}); {_EXPECTED}") from None
    if digest in digests or (earlier and is_earlier_page):
        return digest
    fault = "was edited since chexseg wrote it" if name in earlier else "isn't chexseg's file"
    raise UserError(f"{path}: {fault}, so it isn't overwritten; {_EXPECTED}")


def _delete(out: Path, name: str, digests: Set[str]) -> bool:
    """Delete a file below `FOLDERS` with one of these SHA-256; return whether it is gone."""
    path = out / name
    if not path.exists():
        return True
    try:
        links.refuse_links(out, path.parent)
    except links.LinkError:
        return False
    is_below = name.partition("/")[0] in FOLDERS and path.resolve().is_relative_to(out.resolve())
    if not is_below or path.is_symlink() or not path.is_file() or sha256_of(path) not in digests:
        return False
    path.unlink()
    return True


def _save(path: Path, listed: Mapping[str, Set[str]]) -> None:
    files = {
        name: sorted(hashes) if len(hashes) > 1 else min(hashes) for name, hashes in listed.items()
    }
    with links.replacing(path) as file:
        file.write((json.dumps({"files": files}, indent=1) + "\n").encode())
