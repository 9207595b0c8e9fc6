"""Test that a local Ray admits nobody else and imports the driver's modules.

This holds whatever is in the directory where the command is run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import chexseg
from chexseg import code_version
from chexseg.config import study_file
from chexseg.errors import UserError
from chexseg.plan import planner
from chexseg.run import local_ray
from chexseg.stages.api import StageContext
from chexseg.store.store import Store

ROOT = Path(__file__).resolve().parents[2]
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
#: 127.0.0.1 as in /proc/net/tcp, and ::ffff:127.0.0.1 and ::1 as in /proc/net/tcp6.
LOOPBACK = ("0100007F", "00000000000000000000000001000000")
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

    def pids(self) -> set[int]:
        """Return the run's processes: this one and all its descendants."""
        parents = {}
        for entry in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it has ended
                parents[int(entry.parent.name)] = int(
                    entry.read_text().rpartition(")")[2].split()[1]
                )
        members = {self.process.pid}
        while more := {pid for pid, parent in parents.items() if parent in members} - members:
            members |= more
        return members

    def listeners(self) -> dict[tuple[str, int], str]:
        """Return (hexadecimal address, port) -> command line, for the run's listening processes."""
        owners = {}
        for pid in self.pids():
            with suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                for link in Path(f"/proc/{pid}/fd").iterdir():
                    with suppress(OSError):
                        owners.setdefault(os.readlink(link), command)
        listeners = {}
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            for line in Path(table).read_text().splitlines()[1:]:
                _, local, _, state, *_, inode = line.split()[:10]
                if state == "0A" and (command := owners.get(f"socket:[{inode}]")):
                    address, port = local.split(":")
                    listeners[address, int(port, 16)] = command
        return listeners


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
    assert run.token != local_ray.token() and len(run.token) == 64
    listeners = run.listeners()
    for server in ("gcs_server", "raylet/raylet", "dashboard/agent", "chexseg"):
        assert any(server in command for command in listeners.values()), server
    assert {at: command for at, command in listeners.items() if not at[0].endswith(LOOPBACK)} == {}

    # Ray replaces a loopback address by another interface's unless it is set explicitly.
    common = os.environ | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    strangers = [
        subprocess.Popen(
            [sys.executable, "-c", CONNECT, run.gcs],
            env=common | settings,
            stderr=subprocess.PIPE,
            text=True,
        )
        for settings in (
            {"RAY_AUTH_MODE": "disabled"},
            {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64},
        )
    ]
    for stranger in strangers:
        assert any("InvalidAuthToken" in line for line in stranger.stderr), "it was let in"
        stranger.kill()  # it would try for 20 s
        stranger.communicate()

    lines = [
        Path(f"/proc/{pid}/cmdline").read_bytes()
        for pid in run.pids()
        if Path(f"/proc/{pid}").exists()
    ]
    assert lines and not any(run.token.encode() in line for line in lines)
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


def holders(token: str, directory: Path) -> list[Path]:
    """Return the files below a directory that contain the token."""
    paths = []
    for path in directory.rglob("*"):
        with suppress(OSError):
            if path.is_file() and token.encode() in path.read_bytes():
                paths.append(path)
    return paths


def test_a_worker_looks_for_modules_where_the_driver_does(ray_session):
    import ray

    def look() -> tuple[list[str], bool]:
        import sys

        return sys.path, sys.flags.safe_path

    path, safe = ray.get(ray.remote(look).remote())
    expected = [os.path.abspath(directory) for directory in sys.path]
    assert path[: len(expected)] == expected and safe


def test_nodes_that_import_other_code_are_named_before_anything_is_computed(
    ray_session, monkeypatch
):
    from chexseg.run import start_checks

    start_checks.check_nodes()
    other = replace(code_version.running(), digest="other", directory="/another/checkout")
    monkeypatch.setattr(code_version, "running", lambda: other)
    with pytest.raises(
        UserError, match=r"node \S+ imports other code .*/chexseg .*; expected .*/another/checkout"
    ):
        start_checks.check_nodes()


def test_sources_that_are_edited_while_a_study_is_planned_are_found(
    ray_session, tmp_path, phantom_root, monkeypatch
):
    """The command begins with a copy of the sources that differs from what workers import."""
    from chexseg.cli import study as command

    monkeypatch.setattr(code_version, "_required", [])
    shutil.copytree(Path(chexseg.__file__).parent, tmp_path / "chexseg")
    (tmp_path / "chexseg" / "errors.py").write_text("# as it was when the command began")
    (tmp_path / "s.yaml").write_text(
        "name: s\nsettings: {size: 64, labels: {expert_split: {train: 8, select: 4}}}\n"
    )
    workers, plan = chexseg.__file__, command.read_studies
    monkeypatch.setattr(chexseg, "__file__", str(tmp_path / "chexseg" / "__init__.py"))

    def edit_and_plan(*arguments: object, **options: object) -> object:
        monkeypatch.setattr(chexseg, "__file__", workers)
        return plan(*arguments, **options)

    monkeypatch.setattr(command, "read_studies", edit_and_plan)
    place = (tmp_path / "s.yaml", phantom_root, str(tmp_path / "store"))
    with pytest.raises(UserError, match=r"node \S+ imports other code than the driver"):
        command.run_study(*place, None, None, True)


def test_a_worker_that_came_later_refuses_other_code(ray_session, tmp_path, phantom_root):
    import ray

    from chexseg.data import remote_path
    from chexseg.run.cluster import start_here
    from chexseg.run.progress.actor import ProgressActor
    from chexseg.run.progress.counts import RunCounts
    from chexseg.run.worker import Job, attempt

    planned = planner.plan(
        study_file.parse(STUDY, "alone.yaml"), planner.fingerprints(phantom_root)
    )
    node = next(node for node in planned.nodes.values() if node.stage == "ingest")
    code = replace(code_version.running(), version="0.0.1")
    progress_actor = start_here(ProgressActor, RunCounts(0))
    job = Job(
        {node.key: node},
        str(tmp_path / "store"),
        remote_path.at(phantom_root),
        progress_actor,
        code=code,
    )
    answer = ray.get(ray.remote(lambda: attempt(job, node.key, "ingest", StageContext())).remote())
    ray.kill(progress_actor)
    assert answer["state"] == "mistake" and "expected chexseg 0.0.1" in answer["error"]
    assert Store(str(tmp_path / "store")).find(node.stage, node.key) is None
