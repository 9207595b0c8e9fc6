"""Prepare the browser of all test images: scores for the page, and a file of masks per image.

The page loads such a file, a script, when its image comes into view: a page that is opened from a
disk may load scripts, but not read files.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from PIL import Image

from chexseg.analysis.study_scores import StudyScores
from chexseg.data import chexlocalize
from chexseg.drawing.masks import encoded
from chexseg.errors import counted
from chexseg.progress import QUIET, Reporter
from chexseg.report.page import image_choice
from chexseg.report.page.environment import data_uri
from chexseg.report.page.image_choice import Panel

#: Cells whose masks can be looked at: a file has 40 kB with ten.
MOST_CELLS = 10
#: Quality of the radiographs (JPEG), up to 95.
QUALITY = 80


def browser(
    anchor: str, scores: StudyScores, progress: Reporter = QUIET
) -> tuple[dict[str, Any] | None, dict[str, bytes]]:
    """Return the browser's view and its files by path; None and {} without images or predictions.

    The masks are those of one cell of each arm, chosen on the selection images; arms of the paper's
    roles first.
    """
    results = scores.results
    indices = cells(scores)
    if results.image is None or results.predictions is None or not indices:
        return None, {}
    folder = f"figures/{anchor}-images"
    names = [str(name) for name in results.cells["name"].iloc[indices]]
    files, task = {}, f"{results.name}: image browser"
    for number, image_id in enumerate(results.image_ids):
        pixels_HW, expert_KHW = results.image(image_id)
        radiograph = Image.fromarray(np.asarray(pixels_HW, dtype=np.uint8))
        image = {
            "film": data_uri(encoded(radiograph, "jpeg", quality=QUALITY)),
            "size": pixels_HW.shape,
            "experts": _run_lengths(expert_KHW),
            "cells": [
                masks if isinstance(masks, str) else _run_lengths(masks)
                for index, name in zip(indices, names, strict=True)
                for masks in [image_choice.predicted(results, Panel(name, "", index), image_id)]
            ],
        }
        text = f"showImage({json.dumps(anchor)}, {number}, {json.dumps(image)});\n"
        files[f"{folder}/{number:05d}.js"] = text.encode()
        progress.update(task, number + 1, len(results.image_ids), "images")
    progress.finish(task, counted(len(files), "image"))
    true_IK = results.counts_CIK3[0, :, :, 2]
    index = {
        "study": anchor,
        "folder": folder,
        "images": results.image_ids,
        "pathologies": results.pathologies,
        "cells": names,
        "drawn": [np.flatnonzero(true_K).tolist() for true_K in true_IK],
        "iou": _millionths(results.counts_CIK3[indices]).tolist(),
    }
    view = {
        "index": json.dumps(index, separators=(",", ":")),
        "pathologies": results.pathologies,
        "cells": names,
        "left_out": len(scores.arms) - len(indices),
        "folder": folder,
        "megabytes": sum(map(len, files.values())) / 1e6,
    }
    return view, files


def cells(scores: StudyScores) -> list[int]:
    """Return the cells of the browser: the best of each arm on the selection images."""
    roles = [panel.index for panel in image_choice.columns(scores) if panel.index is not None]
    ranked = sorted(scores.arms, key=lambda arm: -np.nan_to_num(arm.selection, nan=-1.0))
    best = [image_choice.best_cell(scores.results, arm) for arm in ranked]
    return list(dict.fromkeys([*roles, *best]))[:MOST_CELLS]


def _run_lengths(masks_KHW: np.ndarray) -> dict[int, str]:
    """Return index -> COCO run lengths of the masks that aren't empty."""
    drawn = np.flatnonzero(masks_KHW.any(axis=(1, 2))).tolist()
    return {k: chexlocalize.encode(masks_KHW[k])["counts"] for k in drawn}


def _millionths(counts_CIK3: np.ndarray) -> np.ndarray:
    """Return IoU_ICK in millionths, -1 where neither experts nor the cell have a pixel.

    The page shows two decimals. Of thousandths, one of twenty would be rounded to another one.
    """
    both_CIK, predicted_CIK, true_CIK = np.moveaxis(counts_CIK3.astype(np.int64), -1, 0)
    union_CIK = predicted_CIK + true_CIK - both_CIK
    iou_CIK = np.rint(1e6 * both_CIK / np.maximum(union_CIK, 1)).astype(np.int64)
    return np.where(union_CIK > 0, iou_CIK, -1).transpose(1, 0, 2)
