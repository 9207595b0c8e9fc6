"""Build a synthetic study: blobs as expert masks, and predictions with a known error."""

from __future__ import annotations

import dataclasses
from typing import get_args

import numpy as np
import pandas as pd

from chexseg.analysis import baselines
from chexseg.analysis.baselines import ExpertMasks
from chexseg.analysis.results import StudyResults
from chexseg.config.study import Reproduced
from chexseg.pathologies import PATHOLOGIES

SIDE = 96


def ellipse(centre: tuple[float, float], radius: tuple[float, float]) -> np.ndarray:
    y_HW, x_HW = np.mgrid[:SIDE, :SIDE] / SIDE
    return ((y_HW - centre[0]) / radius[0]) ** 2 + ((x_HW - centre[1]) / radius[1]) ** 2 < 1


def film(seed: int) -> np.ndarray:
    """Return an image like a frontal radiograph: bright body, dark lungs, a heart, ribs, noise."""
    generator = np.random.default_rng(seed)
    y_HW, x_HW = np.mgrid[:SIDE, :SIDE] / SIDE
    out_HW = 150 * ellipse((0.62, 0.5), (0.6, 0.47)).astype(float) + 15
    for side in (0.29, 0.71):
        out_HW -= (
            95
            * ellipse((0.47, side), (0.34, 0.165))
            * (1 - 0.22 * (np.sin(y_HW * 55 + 4 * (x_HW - side) ** 2) > 0.3))
        )
    out_HW += 60 * ellipse((0.62, 0.56), (0.17, 0.17)) + 40 * (np.abs(x_HW - 0.5) < 0.035)
    return np.clip(out_HW + generator.normal(0, 7, out_HW.shape), 0, 255).astype(np.uint8)


def build_study(
    pathologies=PATHOLOGIES,
    p_values=(0, 0.5, 0.9, 1),
    trials=2,
    images=40,
    students=True,
    absent=(),
    drop=("irnet p=0.9 trial 1",),
) -> StudyResults:
    """Return a study whose quality rises with p and falls at p = 1.

    `absent` pathologies have no expert pixel. Cells in `drop` have failed.
    """
    pathologies = tuple(pathologies)
    image_ids = tuple(
        f"patient{64541 + i // 2}_study1_view{1 + i % 2}_frontal" for i in range(images)
    )
    true_IKHW = np.zeros((images, len(pathologies), SIDE, SIDE), dtype=bool)
    shapes = {}
    for i in range(images):
        generator = np.random.default_rng(i)
        for k, name in enumerate(pathologies):
            if name not in absent and generator.random() < 0.3:
                centre = generator.uniform((0.25, 0.2), (0.75, 0.8))
                shapes[i, k] = (centre, generator.uniform(0.05, 0.17, 2))
                true_IKHW[i, k] = ellipse(*shapes[i, k])

    quality = {0: 0.35, 1: 0.7}
    rows, missing = [], []
    for weak in ("cam", "irnet"):
        for p in p_values:
            if p == 1 and weak == "irnet":
                continue
            for trial in range(trials):
                kind = None if p == 1 else weak
                name = f"{kind} p={p:g} trial {trial}" if kind else f"full trial {trial}"
                if name in drop:
                    missing.append(
                        {
                            "name": name,
                            "state": "failed",
                            "reason": "fit: RuntimeError: loss is not finite",
                        }
                    )
                    continue
                method = {0: "weak", 1: "full"}.get(p, "mixed")
                level = quality.get(p, 0.68 + 0.12 * p) - (0.04 if weak == "irnet" and p < 1 else 0)
                rows.append(
                    (name, method, kind, float(p), trial, None if p == 1 else 100, np.nan, level)
                )
    if students:
        rows += [
            (f"student {f:g} trial 0", "student", None, 1.0, 0, None, f, 0.6 + f)
            for f in (0.01, 0.1)
        ]
    levels = [row[-1] for row in rows]

    def prediction(index: int, i: int) -> np.ndarray:
        generator = np.random.default_rng([index, i])
        masks_KHW = np.zeros((len(pathologies), SIDE, SIDE), dtype=bool)
        for k in range(len(pathologies)):
            centre, radius = shapes.get((i, k), ((0.5, 0.5), (0.06, 0.06)))
            if (i, k) in shapes or generator.random() < 0.08:
                shift = generator.normal(0, 0.16 * (1 - levels[index]), 2)
                masks_KHW[k] = ellipse(
                    centre + shift, np.asarray(radius) * generator.uniform(0.8, 1.3)
                )
        return masks_KHW

    counts_CIK3 = np.zeros((len(rows), images, len(pathologies), 3), dtype=np.int64)
    for index in range(len(rows)):
        for i in range(images):
            predicted_KHW = prediction(index, i)
            for axis, masks in enumerate(
                (predicted_KHW & true_IKHW[i], predicted_KHW, true_IKHW[i])
            ):
                counts_CIK3[index, i, :, axis] = masks.sum(axis=(1, 2))
    cells = pd.DataFrame(
        [
            {
                "cell": f"{index:064x}",
                "name": name,
                "method": method,
                "weak": weak,
                "p": p,
                "trial": trial,
                "init": "chexpert",
                "weak_images": weak_images,
                "fraction": fraction,
                "epochs": 20,
                "other": "",
                "selection_miou": level / 2,
                "steps": 900.0,
                "upstream": "",
                "draw": 0,
            }
            for index, (name, method, weak, p, trial, weak_images, fraction, level) in enumerate(
                rows
            )
        ]
    )
    stages = [
        ("ingest", 4.2),
        ("classify", 61.0),
        ("saliency", 3.5),
        ("irnet", 40.1),
        ("pretrain", 20.0),
    ]
    stages += [("fit", 6.0 + index / 10) for index in range(len(rows))] + [("score", 0.4)] * len(
        rows
    )
    return StudyResults(
        reproduces=get_args(Reproduced),
        name="demo",
        title="Expert and weak labels mixed with probability p, on synthetic radiographs",
        pathologies=pathologies,
        image_ids=image_ids,
        cells=cells,
        counts_CIK3=counts_CIK3,
        missing=pd.DataFrame(missing, columns=["name", "state", "reason"]),
        stages=pd.DataFrame(
            [
                {"stage": s, "key": f"{n:064x}", "seconds": t, "host": "laptop", "settings": "{}"}
                for n, (s, t) in enumerate(stages)
            ]
        ),
        predictions=lambda index, image_id: prediction(index, image_ids.index(image_id)),
        image=lambda image_id: (
            film(image_ids.index(image_id)),
            true_IKHW[image_ids.index(image_id)],
        ),
    )


def with_baselines(results: StudyResults, trained_on: int = 20) -> StudyResults:
    """Return a study with baselines, made from the masks of its first images."""
    ids = results.image_ids
    masks_IKHW = np.stack([results.image(image_id)[1] for image_id in ids])
    flat = masks_IKHW.reshape(*masks_IKHW.shape[:2], -1)
    bits_IKB = np.packbits(flat, axis=-1, bitorder="little")
    scored = ExpertMasks(ids, tuple(name.partition("_")[0] for name in ids), bits_IKB, SIDE)
    counts = baselines.mean_mask_counts(scored.of(ids[:trained_on]), scored)
    counts[baselines.SQUARE] = baselines.square_counts(scored)
    return dataclasses.replace(results, baselines=counts)
