"""Test docs/reference/store-layout.md: its fields are those of the files that the code writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

from chexseg.config import study_file
from chexseg.plan.graph import node_of
from chexseg.run import run_record
from chexseg.stages.configs import ScoreConfig
from chexseg.store import lease, live_runs, marker
from chexseg.store.backend import FAILED, TRASH
from chexseg.store.local_backend import PARTIAL
from chexseg.store.store import Store
from tests.reference.pages import read

PAGE = read("reference/store-layout.md")
NODE = node_of("score", ScoreConfig(), {"test": "0" * 64, "segmenter": "1" * 64})


def section(heading: str) -> str:
    """Return the text below a heading of the second level."""
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def first_cells(heading: str) -> list[str]:
    """Return the texts in backquotes of the first column of a section's table."""
    lines = [line for line in section(heading).splitlines() if line.startswith("| `")]
    return [name for line in lines for name in re.findall(r"`([^`]+)`", line.split(" | ")[0])]


def fields(store: Path, pattern: str) -> set[str]:
    """Return the fields of the one JSON file that matches a pattern."""
    (path,) = store.glob(pattern)
    return set(json.loads(path.read_text()))


def documented_record(name: str) -> set[str]:
    """Return the fields of a record in the section "Records"."""
    (entry,) = re.findall(rf"^- `{re.escape(name)}`: ([^.]*)\.$", section("Records"), re.MULTILINE)
    return set(re.findall(r"`(\w+)`", entry))


def test_manifest_fields(tmp_path):
    store = Store(tmp_path)
    with store.working_on(NODE) as partial:
        partial.mkdir()
        execution = {"device": "cuda", "gpu": "A", "threads": 1, "inputs_sha256": "2" * 64}
        store.commit(NODE, partial, {}, 1.0, execution)
    assert set(first_cells("`manifest.json`")) == fields(tmp_path, "score/*/manifest.json")


def test_key_fields(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        "chexseg.plan.graph._IDENTITY",
        type("Encoder", (), {"encode": lambda self, value: seen.update(value) or ""})(),
    )
    node_of("score", ScoreConfig(), {})
    assert first_cells("A key") == list(seen)


def test_record_of_a_failure(tmp_path):
    Store(tmp_path).record_failure(NODE, "error", "traceback")
    assert documented_record(".failed/KEY20.json") == fields(tmp_path, ".failed/*.json")


def test_record_of_an_active_run(tmp_path):
    with live_runs.holding(Store(tmp_path), "study", [NODE]):
        assert documented_record(".live/ID.json") == fields(tmp_path, ".live/*.json")


def test_record_of_a_run(tmp_path):
    study = study_file.parse("name: a\naxes: {trial: [0]}", "a.yaml")
    with run_record.recorded(Store(tmp_path), ".runs/a/b", study, [], None, [], tmp_path):
        pass
    assert documented_record(".runs/STUDY/TIME-HOST-PROCESS.json") == fields(
        tmp_path, ".runs/a/*.json"
    )


def test_names_and_durations_are_those_of_the_code():
    paths = " ".join(first_cells("Files"))
    for name in (FAILED, TRASH, PARTIAL, lease.LEASES, live_runs.LIVE, marker.MARKER):
        assert name in paths
    assert json.loads(marker.CONTENT) == {"layout": 1}
    timing, text = lease.Timing(), " ".join(section("Leases of an object store").split())
    assert f"waits {timing.settle} s" in text
    assert f"again every {timing.heartbeat:g} s" in text
    assert f"dead after {timing.expiry:g} s" in text
