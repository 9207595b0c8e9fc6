"""Test the store on S3 from several hosts: copies are made once, checked, and made again."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from chexseg.config import study_file
from chexseg.errors import DamagedArtifactError, LeaseLostError, UserError
from chexseg.plan import planner
from chexseg.store import manifest
from chexseg.store.lease import Timing
from chexseg.store.manifest import MANIFEST
from chexseg.store.store import Store
from tests.store.places import (
    DATA,
    FAST,
    NODE,
    VALUES,
    commit,
    name,
    open_store,
)


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """`open_store` on another host: one with copies of its own."""

    def open_there(place: str, timing: Timing = FAST) -> Store:
        monkeypatch.setenv("CHEXSEG_CACHE", str(tmp_path / "elsewhere"))
        return open_store(place, timing)

    return open_there


def test_no_message_holds_the_credentials(s3):
    store = Store(s3("prefix"))
    assert str(store) == "s3://bucket/prefix"
    with pytest.raises(UserError) as caught:
        Store("s3://any:secret@bucket/prefix?endpoint_override=127.0.0.1%3A9&scheme=http").find(
            NODE.stage, NODE.key
        )
    assert str(caught.value).startswith("--store s3://bucket/prefix: ")
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


# ---- what only an object store has to do


def test_another_host_fetches_the_files_once_and_only_when_they_are_read(s3, remote, elsewhere):
    commit(open_store(remote))
    other_host = elsewhere(remote)
    s3.requests()
    artifact = other_host.find(NODE.stage, NODE.key)
    assert not any("values.bin" in line for line in s3.requests())
    assert (artifact.path / "sub" / "values.bin").read_bytes() == b"0123456789"
    assert any("values.bin" in line for line in s3.requests())
    assert other_host.find(NODE.stage, NODE.key).path == artifact.path
    requests = s3.requests()
    assert len(requests) == 1, "the manifest is kept, and so is what was fetched"


def test_a_copy_that_is_damaged_is_fetched_again_and_another_result_is_another_copy(
    remote, elsewhere
):
    here = open_store(remote)
    commit(here)
    other_host = elsewhere(remote)
    path = other_host.find(NODE.stage, NODE.key).path
    (path / "sub" / "values.bin").write_bytes(b"01")
    assert (
        other_host.find(NODE.stage, NODE.key).path / "sub" / "values.bin"
    ).read_bytes() == b"0123456789"
    (path / "sub" / "values.bin").write_bytes(b"of its size")
    other_host.drop_damaged(other_host.find(NODE.stage, NODE.key))
    assert (
        other_host.find(NODE.stage, NODE.key).path / "sub" / "values.bin"
    ).read_bytes() == b"0123456789"
    time.sleep(1.1)  # the manifest's time is what tells the two apart
    commit(here, content=b"another result")
    assert (
        other_host.find(NODE.stage, NODE.key).path / "sub" / "values.bin"
    ).read_bytes() == b"another result"


def test_damaged_manifests_of_this_hosts_copies_are_fetched_again(remote, elsewhere):
    """The store is whole, so nobody should be told to delete anything there."""
    commit(open_store(remote))
    other_host = elsewhere(remote)
    path = other_host.find(NODE.stage, NODE.key).path
    (kept,) = other_host.backend.cache.glob(f"documents/*/*/{MANIFEST}")
    times = kept.stat().st_atime_ns, kept.stat().st_mtime_ns
    for damaged in (path / MANIFEST, kept):
        content = bytearray(damaged.read_bytes())
        content[len(content) // 2] ^= 1
        damaged.write_bytes(content)
    os.utime(kept, ns=times)
    again = other_host.find(NODE.stage, NODE.key)
    manifest.verify(again.path / "sub" / "values.bin")
    assert manifest.load(again.path) == again.manifest


def test_what_was_damaged_on_the_store_is_found_when_it_is_fetched(remote, elsewhere):
    commit(open_store(remote))
    other_host = elsewhere(remote)
    other_host.backend.write(VALUES, b"damaged!!!")
    with pytest.raises(DamagedArtifactError, match="values.bin: damaged since it was written"):
        assert other_host.find(NODE.stage, NODE.key).path
    other_host.drop_damaged(other_host.find(NODE.stage, NODE.key))
    assert other_host.find(NODE.stage, NODE.key) is None


def test_a_process_that_was_taken_for_dead_keeps_its_hands_off_anothers_result(remote, elsewhere):
    paused = open_store(remote, Timing(settle=1.1, heartbeat=1000, expiry=3, poll=0.5))
    other_host = elsewhere(remote, Timing(settle=1.1, heartbeat=0.5, expiry=3, poll=0.5))
    with paused.working_on(NODE) as partial:
        partial.mkdir(parents=True)
        (partial / "values").write_text("the first's")
        with other_host.working_on(NODE) as theirs:
            with pytest.raises(LeaseLostError, match="another has taken the work over"):
                paused.commit(NODE, partial, {}, 1.0)
            assert other_host.find(NODE.stage, NODE.key) is None
            theirs.mkdir(parents=True)
            (theirs / "values").write_text("the second's")
            other_host.commit(NODE, theirs, {}, 1.0)
        assert (paused.commit(NODE, partial, {}, 1.0).path / "values").read_text() == "the second's"
    assert open_store(remote).backend.tree(".claims") == {}


def test_waiting_asks_little_and_leaves_nothing(s3, remote, elsewhere):
    here, other_host = (
        open_store(remote),
        elsewhere(remote, Timing(settle=1.1, heartbeat=2, expiry=30, poll=2)),
    )
    over = threading.Event()

    def wait() -> None:
        with other_host.working_on(NODE):
            over.set()

    waiting = threading.Thread(target=wait)
    with here.working_on(NODE):
        waiting.start()
        time.sleep(3)
        s3.requests()
        time.sleep(6)
        owners = {owner for owner in here.backend.tree(".claims") if not owner.endswith(".beat")}
        other = next(owner for owner in owners if owner != here.backend.leases[name()].name)
        lines = s3.requests()
        assert not over.is_set()
    waiting.join(30)
    assert over.is_set()
    beats = sum(f"{other}.beat" in line for line in lines)
    assert 2 <= beats <= 4
    assert here.backend.tree(".claims") == {}


def test_a_plan_of_45_cells_is_looked_up_with_few_requests(s3, remote):
    text = (
        Path(__file__).resolve().parents[2] / "studies" / "improved" / "semi_supervised.yaml"
    ).read_text()
    planned = planner.plan(study_file.parse(text, "x.yaml"), DATA)
    store = open_store(remote)
    s3.requests()
    assert store.cached(planned.nodes.values()) == set()
    stages = {node.stage for node in planned.nodes.values()}
    assert len(s3.requests()) <= 2 * len(stages)
