"""Read the pages of the documentation and run their fenced blocks.

- `text` is output or a drawing. A line of `...` stands for any number of lines.
- `yaml` is a study file, whose first line is a comment with its name.
- `python` with a path in its first line is a file to write; other Python is executed.
- `diff` with file names is a change of this repository. Without file names it is a mistake in the
  study file before it, and the next block is the message: test_write_a_study.py checks these.
- `sh` is commands. Output may follow; a message of chexseg means exit code 2.
- `json` is parsed.

A comment `<!-- needs: cloud -->` (or `download`, `gpu`) before a block says that no test can run
it. The commands of such a block are only parsed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import plain_install

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = {"text", "yaml", "python", "diff", "sh", "bash", "console", "json", "dockerfile"}
NEEDS = {"cloud", "download", "gpu"}
BLOCK = re.compile(
    r"(?:^ *<!-- needs: (?P<needs>.*) -->\n)?^(?P<indent> *)```(?P<language>.*)\n"
    r"(?P<text>(?:.*\n)*?)^(?P=indent)```$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced block. needs: the word of its mark, or None."""

    page: str
    line: int
    language: str
    text: str
    needs: str | None

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def path(self) -> str | None:
        """Return the file name in the comment of the first line."""
        match = re.match(r"# (\S+\.(?:yaml|py))\n", self.text)
        return match and match[1]


def tracked() -> list[str]:
    """Return the files of the repository: tracked, or new and not ignored."""
    answer = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [name for name in answer.stdout.splitlines() if (ROOT / name).is_file()]


PAGES_AT_THE_ROOT = ("README.md", "CONTRIBUTING.md")


def pages() -> list[str]:
    """Return README, CONTRIBUTING and all pages below docs."""
    return [
        name
        for name in tracked()
        if name.endswith(".md") and (name.startswith("docs/") or name in PAGES_AT_THE_ROOT)
    ]


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text()
    return [
        Block(
            page,
            text.count("\n", 0, match.start("indent")) + 1,
            match["language"].strip(),
            "".join(line[len(match["indent"]) :] for line in match["text"].splitlines(True)),
            match["needs"],
        )
        for match in BLOCK.finditer(text)
    ]


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command of chexseg or Ray, also of those that `ray job` submits."""
    for line in text.replace("\\\n", " ").splitlines():
        match = re.match(r"(?:\$ )?(?:\w+=\S+ )*((?:chexseg|ray) .*)", line)
        if not match:
            continue
        words = shlex.split(match[1], comments=True)
        yield words
        if "--" in words:
            yield words[words.index("--") + 1 :]


def mistake(study: Path, diff: str) -> str:
    """Return a study file's text with the lines of a diff block replaced."""
    old, new = (
        "".join(line[1:] + "\n" for line in diff.splitlines() if line[0] == sign) for sign in "-+"
    )
    text = study.read_text()
    assert text.count(old) == 1, f"{study.name} has not one: {old}"
    return text.replace(old, new)


class Reader:
    """Does in one directory what a page says, with a copy of this repository's files.

    directory: a new directory. begin: a directory whose other files the page starts with. ray: let
    its runs start Ray, as a reader's do, and not train in the command's own process.
    """

    def __init__(self, directory: Path, begin: Path | None = None, ray: bool = True) -> None:
        self.directory, self.environment = directory, dict(os.environ)
        if begin:
            shutil.copytree(begin, directory, copy_function=_link_if_large, symlinks=True)
        for name in tracked():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, directory / name)
        programs = directory / ".programs"
        programs.mkdir(exist_ok=True)
        module = "chexseg" if ray else "tests.in_process"
        for name, command in {"chexseg": f"-m {module} ", "python": ""}.items():
            (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {command}"$@"\n')
            (programs / name).chmod(0o755)
        self.environment |= {
            "PATH": f"{programs}:{self.environment['PATH']}",
            "PYTHONPATH": f"{plain_install.HIDDEN}:{directory}",
            "COLUMNS": "100",
        }

    def read(self, page: str) -> None:
        """Do what each block says that has no mark. Raises `AssertionError`."""
        todo = [block for block in blocks(page) if not block.needs]
        for number, block in enumerate(todo):
            following = todo[number + 1] if number + 1 < len(todo) else None
            output = following.text if following and following.language == "text" else ""
            if block.path:
                path = self.directory / block.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text)
            elif block.language == "diff" and block.text.startswith("--- "):
                self.run("git apply -", block, "", stdin=block.text)
            elif block.language == "python":
                self.run("python -", block, output, stdin=block.text)
            elif block.language in ("sh", "bash", "console"):
                self.run(re.sub(r"^\$ ", "", block.text, flags=re.MULTILINE), block, output)

    def run(self, command: str, block: Block, output: str, stdin: str = "") -> None:
        """Run a block's command and compare what it prints with the page."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.directory, env=self.environment, input=stdin, text=True, timeout=900,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        # A plan may be shown before its mistakes.
        failure = any(line.startswith("chexseg: ") for line in output.splitlines())
        assert done.returncode == (2 if failure else 0), f"{block.name}\n{done.stdout}"
        printed = list(map(comparable, done.stdout.splitlines()))
        for line in map(comparable, output.splitlines()):
            assert line == "..." or line in printed, f"{block.name}: {line}\n{done.stdout}"


def comparable(line: str) -> str:
    """Return a line without what differs between two machines: times, scores and widths."""
    line = re.sub(r"^\d\d:\d\d:\d\d ", "", line)  # which a terminal doesn't show
    line = re.sub(r"~?\d[\d.]* (?:s|min|h)\b", "TIME", line)
    line = re.sub(r"[-+±]?\d*\.\d+\*?|\b\d+e-\d+", "NUMBER", line)
    line = re.sub(r"[-─]{3,}", "---", line)
    return " ".join(line.split())


def _link_if_large(source: str, target: str) -> None:
    (os.link if os.path.getsize(source) > 2**20 else shutil.copy2)(source, target)
