"""Test that each mistake of docs/how-to/write-a-study.md gives the message that the page quotes.

A diff block is a mistake made in the study file before it, and the next block is the message.
test_code_blocks.py runs the page's commands, with Ray's tests; this takes no process.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from chexseg.config import study_file
from chexseg.errors import UserError
from tests.docs.pages import Block, blocks, mistake

BLOCKS = blocks("docs/how-to/write-a-study.md")
MISTAKES = [number for number, block in enumerate(BLOCKS) if block.language == "diff"]


def write(block: Block) -> Path:
    path = Path(block.path)
    path.write_text(block.text)
    return path


@pytest.mark.parametrize("number", MISTAKES, ids=lambda number: BLOCKS[number].name)
def test_a_mistake_gives_the_quoted_message(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = [write(block) for block in BLOCKS[:number] if block.language == "yaml"][-1]
    path.write_text(mistake(path, BLOCKS[number].text))
    with pytest.raises(UserError) as caught:
        study_file.load(path)
    assert f"chexseg: {caught.value}\n" == BLOCKS[number + 1].text


def test_the_page_shows_mistakes():
    assert len(MISTAKES) >= 3
