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
#: The map of a process that is in no user namespace of its own.
_ALL_USERS = ["0", "0", "4294967295"]


def open_to_others(place: str | Path) -> Path | None:
    """Return the first folder, of `place` and those above, in which others may rename files.

    As sshd does for its files: each folder is this user's or root's, and others may write to it at
    most as to /tmp, whose sticky bit keeps them from files of others. place: without links.
    """
    path = Path(place).absolute()
    owners = _trusted_owners()
    for folder in (path, *path.parents):
        status = folder.stat()
        if status.st_uid not in owners:
            return folder
        if status.st_mode & stat.S_ISVTX:
            continue
        group = status.st_mode & stat.S_IWGRP and not _is_own_group(folder, status.st_gid)
        if group or status.st_mode & stat.S_IWOTH:
            return folder
    return None


def _trusted_owners() -> set[int]:
    """Return root and this user; in a user namespace also the number that stands for all others.

    Root's folders have that number in a container which maps only its user.
    """
    owners = {0, os.geteuid()}
    with suppress(OSError):  # not Linux
        if Path("/proc/self/uid_map").read_text().split() != _ALL_USERS:
            owners.add(int(Path("/proc/sys/fs/overflowuid").read_text()))
    return owners


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
