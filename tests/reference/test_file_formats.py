"""Test docs/reference/file-formats.md: its inputs and its examples are as the code reads them.

`tests/stages/test_file_formats.py` compares its shards with what the stages write.
"""

from __future__ import annotations

import json
import re

import numpy as np

from chexseg.data import chexlocalize, chexpert, images
from chexseg.evaluation import hit_rate, protocol
from chexseg.models import segmenter
from chexseg.pathologies import PATHOLOGIES
from tests.reference.pages import read

PAGE = read("reference/file-formats.md")
MASK_FILE, POINTS, SEGMENTER = re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def rows(heading: str, columns: int) -> list[tuple[str, ...]]:
    """Return the cells in backquotes of the first table below a heading."""
    section = PAGE.partition(f"# {heading}\n")[2]
    table = re.search(r"^\|(?:.*\n\|)*.*$", section, re.MULTILINE)
    assert table
    found = [re.findall(r"`([^`]+)`", line) for line in table[0].splitlines()[2:]]
    return [tuple(cells[:columns]) for cells in found]


def test_layouts_are_those_of_the_code_in_the_same_order():
    assert rows("The data set", 3) == [
        (split, *layout) for split, layouts in chexpert.LAYOUTS.items() for layout in layouts
    ]


def test_mask_files_are_those_of_the_code():
    assert [name for (name,) in rows("Mask files (CheXlocalize)", 1)] == list(
        chexlocalize.FILES.values()
    )


def test_image_suffixes_are_those_of_the_code():
    section = PAGE.partition("### Images")[2].partition("###")[0]
    assert tuple(re.findall(r"`(\.\w+)`", section)) == images.ENDINGS


def test_the_example_of_a_mask_file_is_read(tmp_path):
    path = tmp_path / "masks.json"
    path.write_text(MASK_FILE)
    mask_file = chexlocalize.read(path)
    (image_id,) = mask_file
    assert mask_file.masks(image_id, ["Edema"]).sum() == 5


def test_the_example_of_points_is_read(tmp_path):
    masks, points = tmp_path / "masks.json", tmp_path / "points.json"
    masks.write_text(MASK_FILE)
    points.write_text(POINTS)
    _, hits_IK, notes, _ = hit_rate.hits(chexlocalize.read(masks), points)
    assert hits_IK[0, PATHOLOGIES.index("Edema")] == 1
    assert not notes


def test_the_example_of_a_segmenter_is_one(tmp_path):
    (tmp_path / "segmenter.json").write_text(SEGMENTER)
    assert segmenter.describe(tmp_path / "segmenter.safetensors") == json.loads(SEGMENTER)


def test_the_files_of_evaluate_are_those_of_the_code():
    values = np.zeros((1, len(PATHOLOGIES)))
    names = protocol.tables("NAME", ["a"], values, values)
    table = PAGE.partition("NAME\nis")[2]
    assert re.findall(r"^\| `(NAME_\w+\.csv)`", table, re.MULTILINE) == list(names)
