"""Test that the session's last check finds a leftover process, port and file."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile

from tests import leftovers


def test_everything_that_is_left_is_named(monkeypatch):
    for name in ("CHEXSEG_TEST_SESSION", "TMPDIR"):
        monkeypatch.setenv(name, os.environ[name])  # restored afterwards, unchanged
    monkeypatch.setattr(tempfile, "tempdir", tempfile.tempdir)
    monkeypatch.setattr(leftovers, "PATIENCE", 0.2)
    before = leftovers.Leftovers()
    # Ray's daemons are also in a separate session.
    command = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
    with (
        subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE) as process,
        socket.create_server(("127.0.0.1", 0)) as server,
        tempfile.NamedTemporaryFile() as file,
    ):
        process.stdout.readline()  # until then its environment may be this process's
        left = before.wait()
        process.kill()
        port = server.getsockname()[1]
        listening = leftovers.listening_ports()
    assert port in listening - leftovers.listening_ports()
    expected = [f"process {process.pid}: {' '.join(command)}", f"file {file.name}"]
    assert set(expected) <= set(left)
    assert not set(expected) & set(before.wait())  # other tests may run at the same time
    before.close()
