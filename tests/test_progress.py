"""Test what progress looks like without a terminal."""

from __future__ import annotations

import io
import re

from rich.console import Console

from chexseg.progress import Lines


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
