"""Start a private local Ray: each call needs its token and its certificate.

Both are in a directory that only this user reads.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import secrets
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from chexseg.errors import RayLostError, UserError, reason
from chexseg.parallel import safe_path
from chexseg.untrusted.shared_folders import open_to_others

#: Longest path of a temporary directory that leaves room for the names of Ray's Unix sockets.
LONGEST = 20
#: Bytes for the logs of a run. With less, Ray's start may hang.
LEAST_FREE = 50_000_000
#: Addresses for which the certificate is valid: those at which a local Ray's servers listen.
ADDRESSES = ["127.0.0.1"]

#: Variables that are paths of the programs which workers run, beside PYTHONPATH, a list of them.
_PATHS = (
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "CHEXSEG_CACHE",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "HF_HOME",
    "SSL_CERT_FILE",
    "TMPDIR",
    "TORCH_HOME",
    "XDG_CACHE_HOME",
)


def new_token() -> str:
    """Return a random token, of which each Ray has its own."""
    return secrets.token_hex(32)


@contextmanager
def local_ray(**options: Any) -> Iterator[str]:
    """Start a Ray with options of `ray.init`, and stop it at the end; yield its addresses as text.

    All servers listen on loopback only, where other users of the machine could still call them.
    Each call therefore needs the token, which child processes inherit in their environment, and
    calls between Ray's processes are encrypted (`_encryption`). The metrics endpoint needs neither.
    No process but this one runs in the current directory, in which others may have left modules,
    libraries and settings. Raises `RayLostError` if Ray doesn't start.
    """
    from chexseg.run import ray_internals

    ray_internals.skip_usage_tags()
    _make_paths_absolute()
    token = new_token()
    with _private_directory(token) as directory:
        private, token_file = Path(directory), Path(directory, "token")
        encrypted = _encryption(private)
        # If the mode is unset, `ray.init` sets "token".
        settings = {"RAY_AUTH_TOKEN": token, "RAY_AUTH_MODE": None, **encrypted}
        # Unless the user has asked for them: Ray would tell its makers of each run.
        settings["RAY_USAGE_STATS_ENABLED"] = os.environ.get("RAY_USAGE_STATS_ENABLED", "0")
        with _variables(settings):
            try:
                context = _started(private, options)
                address, url = context.address_info["gcs_address"], context.dashboard_url
                _write_client_settings(
                    private / "environment",
                    RAY_ADDRESS=address,
                    RAY_AUTH_MODE="token",
                    RAY_AUTH_TOKEN_PATH=str(token_file),
                    # By default Ray looks for a loopback address at another interface's.
                    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
                    **encrypted,
                )
                dashboard = f", dashboard http://{url}" if url else ""
                yield f"Ray at {address}{dashboard}; token in {token_file}, which only you can read"
            finally:
                ray_internals.shutdown()


@contextmanager
def _variables(settings: Mapping[str, str | None]) -> Iterator[None]:
    """Let Ray find these environment variables, None for unset, and then the former ones again."""
    from chexseg.run import ray_internals

    def set_all(variables: Mapping[str, str | None]) -> None:
        for name, value in variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        ray_internals.read_environment()

    before = {name: os.environ.get(name) for name in settings}
    set_all(settings)
    try:
        yield
    finally:
        set_all(before)


def _encryption(private: Path) -> dict[str, str]:
    """Return the variables by which Ray uses TLS, with a new certificate for this Ray alone.

    Ray's processes call ports of others that have just ended. Another user who has taken such a
    port would be sent the token, but can't show the certificate.
    """
    key, certificate = private / "key.pem", private / "certificate.pem"
    for path, text in zip((key, certificate), _key_and_certificate(), strict=True):
        path.touch(mode=0o600)
        path.write_bytes(text)
    return {
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_KEY": str(key),
        "RAY_TLS_SERVER_CERT": str(certificate),
        "RAY_TLS_CA_CERT": str(certificate),
    }


def _key_and_certificate() -> tuple[bytes, bytes]:
    """Return a new private key and its certificate for `ADDRESSES`, signed by itself, as PEM."""
    from cryptography import x509  # here: it takes 0.1 s, and most commands start no Ray
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "chexseg")])
    addresses = [x509.IPAddress(ipaddress.ip_address(address)) for address in ADDRESSES]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # if the clock is set back a little
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .sign(key, hashes.SHA256())
    )
    return (
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        certificate.public_bytes(serialization.Encoding.PEM),
    )


def _write_client_settings(path: Path, **variables: str) -> None:
    """Write a shell script with which Ray's commands, such as `ray status`, reach this Ray."""
    path.write_text(
        "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    )


def _make_paths_absolute() -> None:
    """Let variables with relative paths mean the same in processes of another directory."""
    for variable in _PATHS:
        if value := os.environ.get(variable):
            os.environ[variable] = os.path.abspath(value)
    if value := os.environ.get("PYTHONPATH"):
        entries = filter(None, value.split(os.pathsep))  # an empty one is the current directory
        os.environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, entries))


def _started(private: Path, options: Mapping[str, Any]) -> Any:
    """Return the context of a Ray that was started now. Raises `RayLostError` if it didn't start.

    Ray raises an `Exception` if its processes are slow to start, or have died.
    """
    import ray  # here: callers set environment variables that Ray reads when it is imported

    from chexseg.run import ray_internals

    try:
        with (
            ray_internals.signals_after_start(),
            ray_internals.loopback_address(),
            ray_internals.same_environment(),
            ray_internals.no_log_monitor(),
            ray_internals.separate_processes(private),
            safe_path(),
        ):
            return ray.init(
                address="local",  # otherwise Ray would join any cluster on the machine
                dashboard_host="127.0.0.1",
                log_to_driver=False,
                logging_level=logging.ERROR,
                job_config=ray_internals.WorkerPath(sys.path),
                runtime_env=_python(),
                **ray_internals.session_directory(private / "ray"),
                **options,
            )
    except Exception as error:
        raise RayLostError(
            f"Ray didn't start ({reason(error)}); hint: the same command tries it again"
        ) from error


def _python() -> dict[str, str] | None:
    """Return Ray's setting for Python's path as a shell reads it, None if it reads the path as is.

    A shell starts the workers of Tune, and Ray doesn't quote the path for it: a part of the path
    would be another program.
    """
    quoted = shlex.quote(sys.executable)
    return {"py_executable": quoted} if quoted != sys.executable else None


@contextmanager
def _private_directory(token: str) -> Iterator[str]:
    """Make a directory for Ray's files, with the token in it, and delete it at the end.

    Ray makes its own directories writable by everybody, so they are placed in this one. Raises
    `UserError` if it can't be made or its disk is full: Ray would try for minutes.
    """
    # Without links, which others could replace once the folders have been checked.
    place = os.path.realpath(_short_directory())
    try:
        directory = tempfile.TemporaryDirectory(
            prefix="chexseg-", dir=place, ignore_cleanup_errors=True
        )
        others = open_to_others(place)
        token_file = Path(directory.name, "token")
        token_file.touch(mode=0o600)
        token_file.write_text(token)
        free = shutil.disk_usage(place).free
    except OSError as error:
        raise _refused(place, f"can't be written ({reason(error)})") from None
    with directory as private:
        if others:
            raise _refused(place, f"others may rename what is in {others}")
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
    return chosen if len(os.fsencode(os.path.realpath(chosen))) <= LONGEST else "/tmp"
