"""Test the line that shows the state of a run's cells."""

from __future__ import annotations

from types import SimpleNamespace

from chexseg.run import progress_actor
from chexseg.run.progress_actor import ProgressWriter, RunCounts


def test_cells_are_counted_and_the_best_is_named():
    counts = RunCounts(6, done=1, best=(0.3, "cam p=0 trial 0"))
    assert (
        counts.text()
        == "1 of 6 cells done, 0 running, 0 failed, best selection mIoU 0.300 (cam p=0 trial 0)"
    )
    for name in ("a", "b"):
        counts.begin(name, 100.0)
    counts.begin("b", 150.0)  # its worker died
    assert "2 running" in counts.text() and "left" not in counts.text()
    counts.end("a", True, 0.25, 160.0)
    counts.end("b", False, 0.4, 220.0)
    assert counts.text() == (
        "2 of 6 cells done, 0 running, 1 failed, best selection mIoU 0.400 (b), about 3 min left"
    ), "two cells in 120 s, so three more in 180"


def test_a_cell_without_selection_images_has_no_best():
    counts = RunCounts(1)
    counts.begin("a", 0.0)
    counts.end("a", True, None, 1.0)
    assert counts.text() == "1 of 1 cells done, 0 running, 0 failed"


def test_a_pen_writes_twice_a_second_and_its_end(monkeypatch):
    written, clock = [], SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress_actor, "time", SimpleNamespace(monotonic=lambda: clock.now))
    remote = SimpleNamespace(
        update=SimpleNamespace(
            remote=lambda *fields: written.append((*fields[2:5], dict(fields[5])))
        )
    )
    progress_writer = ProgressWriter(remote, "full trial 0, fit", "full trial 0", "fit")
    progress_writer(1, 9, "samples", {"epoch": 1})
    progress_writer(2, 9, "samples", {"loss": 0.5})
    clock.now += 0.6
    progress_writer(3, 9, "samples", {"epoch": 2, "loss": None})
    progress_writer(9, 9, "samples")
    assert written == [
        (1, 9, "samples", {"epoch": 1}),
        (3, 9, "samples", {"epoch": 2, "loss": 0.5}),
        (9, 9, "samples", {"epoch": 2, "loss": 0.5}),
    ]
