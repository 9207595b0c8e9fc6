"""Run `ray up`, `exec` and `down` on one machine, with cluster.yaml's commands for a head.

Replaced are ssh, rsync and `ray stop` (tests/cluster/standins.py), Ray's ports, and pip's source of
dependencies. pip installs only the checkout, without an index; the rest is this environment's. 6 GB
of packages and GPUs are not tested here.
"""

from __future__ import annotations

import re
import socket
import stat
import subprocess
import urllib.error
import urllib.request

import psutil
import pytest
import yaml

from tests import processes
from tests.cluster.standins import ROOT, wait_until
from tests.cluster.test_cluster_yaml import on_premise

pytest.importorskip("aiohttp_cors", reason="needs ray[default], of the extra cluster")
pytest.importorskip("setuptools", "77", reason="builds the package without an index")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def up(machine):
    """Return (the machine, its cluster file, the output of `ray up`)."""
    config = on_premise()
    config["provider"] |= {"head_ip": "127.0.0.1", "worker_ips": []}
    file = machine.home / "cluster.yaml"
    file.write_text(yaml.safe_dump(config))
    machine.write(
        machine.home / ".ssh" / "id_ed25519", "no key: the stand-in for ssh asks for none\n"
    )
    # Where a node has Ray's command: pip has nothing to install there.
    machine.write(
        machine.remote / "chexseg-venv" / "bin" / "ray", (machine.bin / "ray").read_text()
    )
    alone = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "false"}
    assert machine.run("ray get-auth-token --generate").returncode == 0
    output = machine.run(f"ray up -y {file}", timeout=1200, **alone)
    assert output.returncode == 0, output.stdout
    return machine, file, output.stdout


def test_what_is_installed_is_this_checkout(up):
    machine, file, _ = up
    asked = machine.run(
        f"ray exec {file} 'which chexseg ray && cd / && python -P -c \"import chexseg; "
        "print(chexseg.__file__)\"'"
    )
    checkout = machine.remote / "chexseg"
    assert f"{machine.remote}/chexseg-venv/bin/chexseg" in asked.stdout, asked.stdout
    assert (checkout / "studies" / "improved" / "all.yaml").read_text() == (
        ROOT / "studies" / "improved" / "all.yaml"
    ).read_text()
    sites = list((machine.remote / "chexseg-venv").glob("lib/*/site-packages/*chexseg*"))
    assert any("editable" in site.name for site in sites), sites
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=True
    ).stdout.split()
    sent = {str(path.relative_to(checkout)) for path in checkout.rglob("*") if path.is_file()}
    assert {name for name in listed if (ROOT / name).is_file()} <= sent
    assert not [name for name in sent if name.startswith((".venv", "chexseg-store", "demo/"))]


def test_the_token_is_there_for_its_owner_alone_and_in_no_log(up):
    machine, _, output = up
    token = (machine.home / ".ray" / "auth_token").read_text()
    copy = machine.remote / ".ray" / "auth_token"
    assert copy.read_text() == token
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert token not in output
    logs = [path for path in machine.temporary.rglob("*") if path.is_file()]
    assert logs and not [path for path in logs if token.encode() in path.read_bytes()]


def test_the_cluster_answers_those_who_have_the_token(up):
    machine, file, _ = up
    status = machine.run(f"ray exec {file} 'ray status'")
    assert status.returncode == 0 and re.search(r"[\d.]+/3.0 CPU", status.stdout), status.stdout
    listed = machine.run("ray job list", RAY_AUTH_MODE="token")
    assert listed.returncode == 0, listed.stdout
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"http://127.0.0.1:{machine.dashboard}/api/jobs/", timeout=20)


def test_a_job_runs_the_checkout_that_is_sent_along(up):
    machine, _, _ = up
    command = "import chexseg, os; print(chexseg.__file__, sorted(os.listdir()))"
    job = machine.run(
        f"ray job submit --working-dir . -- python -c '{command}'", RAY_AUTH_MODE="token"
    )
    assert job.returncode == 0 and re.search(
        r"working_dir_files/\w+/chexseg/__init__.py \[.*'studies'", job.stdout
    ), job.stdout


def test_the_dashboard_listens_on_loopback_alone(up):
    machine, _, _ = up
    assert _listens("127.0.0.1", machine.dashboard)
    others = {
        info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
    } - {"127.0.0.1"}
    assert not [address for address in others if _listens(address, machine.dashboard)]


def _listens(address: str, port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(5)
        return sock.connect_ex((address, port)) == 0


def test_down_ends_it(up):
    machine, file, _ = up
    ray_processes = processes.find(str(machine.temporary))
    assert ray_processes
    down = machine.run(f"ray down -y {file}")
    assert down.returncode == 0, down.stdout
    assert wait_until(lambda: not any(map(psutil.pid_exists, ray_processes)), 60)
    assert not _listens("127.0.0.1", machine.dashboard)
