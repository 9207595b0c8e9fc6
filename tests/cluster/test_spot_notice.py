"""Test that a spot node's notice reaches Ray, with a server in place of EC2's metadata service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.cluster.emulated import Nodes
from tests.cluster.standins import ROOT, free_port, wait_until


class Metadata(BaseHTTPRequestHandler):
    """Serve instance metadata with tokens (IMDSv2): `answers` in turn, repeating the last."""

    def do_PUT(self):
        ok = (
            self.path == "/latest/api/token"
            and int(self.headers["X-aws-ec2-metadata-token-ttl-seconds"]) > 0
        )
        self.answer(200 if ok else 400, "a token")

    def do_GET(self):
        if self.headers["X-aws-ec2-metadata-token"] != "a token":
            return self.answer(401, "")
        if self.path != "/latest/meta-data/spot/instance-action":
            return self.answer(400, "")
        answers = self.server.answers
        self.server.asked += 1
        self.answer(*(answers.pop(0) if len(answers) > 1 else answers[0]))

    def answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def metadata():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    server.answers, server.asked = [(404, "")], 0
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def watch(port: int, address: str) -> subprocess.Popen[str]:
    code = "from chexseg.run import spot_notice; spot_notice.PAUSE = 0.1; spot_notice.main()"
    # The proxy, which doesn't exist, must not be used.
    environment = {
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://127.0.0.1:{port}",
        "RAY_ADDRESS": address,
        "http_proxy": "http://127.0.0.1:9",
        "RAY_ENABLE_AUTO_CONNECT": "1",  # `ray drain-node` relies on it
    }
    command = [sys.executable, "-c", code]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


#: An idle node that is drained ends at once.
BUSY = """
import ray, time
ray.init(address={address!r}, log_to_driver=False)
task = ray.remote(num_cpus=1)(lambda: time.sleep(600)).remote()
while ray.available_resources().get("CPU"):
    time.sleep(0.1)
print("busy", flush=True)
ray.get(task)
"""


@pytest.mark.heavy
def test_the_node_is_drained_when_ec2_says_that_it_goes(metadata):
    cluster = Nodes(1)
    in_progress = [sys.executable, "-c", BUSY.format(address=cluster.address)]
    working = subprocess.Popen(
        in_progress, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    watching = watch(metadata.server_port, cluster.address)
    try:
        assert working.stdout.readline() == "busy\n"
        assert wait_until(lambda: watching.poll() is not None or metadata.asked > 2, 60, pause=0.05)
        assert watching.poll() is None and cluster.cluster.global_state.get_draining_nodes() == {}
        when = datetime.now(UTC) + timedelta(seconds=120)
        metadata.answers[:] = [
            (500, ""),
            (200, json.dumps({"action": "terminate", "time": f"{when:%Y-%m-%dT%H:%M:%SZ}"})),
        ]
        output, _ = watching.communicate(timeout=120)
        assert watching.returncode == 0, output
        assert "500" in output and f"EC2 will terminate this node at {when:%H:%M:%S} UTC" in output
        draining = cluster.cluster.global_state.get_draining_nodes()
        assert list(draining) == [cluster.head]
        took = datetime.now(UTC) - (when - timedelta(seconds=120))
        assert abs(draining[cluster.head] / 1000 - when.timestamp()) <= took.total_seconds()
    finally:
        watching.kill()
        working.kill()
        cluster.close()


def test_a_machine_that_is_no_instance_is_left_alone():
    """Check that the command can be in a cluster file for on-premise machines."""
    watching = watch(free_port(), "nowhere")
    output, _ = watching.communicate(timeout=60)
    assert (
        watching.returncode == 0
        and "no EC2 metadata at http://127.0.0.1:" in output
        and output.count("\n") == 1
    )
