"""Test docs/reference/file-formats.md: files and shards of the stages are as it describes them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from chexseg.data import shards
from chexseg.pathologies import OBSERVATIONS, PATHOLOGIES
from chexseg.stages import distil, score
from chexseg.stages.configs import DistilConfig, ScoreConfig
from tests.reference.pages import read
from tests.stages.conftest import SIZE, Results

PAGE = read("reference/file-formats.md")
#: Directory of the fixture `results` -> its stage.
STAGE_OF = {"train": "ingest", "valid": "ingest", "test": "ingest"}


@pytest.fixture(scope="module")
def outputs(results: Results) -> dict[str, list[Path]]:
    """Return stage -> directories of its results, all stages that need no import or MoCo."""
    segmenter = results.paths["fit"]
    inputs = {"test": results.paths["test"], "segmenter": segmenter}
    results.run("documented score", score, ScoreConfig(), inputs)
    teacher = {"train": results.paths["train"], "teacher": segmenter}
    results.run("documented distil", distil, DistilConfig(fraction=0.5), teacher)
    out: dict[str, list[Path]] = {}
    for name, path in results.paths.items():
        stage = STAGE_OF.get(name, name.removeprefix("documented "))
        out.setdefault(stage, []).append(path)
    return out


def sections() -> dict[tuple[str, str], str]:
    """Return (stage, file pattern) -> text of every documented kind of shard."""
    parts = re.split(r"^### `(\w+)`: `(.+)`$", PAGE.partition("\n## Outputs")[0], flags=re.M)
    return {
        (stage, pattern): text
        for stage, pattern, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)
    }


def documented_columns(text: str) -> dict[str, str]:
    """Return column -> type of the table in a section."""
    columns = {}
    for name, kind in re.findall(r"^\| (.+?) \| (\S+?(?:\[.*\])?) \| ", text, re.MULTILINE):
        names = OBSERVATIONS if name == "the 14 observations" else re.findall(r"`(\w+)`", name)
        columns |= dict.fromkeys(names, kind)
    return columns


def actual_columns(path: Path) -> dict[str, str]:
    """Return column -> type of a shard, with sizes in the page's letters."""
    schema: pa.Schema = shards.read(path).schema
    arrays: dict[str, Any] = shards.metadata(path)["arrays"]
    columns = {}
    for column in schema:
        kind = str(column.type)
        if column.name in arrays:
            shape = arrays[column.name]["shape"]
            pathologies = ["K"] if shape[0] == len(PATHOLOGIES) and len(shape) != 2 else []
            sides = shape[len(pathologies) :]
            letters = pathologies + (
                ["S", "S"] if sides == [SIZE, SIZE] else ["h", "w"][: len(sides)]
            )
            kind = f"{arrays[column.name]['dtype']}[{', '.join(letters)}]"
        columns[column.name] = kind
    return columns


@pytest.mark.parametrize(("stage", "pattern"), sections())
def test_shards_have_the_documented_columns_and_metadata(outputs, stage, pattern):
    text = sections()[stage, pattern]
    (line,) = re.findall(r"^Metadata: (.*)$", text, re.MULTILINE)
    paths = [path for directory in outputs[stage] for path in sorted(directory.glob(pattern))]
    assert paths
    for path in paths:
        assert actual_columns(path) == documented_columns(text)
        assert set(shards.metadata(path)) - {"arrays"} == set(re.findall(r"`(\w+)`", line))


def test_every_kind_of_shard_is_documented(outputs):
    documented = sections()
    for stage, directories in outputs.items():
        for directory in directories:
            for path in directory.rglob("*.parquet"):
                name = re.sub(r"part-\d+", "part-*", path.relative_to(directory).as_posix())
                same = "saliency" if name == "counts.parquet" and stage == "irnet" else stage
                assert ("score" if name == "predictions.parquet" else same, name) in documented


def test_predictions_and_counts_that_share_a_section_have_its_columns(outputs):
    for name, section in (("counts", "saliency"), ("predictions", "score")):
        columns = documented_columns(sections()[section, f"{name}.parquet"])
        for stage in ("saliency", "irnet"):
            (directory,) = outputs[stage]
            assert actual_columns(directory / f"{name}.parquet") == columns


def test_stages_write_the_documented_files(outputs):
    table = PAGE.partition("## Files of the stages")[2].partition("\nWeights are")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE))
    patterns = {stage: re.findall(r"`([\w.*/-]+\W?)`", cell) for stage, cell in rows.items()}
    for stage, cell in rows.items():
        if more := re.match(r"those of `(\w+)`", cell):
            patterns[stage] = patterns[stage][1:] + patterns[more[1]]
    for stage, directories in outputs.items():
        for directory in directories:
            names = {path.relative_to(directory).as_posix() for path in directory.rglob("*.*")}
            names = {name for name in names if not name.rpartition("/")[2].startswith(".")}
            expected = [re.sub(r"/$", "/part-*.parquet", pattern) for pattern in patterns[stage]]
            matched = {name for name in names for one in expected if Path(name).match(one)}
            assert names == matched
            # Of `train` no image has expert masks.
            needed = [one for one in expected if not one.startswith("masks/")]
            assert all(any(Path(name).match(one) for name in names) for one in needed)
