"""Test what a run's counts say, and what stages send of their progress."""

from __future__ import annotations

from types import SimpleNamespace
from unittest import mock

from chexseg.progress import Reporter
from chexseg.run.progress import actor, display
from chexseg.run.progress.actor import ProgressWriter
from chexseg.run.progress.counts import RunCounts, StageProgress
from chexseg.run.progress.metrics import Rate


def test_cells_are_counted_and_the_best_is_named():
    counts = RunCounts(6, done=1, best=(0.3, "cam p=0 trial 0"))
    assert counts.text() == "1 of 6 cells done\nbest selection mIoU 0.300 (cam p=0 trial 0)"
    for name in ("a", "b"):
        counts.begin(name, 100.0)
    counts.begin("b", 150.0)  # its worker died
    assert "2 running" in counts.text() and counts.seconds_left() is None
    counts.end("a", True, 0.25, 160.0)
    counts.end("b", False, 0.4, 220.0)
    assert counts.seconds_left() == 180, "two cells in 120 s, so three more in 180"
    assert counts.text(180.0) == (
        "2 of 6 cells done, 1 failed, about 3 min left\nbest selection mIoU 0.400 (b)"
    )


def test_shared_stages_are_counted_before_the_cells():
    counts = RunCounts(11, stages=9, stages_done=3)
    assert counts.text(720.0) == "3 of 9 shared stages, 0 of 11 cells done, about 12 min left"
    assert RunCounts(0, stages=1).text() == "0 of 1 shared stage"


def test_a_cell_without_selection_images_has_no_best():
    counts = RunCounts(1)
    counts.begin("a", 0.0)
    counts.end("a", True, None, 1.0)
    assert counts.text() == "1 of 1 cells done"


def test_a_writer_sends_twice_a_second_and_at_the_end(monkeypatch):
    written, clock = [], SimpleNamespace(now=100.0)
    monkeypatch.setattr(actor, "time", SimpleNamespace(monotonic=lambda: clock.now))
    remote = SimpleNamespace(
        update=SimpleNamespace(
            remote=lambda *fields: written.append((*fields[1:2], *fields[3:6], dict(fields[6])))
        )
    )
    progress_writer = ProgressWriter(remote, "full trial 0, fit", "key", "full trial 0", "fit")
    progress_writer(1, 9, "samples", {"epoch": 1})
    progress_writer(2, 9, "samples", {"loss": 0.5})
    clock.now += 0.6
    progress_writer(3, 9, "samples", {"epoch": 2, "loss": None})
    progress_writer(9, 9, "samples")
    assert written == [
        ("key", 1, 9, "samples", {"epoch": 1}),
        ("key", 3, 9, "samples", {"epoch": 2, "loss": 0.5}),
        ("key", 9, 9, "samples", {"epoch": 2, "loss": 0.5}),
    ]


class Shown(Reporter):
    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def update(self, name, done, total, unit, note=None) -> None:
        self.calls.append((name, done, note))

    def finish(self, name, text) -> None:
        self.calls.append((name, text))

    def say(self, text) -> None:
        self.calls.append((text,))


def test_the_last_figures_are_shown_before_the_end_and_a_line_is_no_end(monkeypatch):
    monkeypatch.setattr(actor, "Metrics", mock.Mock())
    monkeypatch.setattr(display, "ray", SimpleNamespace(get=lambda value: value))
    collected = actor.ProgressActor.__ray_metadata__.modified_class(RunCounts(2))
    read = SimpleNamespace(remote=lambda: collected.read())
    shown = Shown()
    reads = display.ProgressDisplay(SimpleNamespace(read=read), shown)
    collected.update("a", "key a", {}, 4, 8, "samples", {"loss": 0.5, "step s": 0.1})
    collected.say("a", "no CUDA graph")
    collected.update("b", "key b", {}, 8, 8, "samples", {"loss": 0.25})
    collected.finish("b", "done in 1 s")
    reads.show()
    reads.show()
    assert shown.calls == [
        ("a: no CUDA graph",),
        ("b", 8, {"loss": 0.25}),
        ("b", "done in 1 s"),
        ("a", 4, {"loss": 0.5}),
        ("a", 4, {"loss": 0.5}),
    ]


def test_the_record_of_a_running_stage():
    rate = Rate()
    rate.add(0.0, 0)
    rate.add(10.0, 50)
    stage = StageProgress("key", {}, 10.0, 50, 200, "samples", {"epoch": 2, "loss": 0.5}, rate)
    assert stage.as_record() == {
        "done": 50,
        "total": 200,
        "unit": "samples",
        "epoch": 2,
        "rate": 5.0,
        "seconds_left": 30,
    }
