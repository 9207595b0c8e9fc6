"""Test what `study watch` writes while the results of a study come."""

from __future__ import annotations

import shutil

from chexseg.cli.watch import page_writer
from chexseg.config import study_file
from chexseg.data.raw_split import RawData
from chexseg.plan import planner
from chexseg.store.store import Store
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
    again = (page / "index.html").stat().st_mtime_ns
    shutil.rmtree(store.backend.local / name(ingest))
    commit(store, ingest, b"9876543210")  # a damaged one would be computed again
    assert write(page)
    assert (page / "index.html").stat().st_mtime_ns > again
    assert write(page) is None
