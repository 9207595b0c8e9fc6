"""Test standard streams that are full, closed or read by nobody, and what is shown on them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chexseg.cli import streams
from chexseg.cli.streams import STDOUT, Stream
from chexseg.store.store import Store
from tests.store.places import commit

FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


@FULL
@pytest.mark.parametrize("required", [True, False])
def test_only_the_first_write_to_a_full_stream_can_fail(required):
    with open("/dev/full", "w") as full:
        stream = Stream(full, required)
        if required:
            with pytest.raises(OSError) as caught:
                stream.write("text")
                stream.flush()
            assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, STDOUT)
        stream.write("more")
        stream.flush()


def test_what_is_shown_has_no_control_characters(capsys):
    streams.echo("a\x1b[31mred\x1b[0m\x1b]0;title\x07\u202e\r b\n\tc")
    assert capsys.readouterr().out == "ared?]0;title??? b\n\tc\n"


def closed_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("store")
    commit(Store(root))
    return root


def run(store: Path, before: str = "", **streams: int) -> subprocess.CompletedProcess:
    """List a store. before: a shell command that is run first."""
    command = [sys.executable, "-P", "-m", "chexseg", "store", "list", "--store", str(store)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    return subprocess.run(
        ["/bin/sh", "-c", f'{before} exec "$@"', "sh", *command],
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        **options,
    )


@pytest.mark.heavy
@FULL
def test_an_answer_that_cannot_be_written_is_an_error(store):
    with open("/dev/full", "w") as full:
        answer = run(store, stdout=full)
    assert answer.returncode == 2 and answer.stderr == (
        "chexseg: standard output: can't be used (No space left on device); expected: free space\n"
    )


@pytest.mark.heavy
def test_a_reader_that_has_gone_ends_a_command_as_it_ends_other_programs(store):
    pipe = closed_pipe()
    answer = run(store, stdout=pipe)
    os.close(pipe)
    assert (answer.returncode, answer.stderr) == (141, "")


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["closed", "pipe"])
def test_a_command_needs_no_standard_error(kind, store):
    if kind == "pipe":
        pipe = closed_pipe()
        answer = run(store, stderr=pipe)
        os.close(pipe)
    else:
        answer = run(store, before="exec 2>&-;")
    assert answer.returncode == 0 and "1 artifacts" in answer.stdout


@pytest.mark.heavy
def test_streams_that_the_parent_has_closed_are_no_files_of_the_store(store):
    before = Store(store).backend.tree("")
    code = (
        "import os; from chexseg.cli import streams; streams.prepare();"
        "assert os.open('/dev/null', os.O_RDONLY) > 2"
    )
    command = f'{sys.executable} -P -c "{code}" <&- >&- 2>&-'
    root = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"PYTHONPATH": root}
    assert subprocess.run(command, shell=True, env=environment).returncode == 0
    assert Store(store).backend.tree("") == before
