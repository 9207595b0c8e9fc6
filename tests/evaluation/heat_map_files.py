"""Write files of points and heat maps for the pointing game."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chexseg.errors import UserError
from chexseg.evaluation.evaluate import evaluate

FIRST, SECOND = "patient1_study1_view1_frontal", "patient2_study1_view1_frontal"
HEIGHT, WIDTH = 40, 60


def write_points(path: Path, points: Any) -> Path:
    path.write_text(json.dumps(points))
    return path


def write_map(
    folder: Path, image_id: str, name: str, scores_hw: np.ndarray, ending: str = "pkl"
) -> Path:
    """Write a heat map: as published, a pickle with other entries too, or a bare array."""
    import torch

    folder.mkdir(exist_ok=True)
    path = folder / f"{image_id}_{name}_map.{ending}"
    if ending == "npy":
        np.save(path, scores_hw)
        return path
    heat_map = {
        "prob": 0.25,
        "task": name,
        "gt": 1,
        "cxr_img": torch.zeros(3, 8, 8),
        "cxr_dims": (WIDTH, HEIGHT),
    }
    with path.open("wb") as file:
        pickle.dump(
            {"map": torch.tensor(scores_hw, dtype=torch.float32)[None, None], **heat_map}, file
        )
    return path


def peak(row: int, column: int, shape: tuple[int, int] = (4, 6)) -> np.ndarray:
    scores_hw = np.zeros(shape)
    scores_hw[row, column] = 1
    return scores_hw


def refused(truth: Path, pred: Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        evaluate(truth, pred, "hit-rate")
    message = str(caught.value)
    assert "\n" not in message and ("allowed" in message or "expected" in message)
    assert all(word in message for word in words), message
