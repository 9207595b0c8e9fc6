"""Compare weak labels with the experts' masks of `valid`, as rows and sentences.

Verdicts use the held-out images, on which no CAM threshold was chosen. On the others the CAMs have
an advantage over a random box and over IRNet, whose threshold is fixed. Its size is unknown for a
pathology that few images show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from chexseg.analysis.published import METHODS
from chexseg.analysis.results import StudyResults, WeakCounts, WeakLabels
from chexseg.analysis.statistics.inference import Measured, holm, measured, patients_interval
from chexseg.analysis.statistics.scores import Interval

MEAN = "Mean"
BOX = "random box"
BETTER, WORSE, UNDECIDED = "better", "worse", "undecided"
#: Reasons why there is no test; by scope, where a pathology has no expert mask.
NOTHING_HELD_OUT = "no image is held out"
NO_EXPERT = {"held-out": "no held-out expert mask", "all": "no expert mask in valid"}


@dataclass(frozen=True)
class LabelSet:
    """Weak labels of one classifier, each kind at most once, CAMs first.

    text: the settings that distinguish the set from the study's other sets.
    """

    labels: tuple[WeakLabels, ...]
    text: str = ""

    @property
    def counts(self) -> list[WeakCounts]:
        """Return the counts of the labels; all labels of a set have counts."""
        return [labels.counts for labels in self.labels if labels.counts is not None]

    def start_of(self, irnet: WeakLabels) -> WeakLabels | None:
        """Return the CAMs that IRNet's labels started from."""
        return next((labels for labels in self.labels if labels.key == irnet.start), None)


@dataclass(frozen=True)
class Agreement:
    """A set of weak labels with its agreement with the experts: `rows`, and `sentences` on them."""

    labels: LabelSet
    rows: pd.DataFrame
    sentences: tuple[str, ...]


def agreements(results: StudyResults) -> tuple[Agreement, ...]:
    """Return the agreement of each set of weak labels that has counts."""
    compared = ((labels, rows(labels, results.pathologies)) for labels in label_sets(results))
    return tuple(
        Agreement(labels, table, tuple(sentences(labels, table))) for labels, table in compared
    )


def label_sets(results: StudyResults) -> list[LabelSet]:
    """Return the study's label sets that have counts: each IRNet with its CAMs, or the CAMs alone.

    CAMs of several kinds with otherwise equal settings share the first set. An IRNet whose CAMs
    have no counts is alone in its set.
    """
    counted = [labels for labels in results.weak_labels if labels.counts is not None]
    groups: dict[str, list[WeakLabels]] = {}
    for labels in counted:
        if labels.kind != "irnet":
            settings = {**labels.settings, "saliency.kind": ""}
            groups.setdefault(str(sorted(settings.items())), []).append(labels)
    irnets = [labels for labels in counted if labels.kind == "irnet"]
    keys = {labels.key for labels in counted}
    sets: list[list[WeakLabels]] = [[irnet] for irnet in irnets if irnet.start not in keys]
    for cams in groups.values():
        starts = {labels.key: [labels] for labels in cams}
        started = [irnet for irnet in irnets if irnet.start in starts]
        sets += [
            [*(cams if n == 0 else starts[str(irnet.start)]), irnet]
            for n, irnet in enumerate(started)
        ] or [cams]
    ordered = [
        tuple(sorted(group, key=lambda labels: list(METHODS).index(labels.kind))) for group in sets
    ]
    return [LabelSet(group, text) for group, text in zip(ordered, _texts(ordered), strict=True)]


def _texts(sets: Sequence[tuple[WeakLabels, ...]]) -> list[str]:
    """Return, for each set, the settings and CAMs in which it differs from another set."""
    settings_of_sets = []
    for group in sets:
        settings = {name: value for labels in group for name, value in labels.settings.items()}
        start = next((c for labels in group for c in group if c.key == labels.start), None)
        settings["saliency.kind"] = METHODS[start.kind] if start else None
        settings_of_sets.append(settings)
    varied = [
        name
        for name in dict.fromkeys(name for settings in settings_of_sets for name in settings)
        if len({str(s[name]) for s in settings_of_sets if name in s}) > 1
    ]
    words = {"saliency.kind": "IRNet from", "ingest.size": "size"}
    return [
        # A study has one seed, which is the seed of all its stages: name it once.
        ", ".join(
            dict.fromkeys(
                f"{words.get(name, 'seed' if name.endswith('.seed') else name)} {settings[name]}"
                for name in varied
                if settings.get(name) is not None
            )
        )
        for settings in settings_of_sets
    ]


def lacking(results: StudyResults) -> tuple[tuple[str, str], ...]:
    """Return the distinct (kind, reason) of the study's weak labels that have no counts."""
    return tuple(
        dict.fromkeys(
            (METHODS[labels.kind], labels.reason or "")
            for labels in results.weak_labels
            if not labels.counts
        )
    )


def rows(
    labels: LabelSet, pathologies: Sequence[str], replicates: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Return one row per scope, pathology and kind of labels, with a mean over pathologies.

    scope: "held-out", the images on which no CAM threshold was chosen, or "all". Columns:

    - ``images``, ``patients``: their number with expert pixels. ``IoU``: pooled. ``box IoU``: with
      the expected intersections of a random box of the same size.
    - ``against``: the reference, a random box, or for IRNet the CAMs that it started from.
    - ``difference``, ``low``, ``high``, ``p-value``: labels minus reference, with 95% interval and
      two-sided p-value over patients (paired, `bootstrap_t`). Fewer than `FEWEST_PATIENTS` patients
      with the pathology have no interval.
    - ``adjusted p-value``: by Holm over the pathologies of one kind of labels, because one sentence
      names them all. The mean is not part of the family.
    - ``verdict``: better or worse if the adjusted p-value is below 0.05, else undecided; None
      without an expert pixel. ``reason``: why there is no test.
    """
    ids = labels.counts[0].image_ids
    if any(counts.image_ids != ids for counts in labels.counts):
        raise ValueError("weak labels of one set cover different images")
    # Labels and boxes (M) take the place of an arm's trials.
    counted_AIK3 = np.stack([counts.counts_IK3 for counts in labels.counts]).astype(np.float64)
    boxes_AIK3 = counted_AIK3.copy()
    boxes_AIK3[..., 0] = [counts.box_IK for counts in labels.counts]
    both_MIK3 = np.concatenate([counted_AIK3, boxes_AIK3])
    held_out_I = ~labels.counts[0].chosen_on_I
    parts = [
        _scope_rows(labels, pathologies, scope, both_MIK3[:, chosen_I], ids_I, replicates, seed)
        for scope, chosen_I in (("held-out", held_out_I), ("all", np.full(len(ids), True)))
        for ids_I in [np.array(ids)[chosen_I].tolist()]
    ]
    return pd.concat(parts, ignore_index=True)


def _scope_rows(
    labels: LabelSet,
    pathologies: Sequence[str],
    scope: str,
    both_MIK3: np.ndarray,
    image_ids: Sequence[str],
    replicates: int,
    seed: int,
) -> pd.DataFrame:
    arms = measured(both_MIK3, image_ids, None, replicates, seed)
    true_IK = both_MIK3[0, ..., 2] > 0
    images_K = [*true_IK.sum(axis=0), true_IK.any(axis=1).sum()]
    number, table = len(labels.labels), []
    for k, task in enumerate([*pathologies, MEAN]):
        for a, one in enumerate(labels.labels):
            start = labels.start_of(one)
            reference = number + a if start is None else labels.labels.index(start)
            step, p = _difference(arms, a, reference, k)
            reason = None
            if not image_ids:
                reason = NOTHING_HELD_OUT
            elif not arms.patients_K[k]:
                reason = NO_EXPERT[scope]
            elif np.isnan(step.low):
                reason = f"only {step.n} {'patient' if step.n == 1 else 'patients'}"
            table.append(
                {
                    "scope": scope,
                    "pathology": task,
                    "labels": METHODS[one.kind],
                    "images": int(images_K[k]),
                    "patients": int(arms.patients_K[k]),
                    "IoU": arms.values_TK[a, k],
                    "box IoU": arms.values_TK[number + a, k],
                    "against": BOX if start is None else METHODS[start.kind],
                    "difference": step.mean,
                    "low": step.low,
                    "high": step.high,
                    "p-value": p,
                    "adjusted p-value": p,
                    "verdict": None,
                    "reason": reason,
                }
            )
    rows = pd.DataFrame(table)
    for _, group in rows[rows["pathology"] != MEAN].groupby("labels"):
        rows.loc[group.index, "adjusted p-value"] = holm(group["p-value"])
    pairs = zip(rows["difference"], rows["adjusted p-value"], strict=True)
    return rows.assign(verdict=pd.array([_verdict(value, p) for value, p in pairs], dtype=object))


def _difference(labels: Measured, first: int, second: int, k: int) -> tuple[Interval, float]:
    return patients_interval(
        float(labels.values_TK[first, k] - labels.values_TK[second, k]),
        labels.sampled_BTK[:, first, k] - labels.sampled_BTK[:, second, k],
        int(labels.patients_K[k]),
    )


def _verdict(difference: float, p: float) -> str | None:
    if np.isnan(difference):
        return None
    if not p < 0.05:
        return UNDECIDED
    return BETTER if difference > 0 else WORSE


def sentences(labels: LabelSet, rows: pd.DataFrame) -> list[str]:
    """Return the verdicts of `rows` as sentences: IRNet against CAMs, then CAMs against a box."""
    chosen_on_I = labels.counts[0].chosen_on_I
    total, held_out, texts = len(chosen_on_I), int((~chosen_on_I).sum()), []
    singles = rows[rows["pathology"] != MEAN]
    where = {"held-out": f"On the {held_out} held-out {'image' if held_out == 1 else 'images'}"}
    where["all"] = (
        f"On all {total} masked images, on {total - held_out} of which CAM thresholds were chosen"
    )
    scopes = [scope for scope, n in (("held-out", held_out), ("all", total - held_out)) if n]
    groups = list(singles.groupby(["labels", "against"], sort=False))
    for (kind, against), group in sorted(groups, key=lambda entry: entry[0][1] == BOX):
        verbs = ("beats a random box for", "does worse than one for")
        if against != BOX:
            verbs = (f"improves {against}’s labels for", "worsens them for")
        for scope in scopes:
            texts.append(
                _sentence(f"{where[scope]}, {kind}", verbs, group[group["scope"] == scope])
            )
    return texts


def _sentence(start: str, verbs: tuple[str, str], group: pd.DataFrame) -> str:
    verdicts = group["verdict"].fillna("not judged")
    names = {
        verdict: _join(group.loc[verdicts == verdict, "pathology"].tolist())
        for verdict in (BETTER, WORSE, UNDECIDED, "not judged")
    }
    parts = [
        f"{start} {verbs[0]} {names[BETTER] or 'no pathology'}"
        f" and {verbs[1]} {names[WORSE] or 'no pathology'}"
    ]
    parts += [f"{word} for {names[word]}" for word in (UNDECIDED, "not judged") if names[word]]
    return f"{'; '.join(parts)}."


def _join(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
