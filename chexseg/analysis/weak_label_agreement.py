"""Weak labels against the experts' masks of `valid`: what helps, and what doesn't. Rows and sentences; no drawing.

Verdicts use the held-out images, those on which no CAM threshold was chosen. On the others the CAMs have an advantage over
a random box and over IRNet, whose threshold is fixed; how large it is, nobody knows for a pathology that few images show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from chexseg.analysis.published import METHODS
from chexseg.analysis.results import Classifier, StudyResults, WeakLabels
from chexseg.analysis.statistics.inference import FEWEST_PATIENTS, holm
from chexseg.analysis.statistics.scores import (
    Interval,
    bootstrap_iou,
    bootstrap_t,
    miou,
    patient_of,
    pooled_iou,
)
from chexseg.pathologies import COMPETITION, OBSERVATIONS

MEAN = "Mean"
BOX = "random box"
BETTER, WORSE, UNDECIDED = "better", "worse", "undecided"
NO_EXPERT = "no expert mask in valid"
NOTHING_HELD_OUT = "no image is held out"
NOT_HELD_OUT = "no held-out expert mask"
ONE_CLASS = "only one class is labelled in valid"


@dataclass(frozen=True)
class LabelSet:
    """Weak labels of one classifier, each kind at most once, CAMs first. text: what tells it from the study's other sets."""

    labels: tuple[WeakLabels, ...]
    text: str = ""

    def named(self, kind: str) -> WeakLabels | None:
        return next((found for found in self.labels if found.kind == kind), None)

    def start_of(self, labels: WeakLabels) -> WeakLabels | None:
        """The CAMs that IRNet's labels started from."""
        return next((found for found in self.labels if found.key == labels.start), None)


def label_sets(results: StudyResults) -> list[LabelSet]:
    """The study's sets that have counts: for each IRNet one with its CAMs, or the CAMs alone where there is no IRNet.

    CAMs of other kinds but the same settings stand in the first set that has these. IRNet whose CAMs have no counts is alone.
    """
    known = [labels for labels in results.weak_labels if labels.counts is not None]
    groups: dict[str, list[WeakLabels]] = {}
    for labels in known:
        if labels.kind != "irnet":
            groups.setdefault(
                str(sorted({**labels.settings, "saliency.kind": ""}.items())), []
            ).append(labels)
    cams_keys = {labels.key for labels in known}
    sets = [
        (labels,) for labels in known if labels.kind == "irnet" and labels.start not in cams_keys
    ]
    for cams in groups.values():
        keys = {labels.key for labels in cams}
        spread = [labels for labels in known if labels.kind == "irnet" and labels.start in keys]
        sets += [
            (*(cams if n == 0 else [c for c in cams if c.key == s.start]), s)
            for n, s in enumerate(spread)
        ]
        sets += [] if spread else [tuple(cams)]
    order = list(METHODS)
    ordered = [tuple(sorted(found, key=lambda labels: order.index(labels.kind))) for found in sets]
    return [LabelSet(found, text) for found, text in zip(ordered, _texts(ordered), strict=True)]


def _texts(sets: Sequence[tuple[WeakLabels, ...]]) -> list[str]:
    """For each set the settings, and the CAMs that IRNet started from, in which it differs from another."""
    said = []
    for found in sets:
        told: dict[str, object] = {}
        for labels in found:
            told |= labels.settings
        start = next((c for labels in found for c in found if c.key == labels.start), None)
        told["saliency.kind"] = METHODS[start.kind] if start else None
        said.append(told)
    every = list(dict.fromkeys(name for told in said for name in told))
    varied = [name for name in every if len({str(told[name]) for told in said if name in told}) > 1]
    words = {"saliency.kind": "IRNet from", "ingest.size": "size"}
    return [
        # One seed of a study is the seed of all its stages.
        ", ".join(
            dict.fromkeys(
                f"{words.get(name, 'seed' if name.endswith('.seed') else name)} {told[name]}"
                for name in varied
                if told.get(name) is not None
            )
        )
        for told in said
    ]


def absent(results: StudyResults) -> list[tuple[str, str]]:
    """(kind of labels, reason) of the study's weak labels that have no counts, each once."""
    return list(
        dict.fromkeys(
            (METHODS[labels.kind], labels.reason or "")
            for labels in results.weak_labels
            if not labels.counts
        )
    )


# ---- IoU ---------------------------------------------------------------------------------------------------------------


def rows(
    labels: LabelSet, pathologies: Sequence[str], replicates: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """One row a pathology and kind, and the means over pathologies.

    - ``images``, ``IoU``, ``box IoU``: images with expert pixels, pooled IoU and that of a random box of the same sizes (its
      expected intersections instead of the labels'), on all masked images; ``held-out images``, ``held-out patients``,
      ``held-out IoU`` and ``held-out box IoU`` the same on the held-out ones.
    - ``against``: what the labels are compared with: a random box, or for IRNet the CAMs it started from.
    - ``difference``, ``from``, ``to``, ``p-value``: labels minus that on the held-out images, its 95% interval and the
      two-sided p-value of no difference over patients (paired, `bootstrap_t`); ``all difference``, ``all from``, ``all to``,
      ``all p-value``: the same on all masked images. No interval below `FEWEST_PATIENTS` patients with the pathology.
    - ``adjusted p-value``, ``all adjusted p-value``: by Holm over the pathologies of one kind of labels, as one sentence
      names them all. The mean is a question of its own.
    - ``verdict``, ``reason``: better or worse where the held-out adjusted p is below 0.05, undecided where it isn't; ``all
      verdict`` likewise on all images; None, and the reason, where there is no expert pixel.
    """
    counts = [found.counts for found in labels.labels]
    ids = counts[0].image_ids
    if any(found.image_ids != ids for found in counts):
        raise ValueError("weak labels of one set cover different images")
    counted_AIK3 = np.stack([found.counts_IK3 for found in counts]).astype(np.float64)
    boxes_AIK3 = np.concatenate(
        [np.stack([found.box_IK for found in counts])[..., None], counted_AIK3[..., 1:]], axis=-1
    )
    both_MIK3 = np.concatenate([counted_AIK3, boxes_AIK3])
    held_I = ~counts[0].chosen_on_I
    whole = _Measured.on(both_MIK3, ids, np.ones_like(held_I), replicates, seed)
    held = _Measured.on(both_MIK3, ids, held_I, replicates, seed)
    number, out = len(labels.labels), []
    for k, task in enumerate([*pathologies, MEAN]):
        for a, found in enumerate(labels.labels):
            start = labels.start_of(found)
            other = number + a if start is None else labels.labels.index(start)
            (here, p), (everywhere, all_p) = (
                held.difference(a, other, k),
                whole.difference(a, other, k),
            )
            reason = None
            if not whole.patients_K[k]:
                reason = NO_EXPERT
            elif not held_I.any():
                reason = NOTHING_HELD_OUT
            elif not held.patients_K[k]:
                reason = NOT_HELD_OUT
            elif np.isnan(here.low):
                reason = f"only {here.n} {'patient' if here.n == 1 else 'patients'}"
            out.append(
                {
                    "pathology": task,
                    "labels": METHODS[found.kind],
                    "images": int(whole.images_K[k]),
                    "IoU": whole.iou_MK[a, k],
                    "box IoU": whole.iou_MK[number + a, k],
                    "held-out images": int(held.images_K[k]),
                    "held-out patients": int(held.patients_K[k]),
                    "held-out IoU": held.iou_MK[a, k],
                    "held-out box IoU": held.iou_MK[number + a, k],
                    "against": BOX if start is None else METHODS[start.kind],
                    **{"difference": here.mean, "from": here.low, "to": here.high},
                    **{"p-value": p, "adjusted p-value": p, "verdict": None},
                    "reason": reason,
                    **{
                        "all difference": everywhere.mean,
                        "all from": everywhere.low,
                        "all to": everywhere.high,
                    },
                    **{"all p-value": all_p, "all adjusted p-value": all_p, "all verdict": None},
                }
            )
    return _judged(pd.DataFrame(out))


def _judged(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with adjusted p-values and verdicts."""
    for scope in ("", "all "):
        for _, group in rows[rows["pathology"] != MEAN].groupby("labels"):
            rows.loc[group.index, f"{scope}adjusted p-value"] = holm(group[f"{scope}p-value"])
        pairs = zip(rows[f"{scope}difference"], rows[f"{scope}adjusted p-value"], strict=True)
        rows[f"{scope}verdict"] = pd.Series(
            [_verdict(value, p) for value, p in pairs], index=rows.index, dtype=object
        )
    return rows


@dataclass(frozen=True)
class _Measured:
    """Pooled IoU of labels and boxes (M) on some of the images, with bootstrap samples; the last of K is the mean."""

    iou_MK: np.ndarray
    sampled_BMK: np.ndarray
    images_K: np.ndarray  # with an expert pixel
    patients_K: np.ndarray

    @classmethod
    def on(
        cls,
        counts_MIK3: np.ndarray,
        ids: Sequence[str],
        chosen_I: np.ndarray,
        replicates: int,
        seed: int,
    ) -> _Measured:
        counts_MIK3 = counts_MIK3[:, chosen_I]
        names = [name for name, chosen in zip(ids, chosen_I, strict=True) if chosen]
        patients = np.array([patient_of(name) for name in names])
        true_IK = counts_MIK3[0, ..., 2] > 0
        true_IK = np.concatenate([true_IK, true_IK.any(axis=1, keepdims=True)], axis=1)
        iou_MK = pooled_iou(counts_MIK3, require_expert=True)
        sampled_BMK = np.full((replicates, *iou_MK.shape), np.nan)
        if names:
            sampled_BMK = bootstrap_iou(counts_MIK3, names, replicates, seed)
        return cls(
            np.concatenate([iou_MK, miou(iou_MK)[0][:, None]], axis=1),
            np.concatenate([sampled_BMK, miou(sampled_BMK)[0][..., None]], axis=2),
            true_IK.sum(axis=0),
            np.array([len(set(patients[true_I])) for true_I in true_IK.T]),
        )

    def difference(self, first: int, second: int, k: int) -> tuple[Interval, float]:
        value, number = (
            float(self.iou_MK[first, k] - self.iou_MK[second, k]),
            int(self.patients_K[k]),
        )
        if number < FEWEST_PATIENTS:
            return Interval(value, np.nan, np.nan, number), np.nan
        return bootstrap_t(
            value, self.sampled_BMK[:, first, k] - self.sampled_BMK[:, second, k], number
        )


def _verdict(difference: float, p: float) -> str | None:
    if np.isnan(difference):
        return None
    if not p < 0.05:
        return UNDECIDED
    return BETTER if difference > 0 else WORSE


def sentences(labels: LabelSet, found: pd.DataFrame) -> list[str]:
    """What the rows of a set come to: for IRNet against its CAMs, then for CAMs against a random box, by pathology."""
    chosen_on_I = labels.labels[0].counts.chosen_on_I
    held, total, said = int((~chosen_on_I).sum()), len(chosen_on_I), []
    singles = found[found["pathology"] != MEAN]
    groups = [(*pair, group) for pair, group in singles.groupby(["labels", "against"], sort=False)]
    for kind, against, group in sorted(groups, key=lambda entry: entry[1] == BOX):
        verbs = ("beats a random box for", "does worse than one for")
        if against != BOX:
            verbs = (f"improves {against}’s labels for", "worsens them for")
        if held:
            where = f"On the {held} held-out {'image' if held == 1 else 'images'}, {kind}"
            said.append(_sentence(where, verbs, group, "verdict"))
        if held < total:
            where = f"On all {total} masked images, on {total - held} of which CAM thresholds were chosen, {kind}"
            said.append(_sentence(where, verbs, group, "all verdict"))
    return said


def _sentence(where: str, verbs: tuple[str, str], group: pd.DataFrame, column: str) -> str:
    names = {
        v: _join(group.loc[group[column] == v, "pathology"].tolist())
        for v in (BETTER, WORSE, UNDECIDED)
    }
    names["not judged"] = _join(group.loc[group[column].isna(), "pathology"].tolist())
    text = f"{where} {verbs[0]} {names[BETTER] or 'no pathology'} and {verbs[1]} {names[WORSE] or 'no pathology'}"
    return (
        text
        + "".join(
            f"; {word} for {names[word]}" for word in (UNDECIDED, "not judged") if names[word]
        )
        + "."
    )


def _join(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


# ---- classifiers -------------------------------------------------------------------------------------------------------

PURPOSES = {"classify": "weak labels", "pretrain": "encoder"}


def classifier_names(classifiers: Sequence[Classifier]) -> list[str]:
    """What each is for, its architecture and, where that leaves two alike, its seed or key."""
    names = [f"{PURPOSES[c.stage]}, {c.settings[f'{c.stage}.architecture']}" for c in classifiers]
    for more in (lambda c: f"seed {c.settings[f'{c.stage}.seed']}", lambda c: c.key[:12]):
        names = [
            f"{name}, {more(c)}" if names.count(name) > 1 else name
            for name, c in zip(names, classifiers, strict=True)
        ]
    return names


def auroc_rows(results: StudyResults) -> pd.DataFrame:
    """AUROC on `valid` of each observation, one column a classifier, and the mean by which its checkpoint was chosen."""
    names = classifier_names(results.classifiers)
    out = []
    for task in [*OBSERVATIONS, MEAN]:
        five = task in COMPETITION
        values = [c.mean_auroc if task == MEAN else c.auroc.get(task) for c in results.classifiers]
        if task == MEAN:  # without one defined the stage's mean is 0, which is no AUROC
            defined = [
                any(c.auroc.get(name) is not None for name in COMPETITION)
                for c in results.classifiers
            ]
            values = [
                value if known else None for value, known in zip(values, defined, strict=True)
            ]
        row: dict[str, object] = {
            "observation": task,
            "competition": "yes" if five or task == MEAN else "no",
        }
        row |= {
            name: np.nan if value is None else float(value)
            for name, value in zip(names, values, strict=True)
        }
        out.append(row | {"reason": ONE_CLASS if None in values else None})
    return pd.DataFrame(out)


def classifiers_rows(results: StudyResults) -> pd.DataFrame:
    """One row a classifier: what it's for, its mean AUROC, its checkpoint's step of how many, the images it trained on."""
    names = classifier_names(results.classifiers)
    return pd.DataFrame(
        [
            {
                "classifier": name,
                "mean AUROC": c.mean_auroc,
                "step": c.step,
                "steps": c.steps,
                "images": c.images,
                "key": c.key,
            }
            for name, c in zip(names, results.classifiers, strict=True)
        ]
    )
