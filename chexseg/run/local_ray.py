"""Start a private local Ray: every call needs a token, in a directory that only this user reads."""

from __future__ import annotations

import functools
import logging
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from chexseg.errors import UserError, reason
from chexseg.parallel import safe_path

#: Longest path of a temporary directory that leaves room for the names of Ray's Unix sockets.
LONGEST = 20
#: Bytes for the logs of a run. With less, Ray's start may hang.
LEAST_FREE = 50_000_000


@functools.cache
def token() -> str:
    """Return the token of every Ray that this process starts. Ray reads it once per process."""
    return secrets.token_hex(32)


@contextmanager
def local_ray(**options: Any) -> Iterator[str]:
    """Start a Ray with options of `ray.init`, and stop it at the end; yield its addresses as text.

    All servers listen on loopback only, where other users of the machine could still call them.
    Each call therefore needs the token, which child processes inherit in their environment.
    The metrics endpoint is the exception: it needs no token.
    """
    import ray  # here: callers set environment variables that Ray reads when it is imported

    from chexseg.run import ray_internals

    ray_internals.skip_usage_tags()
    with _private_directory() as private:
        token_file = Path(private, "token")
        os.environ["RAY_AUTH_TOKEN"] = token()
        # Ray read the mode when it was imported. If unset, `ray.init` sets "token" and reads again.
        os.environ.pop("RAY_AUTH_MODE", None)
        try:
            with (
                ray_internals.signals_after_start(),
                ray_internals.loopback_address(),
                safe_path(),
            ):
                context: Any = ray.init(
                    address="local",  # otherwise Ray would join any cluster on the machine
                    dashboard_host="127.0.0.1",
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    job_config=ray_internals.WorkerPath(sys.path),
                    **ray_internals.session_directory(Path(private, "ray")),
                    **options,
                )
            url = context.dashboard_url
            dashboard = f", dashboard http://{url}" if url else ""
            yield (
                f"Ray at {context.address_info['gcs_address']}{dashboard};"
                f" token in {token_file}, which only you can read"
            )
        finally:
            ray_internals.shutdown()


@contextmanager
def _private_directory() -> Iterator[str]:
    """Make a directory for Ray's files, with the token in it, and delete it at the end.

    Ray makes its own directories writable by everybody, so they are placed in this one. Raises
    `UserError` if it can't be made or its disk is full: Ray would try for minutes.
    """
    place = _short_directory()
    try:
        directory = tempfile.TemporaryDirectory(
            prefix="chexseg-", dir=place, ignore_cleanup_errors=True
        )
        token_file = Path(directory.name, "token")
        token_file.touch(mode=0o600)
        token_file.write_text(token())
        free = shutil.disk_usage(place).free
    except OSError as error:
        raise _refused(place, f"can't be written ({reason(error)})") from None
    with directory as private:
        if free < LEAST_FREE:
            raise _refused(place, f"has {decimal(free)} free, and Ray needs {decimal(LEAST_FREE)}")
        yield private


def _refused(place: str, fault: str) -> UserError:
    return UserError(
        f"{place}, for Ray's files: {fault}; expected: a writable directory with free space and a"
        f" path of at most {LONGEST} characters; hint: set RAY_TMPDIR to one"
    )


def _short_directory() -> str:
    """Return the directory for Ray's files, or /tmp if its path is too long for sockets."""
    try:
        chosen = os.path.abspath(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    except FileNotFoundError:  # tempfile has found no directory that it can write to
        chosen = "/tmp"
    return chosen if len(os.fsencode(chosen)) <= LONGEST else "/tmp"
