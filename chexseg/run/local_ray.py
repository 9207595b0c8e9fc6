"""Start a private local Ray: every call needs a token, in a directory that only this user reads."""

from __future__ import annotations

import functools
import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chexseg.parallel import safe_path

#: Longest path of a temporary directory that leaves room for the names of Ray's Unix sockets.
LONGEST = 20


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
    # Ray makes its directories writable by everybody, so they are placed in a private one.
    with tempfile.TemporaryDirectory(
        prefix="chexseg-", dir=_short_directory(), ignore_cleanup_errors=True
    ) as private:
        token_file = Path(private, "token")
        token_file.touch(mode=0o600)
        token_file.write_text(token())
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


def _short_directory() -> str:
    """Return the directory for Ray's files, or /tmp if its path is too long for sockets."""
    chosen = os.environ.get("RAY_TMPDIR", tempfile.gettempdir())
    return chosen if len(chosen) <= LONGEST else "/tmp"
