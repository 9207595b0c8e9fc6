"""Test that a local Ray admits nobody else and imports the driver's modules.

This holds whatever is in the directory where the command is run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from chexseg.run import local_ray
from tests import processes

ROOT = Path(__file__).resolve().parents[2]
SITE_PACKAGES = [path for path in sys.path if path.endswith("site-packages")]
STUDY = """
name: alone
axes: {trial: [0, 1]}
settings:
  size: 64
  encoder: {architecture: mobilenet_v2, init: random}
  labels: {p: 1, expert_split: {train: 8, select: 4}}
  fit: {epochs: 2, samples_per_epoch: 16}
"""
#: Modules that a process of a study imports sooner or later, also before it runs our code.
BAIT = (
    "pycocotools",
    "torch",
    "numpy",
    "pyarrow",
    "psutil",
    "grpc",
    "aiohttp",
    "random",
    "logging",
    "selectors",
    "multiprocessing",
)
LOOPBACK = ("127.0.0.1", "::ffff:127.0.0.1", "::1")
#: How a client that uses TLS begins (RFC 8446, section 5.1).
TLS_HANDSHAKE = b"\x16\x03"
#: How a client begins whose handshake has succeeded (RFC 9113, section 3.4).
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: Without the variable Ray replaces a loopback address by another interface's.
CLIENT = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
CONNECT = """
import ray, sys
ray.init(address=sys.argv[1], log_to_driver=False)
"""


@dataclass
class LocalRun:
    """Observe a running `study run` from outside: its output so far, and its token."""

    process: subprocess.Popen
    output: str
    gcs: str
    dashboard: str
    token_file: Path
    token: str

    def processes(self) -> list[psutil.Process]:
        """Return the run's processes."""
        return [psutil.Process(self.process.pid), *processes.descendants(self.process.pid)]

    def listeners(self) -> dict[tuple[str, int], str]:
        """Return (address, port) -> command line, for the run's listening processes."""
        return {
            pair: " ".join(process.cmdline())
            for process in self.processes()
            for pair in processes.listening(process)
        }


@pytest.fixture(scope="module")
def bait(tmp_path_factory) -> Path:
    """Return a directory with modules that record who imports them."""
    directory = tmp_path_factory.mktemp("bait")
    (directory / "chexseg").mkdir()
    for name in (*BAIT, "chexseg/__init__"):
        module = directory / f"{name}.py"
        module.write_text(f"open({str(directory / 'imported')!r}, 'a').write({name!r} + chr(10))\n")
    return directory


@pytest.fixture(scope="module")
def run(bait, phantom_root, tmp_path_factory):
    """Start `study run` in that directory, with a variable that would admit anybody."""
    top = tmp_path_factory.mktemp("run")
    (top / "alone.yaml").write_text(STUDY)
    command = [Path(sys.executable).with_name("chexseg"), "study", "run", top / "alone.yaml"]
    command += ["--data", phantom_root, "--store", top / "store"]
    scratch = Path(
        tempfile.mkdtemp(prefix="cxr-", dir="/tmp")
    )  # the dashboard leaves a directory in it
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "TMPDIR": str(scratch)}
    if "PYTHONPATH" not in environment:  # of a checkout that isn't the installed one
        environment["PYTHONPATH"] = str(ROOT)
    process = subprocess.Popen(
        list(map(str, command)),
        cwd=bait,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    output = ""
    pattern = r"Ray at (\S+), dashboard (\S+); token in (\S+),"
    while not (place := re.search(pattern, output)) and (line := process.stderr.readline()):
        output += line
    assert place, output
    yield LocalRun(process, output, place[1], place[2], Path(place[3]), Path(place[3]).read_text())
    process.kill()
    process.wait()
    shutil.rmtree(scratch, ignore_errors=True)


def status(url: str, token: str | None = None, body: dict | None = None) -> int:
    request = urllib.request.Request(url, data=json.dumps(body).encode() if body else None)
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=60) as page:
            return page.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.slow
def test_a_run_lets_in_whoever_has_its_token_and_tells_it_to_its_user_alone(run, bait, tmp_path):
    pytest.importorskip("aiohttp_cors", reason="needs ray[default], of the extra dashboard")
    job = {"entrypoint": f"touch {tmp_path / 'ran'}"}
    assert status(f"{run.dashboard}/api/jobs/", body=job) == 401
    assert status(f"{run.dashboard}/api/jobs/", "0" * 64, body=job) == 403
    assert status(f"{run.dashboard}/api/jobs/", run.token) == 200

    private = run.token_file.parent
    assert (
        stat.S_IMODE(private.stat().st_mode) == 0o700
        and stat.S_IMODE(run.token_file.stat().st_mode) == 0o600
    )
    assert run.token != os.environ["RAY_AUTH_TOKEN"] and len(run.token) == 64
    listeners = run.listeners()
    for server in ("gcs_server", "raylet/raylet", "dashboard/agent", "chexseg"):
        assert any(server in command for command in listeners.values()), server
    assert {at: command for at, command in listeners.items() if at[0] not in LOOPBACK} == {}

    settings = dict(re.findall(r"export (\w+)=(.*)", (private / "environment").read_text()))
    clients = (
        ({"RAY_AUTH_TOKEN": ""}, "Connected to Ray cluster"),  # so the file's
        ({"RAY_AUTH_MODE": "disabled"}, "InvalidAuthToken"),
        ({"RAY_AUTH_TOKEN": "0" * 64}, "InvalidAuthToken"),
        ({"RAY_USE_TLS": "0"}, "Failed to connect to GCS"),
    )
    started = [
        (
            subprocess.Popen(
                [sys.executable, "-c", CONNECT, run.gcs],
                env=os.environ | settings | changed,
                stderr=subprocess.PIPE,
                text=True,
            ),
            answer,
        )
        for changed, answer in clients
    ]
    for client, answer in started:
        assert any(answer in line for line in client.stderr), f"expected {answer!r}"
        client.kill()  # if refused, it would try for 20 s
        client.communicate()

    directories = []
    for process in run.processes():
        with suppress(psutil.Error):  # it has ended
            if process.pid != run.process.pid:
                directories.append(process.cwd())
    assert directories and str(bait) not in directories

    lines = processes.find(among=run.processes()).values()
    assert lines and not any(run.token in line for line in lines)
    assert holders(run.token, private) == [run.token_file]

    output = run.output + run.process.communicate(timeout=300)[1]
    assert run.process.returncode == 0, output
    assert run.token not in output
    assert not private.exists(), "logs and sockets of a run that has ended"
    store = Path(run.process.args[run.process.args.index("--store") + 1])
    assert list(store.glob("score/*/manifest.json")) and holders(run.token, store) == []
    imported = bait / "imported"
    assert not imported.exists(), imported.read_text()
    assert not (tmp_path / "ran").exists()


TWO_RAYS = """
import os, ray
from chexseg.run.local_ray import local_ray
for number in range(2):
    with local_ray(num_cpus=1, include_dashboard=False):
        # The second is a task as Tune's actors are, which a shell starts.
        task = ray.remote(runtime_env={"env_vars": {"N": "1"}} if number else None, num_cpus=1)
        print(ray.get(task(lambda: os.environ["RAY_AUTH_TOKEN"]).remote()))
"""


@pytest.mark.slow
def test_a_second_ray_of_a_process_has_another_token(tmp_path):
    """Another user may get the first token while its Ray ends.

    The path of Python has other words for a shell, a parent process is `uv run`, and the current
    directory has a module that Python imports when it starts.
    """
    python = tmp_path / "R&D of me" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    (tmp_path / "sitecustomize.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
    (tmp_path / "run").write_text('"$@"\n')
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *SITE_PACKAGES])}
    ran = subprocess.run(
        ["bash", "-c", 'exec -a uv sh run "$@"', "bash", python, "-P", "-c", TWO_RAYS],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,  # workers that don't start are waited for
    )
    assert ran.returncode == 0, ran.stderr
    first, second = ran.stdout.split()
    assert first != second
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("shown", ["no certificate", "another certificate", "the certificate"])
def test_only_a_server_with_the_certificate_is_called(ray_session, tmp_path, shown):
    """Another user can listen at the port of a process of Ray's that has just ended."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    for path, text in zip((key, certificate), local_ray._key_and_certificate(), strict=True):
        path.write_bytes(text)
    if shown == "the certificate":
        key, certificate = os.environ["RAY_TLS_SERVER_KEY"], os.environ["RAY_TLS_SERVER_CERT"]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        client = subprocess.Popen(
            [sys.executable, "-c", CONNECT, f"127.0.0.1:{server.getsockname()[1]}"],
            env=os.environ | CLIENT,
            stderr=subprocess.DEVNULL,
        )
        try:
            connection, _ = server.accept()
            connection.settimeout(60)
            with connection:
                if shown == "no certificate":
                    assert connection.recv(2) == TLS_HANDSHAKE
                    return
                refused = (
                    nullcontext() if shown == "the certificate" else pytest.raises(ssl.SSLError)
                )
                with refused, context.wrap_socket(connection, server_side=True) as encrypted:
                    assert encrypted.recv(24) == HTTP2
        finally:
            client.kill()
            client.wait()


def holders(token: str, directory: Path) -> list[Path]:
    """Return the files below a directory that contain the token."""
    paths = []
    for path in directory.rglob("*"):
        with suppress(OSError):
            if path.is_file() and token.encode() in path.read_bytes():
                paths.append(path)
    return paths
