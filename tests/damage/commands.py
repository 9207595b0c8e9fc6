"""Run a command on damaged files, and collect what it prints and writes."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import NoReturn

from typer.testing import CliRunner

from chexseg.analysis.stored import stored_shards
from chexseg.cli import app
from chexseg.errors import ChexsegError, Mistakes
from tests.damage.place import Place

#: Seconds after which a command hangs.
PATIENCE = 120
#: Times of collections in the trash, and bytes that were read.
_VARYING = re.compile(r"\d{8}T\d{6}|[\d.]+ \w+ read")


class Hung(BaseException):
    """Raised in a command that doesn't end."""


@dataclass(frozen=True)
class Answer:
    """What a command printed and wrote.

    page: the text of its HTML page. stored: result -> file -> SHA-256. fault: the traceback of an
    error that no message explains.
    """

    code: int
    out: str
    errors: str
    files: dict[str, str]
    page: str
    stored: dict[str, dict[str, str]] = field(compare=False)
    fault: str = ""

    @property
    def lines(self) -> list[str]:
        return [*self.out.splitlines(), *self.errors.splitlines(), *self.page.splitlines()]


def arguments(place: Place, command: str, study: str) -> list[str]:
    """Return a command line."""
    file, out = str(place.root / study), ["--out", str(place.root / "out")]
    common = ["--data", str(place.data), "--store", str(place.stored)]
    return {
        "run": ["study", "run", file, *common, "--quiet"],
        "status": ["study", "status", file, *common],
        "report": ["report", file, *common, *out, "--quiet"],
        "compare": ["compare", file, str(place.readers), *common, *out],
        "verify": ["store", "verify", *common[2:], "--quiet"],
        "gc": ["store", "gc", file, *common, "--yes", "--quiet"],
        "predict": ["predict", str(place.result("fit")), str(place.image), *out, "--quiet"],
    }[command]


def ask(place: Place, command: str, study: str = "study.yaml") -> Answer:
    """Run a command."""
    fault, errors = "", ""
    stored_shards._run_lengths.cache_clear()  # each command is a process of its own
    with _patience():
        result = CliRunner().invoke(app, arguments(place, command, study))
    code, error = result.exit_code, result.exception
    if isinstance(error, ChexsegError):
        code = 2
        lines = error.lines if isinstance(error, Mistakes) else (str(error),)
        errors = "".join(f"chexseg: {line}\n" for line in lines)
        if any("\n" in line for line in lines):
            fault = f"a message of several lines: {error}"
    elif error is not None and not isinstance(error, SystemExit):
        fault = "".join(traceback.format_exception(error))
    folder = place.root / "out"
    files = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    page = "".join(path.read_text() for path in sorted(folder.glob("*.html")))
    out, errors = (_VARYING.sub("...", text) for text in (result.stdout, result.stderr + errors))
    return Answer(code, out, errors, files, page, stored(place), fault)


@contextmanager
def _patience() -> Iterator[None]:
    def hang(number: int, frame: FrameType | None) -> NoReturn:
        raise Hung("".join(traceback.format_stack(frame)))

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def stored(place: Place) -> dict[str, dict[str, str]]:
    """Return result -> file -> SHA-256 of all results with a manifest that can be read."""
    results = {}
    for path in place.stored.glob("*/*/manifest.json"):
        with suppress(OSError, ValueError):
            files = json.loads(path.read_bytes())["files"]
            name = path.parent.relative_to(place.stored).as_posix()
            results[name] = {file: entry["sha256"] for file, entry in files.items()}
    return results
