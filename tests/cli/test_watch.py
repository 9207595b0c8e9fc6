"""Test what `study watch` writes while the results of a study come."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chexseg.cli.watch import page_writer
from chexseg.config import study_file
from chexseg.data.raw_split import RawData
from chexseg.plan import planner
from chexseg.report import live_server
from chexseg.report import write as report
from chexseg.store import live_runs
from chexseg.store.store import Store
from tests.cli.test_signals import ACCEPTING
from tests.store.places import commit, name


def test_the_page_is_written_again_only_if_results_have_come(tmp_path, phantom_root):
    text = "name: w\naxes: {trial: [0, 1]}\nsettings: {labels: {p: 1}}"
    raw, store = RawData(phantom_root), Store(tmp_path / "store")
    plan = planner.plan(study_file.parse(text, "w.yaml"), raw.fingerprints)
    write = page_writer([plan], store, raw)
    page = tmp_path / "page"
    assert write(page).endswith("w: 0 of 2 cells finished")
    first = (page / "index.html").stat().st_mtime_ns
    assert write(page) is None
    assert (page / "index.html").stat().st_mtime_ns == first
    ingest = next(node for node in plan.nodes.values() if node.stage == "ingest")
    commit(store, ingest)
    assert write(page).endswith("w: 0 of 2 cells finished")
    assert (page / "index.html").stat().st_mtime_ns > first
    shutil.rmtree(store.backend.local / name(ingest))
    commit(store, ingest, b"9876543210")  # a damaged one would be computed again
    assert write(page).endswith("w: 0 of 2 cells finished")
    assert write(page) is None


def test_the_browser_of_images_waits_for_the_end_of_a_run(tmp_path, phantom_root, monkeypatch):
    text = "name: w\naxes: {trial: [0, 1]}\nsettings: {labels: {p: 1}}"
    raw, store = RawData(phantom_root), Store(tmp_path / "store")
    plan, other = (
        planner.plan(study_file.parse(text, "w.yaml", changes), raw.fingerprints)
        for changes in ({}, {"size": 64})
    )
    browse = []
    monkeypatch.setattr(report, "write", lambda *_, **options: browse.append(options["browse"]))
    write = page_writer([plan], store, raw)
    with live_runs.holding(store, "other", other.nodes.values()):
        write(tmp_path)
    with live_runs.holding(store, "w", plan.nodes.values()):
        write(tmp_path)
        assert write(tmp_path) is None
    write(tmp_path)
    assert write(tmp_path) is None, "neither results nor runs have changed"
    assert browse == [True, False, True]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_with_its_directory(phantom_root: Path, tmp_path: Path, number: signal.Signals):
    study, temporary = tmp_path / "w.yaml", tmp_path / "temporary"
    study.write_text("name: w\nsettings: {labels: {p: 1}}\n")
    temporary.mkdir()
    command = [sys.executable, "-c", ACCEPTING, sys.executable, "-m", "chexseg", "study", "watch"]
    server = subprocess.Popen(
        [*command, str(study), "--data", str(phantom_root), "--store", str(tmp_path / "store")],
        env=os.environ | {"TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    address = server.stdout.readline()
    assert address.startswith(f"http://{live_server.HOST}:"), server.communicate()
    assert len(list(temporary.glob("chexseg-watch-*"))) == 1
    server.send_signal(number)
    _, errors = server.communicate(timeout=60)
    assert server.returncode == 0 and errors.endswith("\nended\n")
    assert not list(temporary.iterdir())
