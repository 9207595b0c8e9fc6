"""A Ray of this process alone, into which nobody else is let: a token for each, and a directory that no other user can open."""

from __future__ import annotations

import functools
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: Longest directory for temporary files below which the paths of Ray's sockets are short enough for the system.
LONGEST = 20


@functools.cache
def token() -> str:
    """Return the token of every Ray that this process starts. Ray reads it once per process."""
    return secrets.token_hex(32)


@contextmanager
def local_ray(**options: Any) -> Iterator[str]:
    """Start a Ray with `ray.init`'s options, and stop it at the end. Yields a line that says where it is and its token.

    Everything listens on loopback alone, where other users of the machine could still call it: each call needs the token,
    which processes below this one have in their environment. Metrics are the exception; whoever asks gets them.
    """
    import ray

    from chexseg.run.worker_imports import WorkerPath

    # Ray makes its own directories writable for everybody, so they are inside one that is not.
    private = Path(tempfile.mkdtemp(prefix="chexseg-", dir=_short_directory()))
    try:
        token_file = private / "token"
        token_file.touch(mode=0o600)
        token_file.write_text(token())
        os.environ["RAY_AUTH_TOKEN"] = token()
        # Ray has read the mode when it was imported. Where it is unset, `ray.init` sets it to "token" and reads it again.
        os.environ.pop("RAY_AUTH_MODE", None)
        with _loopback(), _safe_path():
            context = ray.init(
                address="local",  # else Ray would join any cluster that it finds on the machine
                dashboard_host="127.0.0.1",
                log_to_driver=False,
                logging_level="error",
                job_config=WorkerPath(sys.path),
                _temp_dir=str(private / "ray"),
                **options,
            )
        try:
            dashboard = (
                f", dashboard http://{context.dashboard_url}" if context.dashboard_url else ""
            )
            yield f"Ray at {context.address_info['gcs_address']}{dashboard}; token in {token_file}, which only you can read"
        finally:
            ray.shutdown()
    finally:
        shutil.rmtree(private, ignore_errors=True)


def _short_directory() -> str:
    """Return where Ray would put its files, or /tmp where that is too long a path for sockets."""
    chosen = os.environ.get("RAY_TMPDIR", tempfile.gettempdir())
    return chosen if len(chosen) <= LONGEST else "/tmp"


@contextmanager
def _loopback() -> Iterator[None]:
    """Let Ray take 127.0.0.1 for this node's address, as it does on macOS; then its servers listen there only.

    Elsewhere `ray.init` replaces a loopback address by one that other hosts reach, and has no argument against that.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _safe_path() -> Iterator[None]:
    """Let processes that are started now, and those below them, not import from the directory they are started in."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before
