"""Test what progress looks like, with and without a terminal."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from chexseg import progress
from chexseg.progress import Bars, Lines, Reporter

NAME = "irnet p=0.85 fit.loss=dice encoder.architecture=efficientnet_b0 draw 2 trial 0, fit"
HEADLINE = "3 of 9 shared stages, 0 of 11 cells done, 2 running, about 12 min left"


def printed(out: io.StringIO) -> list[str]:
    """Return the lines without the time of day."""
    lines = out.getvalue().splitlines()
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d \S.*", line) for line in lines)
    return [line[9:] for line in lines]


def test_a_foreign_text_moves_no_cursor_and_sets_no_title():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system=None)
    bars = Bars(console)
    foreign = "[bold]fit\x1b]0;title\x07\x1b[2J"
    bars.headline(foreign)
    bars.update(foreign, 1, 2, "images")
    bars.finish(foreign, foreign)
    bars.close()
    Lines(console).say(foreign)
    assert "[bold]fit?]0;title?" in out.getvalue()
    assert "\x1b]0" not in out.getvalue() and "\x1b[2J" not in out.getvalue()


def test_each_plain_line_begins_with_the_time_of_day():
    out = io.StringIO()
    lines = Lines(Console(file=out))
    lines.say("one [bold]\ntwo")
    lines.finish("fit", "computed in 3 s")
    lines.headline("1 of 2 cells done\nbest selection mIoU 0.3")
    assert printed(out) == [
        "one [bold]",
        "two",
        "fit: computed in 3 s",
        "1 of 2 cells done",
        "best selection mIoU 0.3",
    ]


def test_a_line_of_the_headline_that_stays_the_same_is_printed_once(monkeypatch):
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    out = io.StringIO()
    lines = Lines(Console(file=out))
    for text in ("1 of 3\nbest 0.3", "1 of 3\nbest 0.3", "2 of 3\nbest 0.3"):
        lines.headline(text)
    assert printed(out) == ["1 of 3", "best 0.3", "2 of 3"]


def test_a_long_silence_is_broken_by_a_line_on_what_goes_on(monkeypatch):
    monkeypatch.setattr(progress, "SILENCE", 0.0)
    out = io.StringIO()
    lines = Lines(Console(file=out))
    lines.doing("starting Ray")
    until = time.monotonic() + 60
    while not out.getvalue() and time.monotonic() < until:
        time.sleep(0.05)
    lines.close()
    assert set(printed(out)) == {"starting Ray: 0 s"}


def test_nothing_is_said_before_anything_goes_on_nor_after_it(monkeypatch):
    monkeypatch.setattr(progress, "SILENCE", 0.0)
    out = io.StringIO()
    lines = Lines(Console(file=out))
    lines.doing("")
    time.sleep(0.6)
    lines.close()
    assert out.getvalue() == ""


@pytest.mark.parametrize("width", [80, 160])
def test_a_bar_shows_name_count_rate_and_time_left(width, monkeypatch):
    clock = iter(range(1000))
    out = io.StringIO()
    bars = Bars(Console(file=out, force_terminal=True, width=width, height=24))
    monkeypatch.setattr(bars.progress, "get_time", lambda: float(next(clock)))
    try:
        bars.headline(HEADLINE)
        for done in (0, 4800, 9600):
            note = {"epoch": 3, "loss": 0.512}
            bars.update(NAME, done, 64000, "samples", note)
        shown = io.StringIO()
        Console(file=shown, width=width).print(bars.progress.get_renderable())
    finally:
        bars.close()
    head, row, *_ = shown.getvalue().splitlines()
    assert head.rstrip() == HEADLINE
    assert len(row) <= width
    assert row.startswith("irnet p=0.85") and "\N{BOX DRAWINGS HEAVY HORIZONTAL}" in row
    assert "9,600/64,000 samples" in row
    assert re.search(r" [\d,]+/s +\d+ (s|min)\b", row)
    assert ("loss 0.512" in row) == (width == 160), "figures have room on a wide terminal only"


def test_a_bar_uses_the_short_name():
    bars = Bars(Console(file=io.StringIO(), force_terminal=True, width=80))
    bars.short_name = lambda name: name.replace(" trial 0", "")
    try:
        bars.update("full trial 0, fit", 1, 2, "samples")
        (task,) = bars.progress.tasks
        assert task.description == "full, fit"
        bars.finish("full trial 0, fit", "done")
        assert not bars.progress.tasks
    finally:
        bars.close()


def test_a_reporter_can_be_used_without_showing_anything():
    reporter = Reporter()
    reporter.doing("x")
    reporter.headline("x")
    assert reporter.short_name("full trial 0, fit") == "full trial 0, fit"
