"""The store: complete means the manifest is there and its files are as it says."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from chexseg.errors import UserError
from chexseg.study import plan, spec
from chexseg.study.store import MANIFEST, Store

NODE = next(iter(plan.plan(spec.parse("name: s", "x.yaml"), {"train": "a", "valid": "b", "test": "c"}).nodes.values()))


def commit(store: Store) -> Path:
    with store.working_on(NODE) as partial:
        (partial / "sub").mkdir(parents=True)
        (partial / "sub" / "values.bin").write_bytes(b"0123456789")
        return store.commit(NODE, partial, {"images": 3}, 1.5).path


def test_a_committed_result_is_found_with_its_facts(tmp_path):
    store = Store(tmp_path / "store")
    assert store.find(NODE.stage, NODE.key) is None
    path = commit(store)
    found = store.find(NODE.stage, NODE.key)
    assert found is not None
    assert (found.path, found.facts["images"]) == (path, 3)
    assert found.manifest["config"] == dict(NODE.config)
    assert set(found.manifest["files"]) == {"sub/values.bin"}
    assert not list((tmp_path / "store" / ".partial").iterdir())


@pytest.mark.parametrize("damage", ["no manifest", "half a manifest", "file gone", "file cut", "another key", "empty"])
def test_an_incomplete_directory_is_never_a_result_and_is_replaced(tmp_path, damage):
    store = Store(tmp_path)
    path = commit(store)
    manifest = path / MANIFEST
    if damage == "no manifest":
        manifest.unlink()
    elif damage == "half a manifest":
        manifest.write_text(manifest.read_text()[:80])
    elif damage == "file gone":
        (path / "sub" / "values.bin").unlink()
    elif damage == "file cut":
        (path / "sub" / "values.bin").write_bytes(b"01234")
    elif damage == "another key":
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"key": "0" * 64}))
    else:
        manifest.write_text("")
    assert store.find(NODE.stage, NODE.key) is None
    commit(store)
    assert store.find(NODE.stage, NODE.key) is not None


def test_reading_creates_nothing(tmp_path):
    store = Store(tmp_path / "nowhere")
    store.find(NODE.stage, NODE.key)
    store.failure(NODE.key)
    store.cached([NODE])
    assert list(tmp_path.iterdir()) == []


def test_what_failed_is_remembered_until_it_succeeds(tmp_path):
    store = Store(tmp_path)
    store.record_failure(NODE, "ValueError: no", "Traceback ...")
    failure = store.failure(NODE.key)
    assert failure is not None and failure["error"] == "ValueError: no"
    commit(store)
    assert store.failure(NODE.key) is None


HOLD = """
import sys, time
from pathlib import Path
from tests.study.test_store import NODE
from chexseg.study.store import Store
with Store(Path(sys.argv[1])).working_on(NODE):
    print("entered", flush=True)
    time.sleep(60)
"""


def test_one_process_at_a_time_and_a_dead_one_leaves_no_lock(tmp_path):
    def holder() -> subprocess.Popen:
        command = [sys.executable, "-c", HOLD, str(tmp_path)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[2])

    first = holder()
    try:
        assert first.stdout.readline() == "entered\n"
        second = holder()
        try:
            entered = threading.Thread(target=second.stdout.readline)
            entered.start()
            entered.join(3)
            assert entered.is_alive()
            first.kill()
            entered.join(20)
            assert not entered.is_alive()
            assert second.poll() is None
        finally:
            second.kill()
            second.wait()
    finally:
        first.kill()
        first.wait()


def test_what_a_killed_writer_left_is_no_part_of_the_result(tmp_path):
    store = Store(tmp_path)
    with store.working_on(NODE) as partial:
        partial.mkdir(parents=True)
        for name in (MANIFEST, ".part-00000.parquet.123", "resume.writing"):
            (partial / name).write_text("old")
    path = commit(store)
    assert store.find(NODE.stage, NODE.key) is not None
    assert sorted(file.name for file in path.rglob("*") if file.is_file()) == [MANIFEST, "values.bin"]


def test_a_store_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file; allowed: a directory"):
        Store(tmp_path / "file")
    with pytest.raises(UserError, match="object stores come with a later version"):
        Store(Path("s3://bucket/prefix"))


def test_the_whole_files_of_a_damaged_result_are_kept_for_the_next_run(tmp_path):
    store = Store(tmp_path)
    with store.working_on(NODE) as partial:
        partial.mkdir(parents=True)
        for name in ("a", "b", "c"):
            (partial / name).write_text(name * 10)
        path = store.commit(NODE, partial, {}, 1.0).path
    (path / "a").write_text("a" * 5)
    (path / "b").write_text("x" * 10)
    with store.working_on(NODE) as partial:
        store.salvage(NODE, partial)
        assert [file.name for file in partial.iterdir()] == ["c"]
        assert not path.exists()


def test_nothing_is_salvaged_over_newer_work_or_from_a_whole_result(tmp_path):
    store = Store(tmp_path)
    path = commit(store)
    with store.working_on(NODE) as partial:
        store.salvage(NODE, partial)
        assert not partial.exists() and store.find(NODE.stage, NODE.key)
        (path / "sub" / "values.bin").write_bytes(b"cut")
        partial.mkdir()
        (partial / "newer").write_text("")
        store.salvage(NODE, partial)
        assert [file.name for file in partial.iterdir()] == ["newer"]
    with store.working_on(NODE) as partial:  # a manifest that cannot be read says nothing of what is whole
        (partial / "newer").unlink()
        partial.rmdir()
        (path / MANIFEST).write_text("{")
        store.salvage(NODE, partial)
        assert not partial.exists()
