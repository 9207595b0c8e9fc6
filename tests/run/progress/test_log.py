"""Test the log of a run in its store."""

from __future__ import annotations

import re

import pytest

from chexseg.progress import Reporter
from chexseg.run.progress import log
from chexseg.store.object_backend import ObjectBackend
from chexseg.store.store import Store

NAME = ".runs/study/run.log"


class Recorded(Reporter):
    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def update(self, name, done, total, unit, note=None) -> None:
        self.calls.append((self.short_name(name), done, total))

    def finish(self, name, text) -> None:
        self.calls.append((name, text))

    def say(self, text) -> None:
        self.calls.append((text,))


def test_lines_are_in_the_log_with_their_time_and_shown_too(tmp_path):
    shown, store = Recorded(), Store(tmp_path)
    with log.logged(store, NAME, shown, interval=60) as reporter:
        reporter.short_name = str.upper
        reporter.doing("starting Ray")
        reporter.say("one\ntwo")
        reporter.update("fit", 1, 2, "samples")
        reporter.finish("fit", "done in 3 s")
        reporter.headline("0 of 2 cells done\nbest 0.3")
        reporter.headline("1 of 2 cells done\nbest 0.3")  # within a minute
    lines = (tmp_path / NAME).read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines)
    said = ["starting Ray", "one", "two", "fit: done in 3 s", "0 of 2 cells done", "best 0.3"]
    assert [line[20:] for line in lines] == said
    assert shown.calls == [("one\ntwo",), ("FIT", 1, 2), ("fit", "done in 3 s")]


def test_a_log_has_no_escape_sequences_and_any_text(tmp_path):
    with log.logged(Store(tmp_path), NAME, Reporter(), interval=60) as reporter:
        reporter.finish("fit", "failed: \x1b[2Jfilm\x07\udcff.dcm")
    assert (tmp_path / NAME).read_text().endswith(" fit: failed: film??.dcm\n")


def test_what_was_said_before_an_error_is_in_the_log(tmp_path):
    with (
        pytest.raises(KeyboardInterrupt),
        log.logged(Store(tmp_path), NAME, Reporter(), interval=60) as reporter,
    ):
        reporter.say("the last line")
        raise KeyboardInterrupt
    assert (tmp_path / NAME).read_text().endswith("the last line\n")


def test_a_log_grows_while_the_run_goes_on(tmp_path):
    store = Store(tmp_path)
    store.backend.append(NAME, b"one\n")
    store.backend.append(NAME, b"two\n")
    assert (tmp_path / NAME).read_bytes() == b"one\ntwo\n"


def test_a_log_is_never_written_through_a_link(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    store = Store(tmp_path / "store")
    (tmp_path / "store" / ".runs" / "study").mkdir(parents=True)
    (tmp_path / "store" / NAME).symlink_to(outside)
    with log.logged(store, NAME, Reporter(), interval=60) as reporter:
        reporter.say("a line")
    assert outside.read_text() == "mine"


def test_the_log_of_an_object_store_is_put_whole(s3, tmp_path):
    store = Store(s3("logs"), ObjectBackend(s3("logs")))
    store.backend.append(NAME, b"one\n")
    store.backend.append(NAME, b"two\n")
    entry = store.backend.tree(".runs")["study/run.log"]
    assert store.backend.read({NAME: entry}) == {NAME: b"one\ntwo\n"}
