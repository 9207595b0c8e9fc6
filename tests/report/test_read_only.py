"""Test that report, compare and status only read a store, during a run, without Ray and torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chexseg.store.store import Store
from tests.analysis import stores

pytestmark = pytest.mark.heavy  # each command in a process of its own

ROOT = Path(__file__).resolve().parents[2]
#: Run a command, then print which modules that train or drive Ray it loaded.
PROBE = """
import sys
from chexseg.cli import app
try:
    app(sys.argv[1:], standalone_mode=False)
finally:
    trains = ("ray", "torch", "optuna", "chexseg.models", "chexseg.run.scheduler", "chexseg.search.searcher",
              "chexseg.launch", "chexseg.run.execute", "chexseg.data.sampling.radiograph_samplers")
    print("LOADED", sorted(set(trains) & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def half(tmp_path_factory, phantom_root) -> tuple[Path, Path, Store]:
    """Return a study of four cells during a run: two scored, one failed, one running here."""
    folder = tmp_path_factory.mktemp("half")
    # `study plan` also says what the data lacks: here there are 48 images with weak labels.
    text = stores.STUDY.replace("labels: {", "labels: {weak_images: 20, ")
    study, store = stores.write_study(folder / "small.yaml", text), Store(folder / "store")
    plan = stores.plan_of(study, phantom_root, store)
    stores.score(store, plan, phantom_root, plan.cells[1:3])
    store.record_failure(
        plan.nodes[plan.cells[0].fit], "RuntimeError: loss is not finite", "Traceback ..."
    )
    with store.working_on(plan.nodes[plan.cells[3].fit]) as partial:
        partial.mkdir(parents=True)
        (partial / "resume.pt").write_bytes(b"half a file")
        yield study, phantom_root, store


def listing(root: Path) -> dict[str, tuple[int, int, int]]:
    """Return path -> mode, size and modification time of everything below a directory."""
    paths = [root, *root.rglob("*")]
    return {
        str(path): (status.st_mode, status.st_size, status.st_mtime_ns)
        for path in paths
        for status in [path.lstat()]
    }


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("study", "status", "STUDY"), ["1 failed", "2 done", "1 running"]),
        (("study", "status", "STUDY", "--json"), ['"complete": false']),
        (("study", "plan", "STUDY"), ["2 of them done"]),
        (("report", "STUDY", "--out", "OUT"), ["small: 2 of 4 cells finished"]),
        (("compare", "STUDY#cam p=0.5", "STUDY#full", "--out", "OUT"), ["1 of 2 cells finished"]),
        (
            ("compare", "STUDY", "DATA/CheXlocalize/hb_segmentations_test.json", "--out", "OUT"),
            ["2 of 4 cells finished"],
        ),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_a_command_that_reads(half, tmp_path, arguments, told):
    study, data, store = half
    places = {"STUDY": str(study), "DATA": str(data), "OUT": str(tmp_path / "out")}
    typed = [argument for argument in arguments]
    for name, place in places.items():
        typed = [argument.replace(name, place) for argument in typed]
    before = listing(store.backend.local), listing(data)
    folders = [
        path for path in (store.backend.local, *store.backend.local.rglob("*")) if path.is_dir()
    ]
    for folder in folders:
        folder.chmod(0o555)  # stops any user but root; for root the listing tells
    try:
        answer = subprocess.run(
            [sys.executable, "-c", PROBE, *typed, "--data", str(data), "--store", str(store.backend.local)],
            capture_output=True, text=True, cwd=tmp_path, timeout=300, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert answer.returncode == 0, answer.stderr
    output, _, loaded = answer.stdout.rpartition("LOADED ")
    assert loaded.strip() == "[]"
    assert all(words in output + answer.stderr for words in told), output + answer.stderr
    assert (listing(store.backend.local), listing(data)) == before


def test_the_report_of_half_a_study_says_what_is_missing_and_why(half, tmp_path):
    from chexseg.analysis import load
    from tests.report.rendered import publish

    study, data, store = half
    results = load.study_results(stores.plan_of(study, data, store), store)
    states = results.missing.set_index("name")["state"].to_dict()
    assert len(results.cells) == 2 and states.keys() == {"cam p=0.5 trial 0", "full trial 1"}
    assert states["cam p=0.5 trial 0"] == "failed" and states["full trial 1"] != "failed"
    text = publish([results], tmp_path).page.read_text()
    assert "Incomplete: 2 of 4 cells finished" in text and "loss is not finite" in text


def test_status_as_json_names_what_runs(half):
    study, data, store = half
    answer = subprocess.run(
        [sys.executable, "-m", "chexseg", "study", "status", study, "--data", data, "--store", str(store.backend.local), "--json"],
        capture_output=True, text=True, cwd=ROOT, timeout=120,
    )  # fmt: skip
    cells = {cell["name"]: cell["state"] for cell in json.loads(answer.stdout)["cells"]}
    assert cells["full trial 1"] == "running" and cells["cam p=0.5 trial 0"] == "failed"
