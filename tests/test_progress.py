"""Test what progress looks like without a terminal."""

from __future__ import annotations

import io
import re

from rich.console import Console

from chexseg.progress import Bars, Lines


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
    lines.headline("1 of 2 cells done")
    printed = out.getvalue().splitlines()
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d \S.*", line) for line in printed)
    assert [line[9:] for line in printed] == [
        "one [bold]",
        "two",
        "fit: computed in 3 s",
        "1 of 2 cells done",
    ]
