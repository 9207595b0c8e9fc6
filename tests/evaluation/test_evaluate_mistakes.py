"""Test the error lines of `evaluate` for mistakes in mask files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from chexseg.data import chexlocalize
from chexseg.errors import UserError
from chexseg.evaluation.evaluate import evaluate
from tests.evaluation.test_evaluate import METRICS, only, random_masks, write


def refuses(gt: Path, pred: Path, metric: str, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        evaluate(gt, pred, metric)
    message = str(caught.value)
    assert "\n" not in message and ("allowed" in message or "expected" in message)
    assert all(word in message for word in words), message


def test_mistakes_are_named(tmp_path):
    path = write(tmp_path / "gt.json", random_masks(5))
    refuses(path, path, "per-pixel", "--metric", "'per-pixel'", "pooled, per-image, hit-rate")
    refuses(path, tmp_path / "none.json", "pooled", "none.json")
    other = random_masks(5)
    other["image2"] = {"Edema": np.ones((21, 22), dtype=bool)}
    refuses(
        path,
        write(tmp_path / "pred.json", other),
        "pooled",
        "pred.json: image2",
        "21 x 22",
        "21 x 21",
        "gt.json",
    )
    damaged = json.loads(path.read_text())
    damaged["image4"]["Edema"] = {
        "size": [16, 16],
        "counts": chexlocalize.encode(np.ones((17, 16), dtype=bool))["counts"],
    }
    (tmp_path / "damaged.json").write_text(json.dumps(damaged))
    refuses(
        path,
        tmp_path / "damaged.json",
        "per-image",
        "damaged.json: image4: Edema",
        "272 pixels",
        "256",
    )
    (tmp_path / "empty.json").write_text("{}")
    refuses(tmp_path / "empty.json", path, "pooled", "empty.json", "names no image")
    for metric in METRICS:
        refuses(path, tmp_path / "empty.json", metric, "empty.json", "found no image", "gt.json")
    elsewhere = write(
        tmp_path / "elsewhere.json", {f"x/{name}": entry for name, entry in random_masks(5).items()}
    )
    for metric in METRICS:
        refuses(path, elsewhere, metric, "elsewhere.json", "'x/image0'", "'image0'")
    edema = write(tmp_path / "edema.json", only(random_masks(5), ("Edema",)))
    lesion = write(tmp_path / "lesion.json", only(random_masks(5), ("Lung Lesion",)))
    refuses(
        edema,
        lesion,
        "pooled",
        "lesion.json: found no pathology of",
        "edema.json: only Lung Lesion; expected: at least one of Edema",
    )
    twice = write(
        tmp_path / "twice.json", random_masks(5) | {"image0.jpg": random_masks(5)["image0"]}
    )
    refuses(path, twice, "pooled", "twice.json: found 'image0' and 'image0.jpg' for 'image0'")
