"""Find folders in which other users may put theirs in the place of this user's."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from contextlib import suppress
from pathlib import Path

#: Where Linux keeps a folder's list of further users and groups.
_ACL = "system.posix_acl_access"
#: Folders that root makes on every system.
_SYSTEM_FOLDERS = {"/", "/tmp", "/var", "/var/tmp", "/run", "/run/user", "/home"}
#: The map of a process that is in no user namespace of its own.
_ALL_USERS = ["0", "0", "4294967295"]


def open_to_others(place: str | Path) -> Path | None:
    """Return the first folder, of `place` and those above, in which others may rename files.

    As sshd does for its files: each folder is this user's or root's, and others may write to it at
    most as to /tmp, whose sticky bit keeps them from files of others. place: without links.
    """
    path, trusted = Path(place).absolute(), {0} if _is_unmapped() else {0, os.geteuid()}
    for folder in (path, *path.parents):
        status = folder.stat()
        if status.st_uid not in trusted and not _is_roots_outside(folder, status.st_uid):
            return folder
        if not status.st_mode & stat.S_ISVTX and _is_written_by_others(folder, status):
            return folder
    return None


def filled_by_others(place: str | Path) -> Path | None:
    """Return `open_to_others`, or `place` if others may add files to it, as to /tmp."""
    if folder := open_to_others(place):
        return folder
    path = Path(place)
    return path if _is_written_by_others(path, path.stat()) else None


def _is_written_by_others(folder: Path, status: os.stat_result) -> bool:
    group = status.st_mode & stat.S_IWGRP and not _is_own_group(folder, status.st_gid)
    return bool(group or status.st_mode & stat.S_IWOTH)


def _is_unmapped() -> bool:
    """Return whether this user has no number in this user namespace, but that of all unknown ones.

    Its folders then can't be told from those of others.
    """
    user = os.geteuid()
    with suppress(OSError):  # not Linux
        lines = Path("/proc/self/uid_map").read_text().splitlines()
        ranges = [tuple(map(int, line.split())) for line in lines]
        return not any(first <= user < first + count for first, _, count in ranges)
    return False


def _is_roots_outside(folder: Path, owner: int) -> bool:
    """Return whether a folder is root's outside of this user namespace, as far as can be known.

    In a container that maps only its user one number stands for root and for all other users. Root
    makes the folders that every system has.
    """
    if str(folder) not in _SYSTEM_FOLDERS:
        return False
    with suppress(OSError):  # not Linux
        in_namespace = Path("/proc/self/uid_map").read_text().split() != _ALL_USERS
        return in_namespace and owner == int(Path("/proc/sys/fs/overflowuid").read_text())
    return False


def _is_own_group(folder: Path, group: int) -> bool:
    """Return whether only root or this user may write to a folder by its group.

    Many systems give each user a group of the same name.
    """
    with suppress(OSError, AttributeError):  # no such lists
        if _ACL in os.listxattr(folder):
            return False  # the group's bits stand for all that the list has
    if group == 0:
        return True
    try:
        user, entry = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return False
    same_name = group == user.pw_gid and entry.gr_name == user.pw_name
    return same_name and {*entry.gr_mem} <= {user.pw_name}
