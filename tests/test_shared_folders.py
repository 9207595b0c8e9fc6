"""Test in which folders others may put theirs in the place of this user's."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from chexseg.untrusted import shared_folders
from chexseg.untrusted.shared_folders import filled_by_others, open_to_others

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")


@pytest.fixture
def top() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="cxr-", dir="/tmp"))
    (path / "a").mkdir()
    yield path
    shutil.rmtree(path)


@needs_root
@pytest.mark.parametrize(
    ("owner", "group", "mode", "refused"),
    [
        (0, 0, 0o775, False),
        (0, 0, 0o777, True),
        (0, 0, 0o1777, False),
        (0, 1, 0o2775, True),
        (0, 1, 0o3775, False),
        (0, 1, 0o755, False),
        (1, 0, 0o700, True),
    ],
)
def test_owner_and_modes_of_a_folder_above(top, owner, group, mode, refused):
    os.chown(top, owner, group)
    os.chmod(top, mode)
    assert open_to_others(top / "a") == (top if refused else None)


@pytest.mark.parametrize(("mode", "refused"), [(0o755, False), (0o1777, True), (0o777, True)])
def test_a_folder_to_which_others_may_add_files(top, mode, refused):
    os.chmod(top / "a", mode)
    assert filled_by_others(top / "a") == (top / "a" if refused else None)
    os.chmod(top / "a", 0o700)
    os.chmod(top, 0o777)
    assert filled_by_others(top / "a") == top


@needs_root
@pytest.mark.parametrize(("map", "refused"), [("0 0 4294967295\n", False), ("", True)])
def test_in_a_namespace_without_this_user_its_folders_are_not_told_from_others(
    top, map, refused, monkeypatch
):
    read, number = Path.read_text, 65534

    def read_text(path: Path) -> str:
        return map if str(path) == "/proc/self/uid_map" else read(path)

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr(os, "geteuid", lambda: number)
    os.chown(top / "a", number, 0)
    assert open_to_others(top / "a") == (top / "a" if refused else None)


@needs_root
def test_a_list_of_further_users(top):
    os.chmod(top, 0o770)
    assert open_to_others(top) is None
    entries = [(0x01, 7, -1), (0x02, 7, 65534), (0x04, 7, -1), (0x10, 7, -1), (0x20, 0, -1)]
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(top, "system.posix_acl_access", packed)
    except OSError:
        pytest.skip("this file system has no such lists")
    assert open_to_others(top / "a") == top


@pytest.mark.parametrize(
    ("name", "members", "number", "own"),
    [("me", [], 7, True), ("me", ["me"], 7, True), ("me", ["you"], 7, False)]
    + [("lab", [], 7, False), ("me", [], 8, False)],
)
def test_a_group_of_ones_own(top, name, members, number, own, monkeypatch):
    """A directory service needn't list the users whose first group it is."""
    user = pwd.struct_passwd(("me", "x", os.geteuid(), 7, "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: user)
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group((name, "x", gid, members)))
    assert shared_folders._is_own_group(top, number) == own


def test_in_a_namespace_the_number_of_all_others_is_roots_in_folders_of_the_system(monkeypatch):
    read = Path.read_text
    texts = {"/proc/self/uid_map": "1000 1000 1\n", "/proc/sys/fs/overflowuid": "65534\n"}
    monkeypatch.setattr(Path, "read_text", lambda self: texts.get(str(self)) or read(self))
    assert shared_folders._is_roots_outside(Path("/tmp"), 65534)
    assert not shared_folders._is_roots_outside(Path("/tmp"), 1000)
    assert not shared_folders._is_roots_outside(Path("/tmp/of-another-user"), 65534)
    texts["/proc/self/uid_map"] = "         0          0 4294967295\n"
    assert not shared_folders._is_roots_outside(Path("/tmp"), 65534)
