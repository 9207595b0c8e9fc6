"""Compare weak labels with the experts' masks of `valid`, as rows and sentences.

CAMs are better than chance if they are better than the location prior (`analysis.baselines`), made
from the images on which thresholds are chosen. Verdicts use the held-out images. On the others the
CAMs have an advantage over IRNet, whose threshold is fixed, and the prior has one over both. Its
size is unknown for a pathology that few images show.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from chexseg.analysis.baselines import PRIOR
from chexseg.analysis.published import METHODS
from chexseg.analysis.results import StudyResults, WeakCounts, WeakLabels
from chexseg.analysis.statistics.inference import holm, measured, patients_interval, verdicts
from chexseg.analysis.statistics.scores import Interval
from chexseg.weak_label_kinds import KINDS

MEAN = "Mean"
BOX = "random box"
BETTER, WORSE, UNDECIDED = "better", "worse", "undecided"
#: Reasons why there is no test; by scope, where a pathology has no expert mask.
NOTHING_HELD_OUT = "no image is held out"
NO_EXPERT = {"held-out": "no held-out expert mask", "all": "no expert mask in valid"}
NO_PRIOR = "no expert training mask"


@dataclass(frozen=True)
class LabelSet:
    """Weak labels of one classifier or of none, each kind at most once, CAMs first.

    text: the settings and CAMs in which the set differs from the study's other sets.
    """

    labels: tuple[WeakLabels, ...]
    text: str = ""

    @property
    def counts(self) -> list[WeakCounts]:
        """Return the counts of the labels; all labels of a set have counts."""
        return [labels.counts for labels in self.labels if labels.counts is not None]

    @property
    def tuned(self) -> bool:
        """Return whether any thresholds were chosen on the images of `chosen_on_I`."""
        return any(
            one.settings.get("saliency.threshold", "training") == "training"
            or one.settings.get("irnet.threshold") == "training"
            for one in self.labels
        )

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
    tables = ((labels, rows(labels, results.pathologies)) for labels in label_sets(results))
    return tuple(Agreement(*pair, tuple(sentences(*pair))) for pair in tables)


def label_sets(results: StudyResults) -> list[LabelSet]:
    """Return the study's label sets that have counts: each IRNet with its CAMs, or the CAMs alone.

    CAMs of several kinds with otherwise equal settings share the first set. An IRNet whose CAMs
    have no counts is alone in its set. Labels that no classifier has made join the first set that
    has no labels of their kind.
    """
    counted = [labels for labels in results.weak_labels if labels.counts is not None]
    irnets = [labels for labels in counted if labels.kind == "irnet"]
    groups: dict[str, list[WeakLabels]] = {}
    for labels in counted:
        if KINDS[labels.kind].stage == "saliency":
            settings = {**labels.settings, "saliency.kind": ""}
            groups.setdefault(str(sorted(settings.items())), []).append(labels)
    keys = {labels.key for labels in counted}
    sets = [[irnet] for irnet in irnets if irnet.start not in keys]
    for cams in groups.values():
        starts = {labels.key: [labels] for labels in cams}
        started = [irnet for irnet in irnets if irnet.start in starts]
        further = [[*starts[str(irnet.start)], irnet] for irnet in started[1:]]
        sets += [[*cams, *started[:1]], *further]
    for labels in counted:
        if KINDS[labels.kind].stage not in ("saliency", "irnet"):
            free = (one for one in sets if all(other.kind != labels.kind for other in one))
            if (first := next(free, None)) is None:
                sets.append([labels])
            else:
                first.append(labels)
    kinds = list(METHODS)
    return _with_texts(
        [LabelSet(tuple(sorted(one, key=lambda labels: kinds.index(labels.kind)))) for one in sets],
        results.draw_of_seed,
    )


def _with_texts(sets: Sequence[LabelSet], draw_of_seed: Mapping[int, int]) -> list[LabelSet]:
    all_settings = []
    for one in sets:
        settings = {name: value for labels in one.labels for name, value in labels.settings.items()}
        start = next(filter(None, map(one.start_of, one.labels)), None)
        all_settings.append(settings | {"saliency.kind": METHODS[start.kind] if start else None})
    names = list(dict.fromkeys(itertools.chain(*all_settings)))
    # All stages of a draw have one seed: name it once.
    words = {name: "seed" if name.endswith(".seed") else name for name in names}
    words |= {"saliency.kind": "IRNet from", "ingest.size": "size"}
    varied = [n for n in names if len({str(one[n]) for one in all_settings if n in one}) > 1]
    labelled = []
    for one, settings in zip(sets, all_settings, strict=True):
        parts = [
            f"draw {draw_of_seed[settings[n]]}"
            if words[n] == "seed" and settings[n] in draw_of_seed
            else f"{words[n]} {settings[n]}"
            for n in varied
            if settings.get(n) is not None
        ]
        if not parts and len(sets) > 1:
            parts = [METHODS[labels.kind] for labels in one.labels]
        labelled.append(replace(one, text=", ".join(dict.fromkeys(parts))))
    return labelled


def lacking(results: StudyResults) -> tuple[tuple[str, str], ...]:
    """Return the distinct (kind, reason) of the study's weak labels that have no counts."""
    missing = (labels for labels in results.weak_labels if not labels.counts)
    return tuple({(METHODS[labels.kind], labels.reason or ""): None for labels in missing})


def rows(
    labels: LabelSet, pathologies: Sequence[str], replicates: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Return one row per scope, pathology and kind of labels or baseline; last a mean.

    scope: "held-out", the images on which no CAM threshold was chosen, or "all". Columns:

    - ``images``, ``patients``: their number with expert pixels. ``IoU``: pooled. ``box IoU``: with
      the expected intersections of a random box of the same size.
    - ``against``: the reference, the location prior, or for IRNet the CAMs that it started from.
      Without training images there is no prior, and a random box takes its place. Baselines have no
      reference, and so no further columns.
    - ``difference``, ``low``, ``high``, ``P``: labels minus reference, with 95% interval and
      two-sided P-value over patients (paired, `bootstrap_t`). Fewer than `FEWEST_PATIENTS` patients
      with the pathology have no interval.
    - ``adjusted P``: by Holm over the pathologies of one kind of labels, because one sentence
      names them all. The mean is not part of the family.
    - ``verdict``: better or worse if the adjusted P-value is below 0.05, else undecided; NaN
      without an expert pixel, or if the prior is empty. ``reason``: why there is no test.
    """
    ids = labels.counts[0].image_ids
    if any(counts.image_ids != ids for counts in labels.counts):
        raise ValueError("weak labels of one set cover different images")
    # Labels, then their boxes, then baselines take the place of an arm's trials.
    number, baselines = len(labels.labels), labels.counts[0].baselines
    of_labels = [counts.counts_IK3 for counts in labels.counts]
    counts_TIK3 = np.stack([*of_labels, *of_labels, *baselines.values()]).astype(np.float64)
    counts_TIK3[number : 2 * number, ..., 0] = [counts.box_IK for counts in labels.counts]
    at = {name: 2 * number + position for position, name in enumerate(baselines)}
    held_out_I = ~labels.counts[0].chosen_on_I
    table = []
    for scope, chosen_I in (("held-out", held_out_I), ("all", np.full(len(ids), True))):
        image_ids = np.array(ids)[chosen_I].tolist()
        arms = measured(counts_TIK3[:, chosen_I], image_ids, None, replicates, seed)
        true_IK = counts_TIK3[0, chosen_I, :, 2] > 0
        images_K = [*true_IK.sum(axis=0), true_IK.any(axis=1).sum()]
        has_prior_K = np.full(len(images_K), True)
        if PRIOR in at:
            has_prior_K[:-1] = counts_TIK3[at[PRIOR], :, :, 1].any(axis=0)
        for k, task in enumerate([*pathologies, MEAN]):
            for a, one in enumerate(labels.labels):
                start = labels.start_of(one)
                against = METHODS[start.kind] if start else PRIOR if PRIOR in at else BOX
                b = labels.labels.index(start) if start else at.get(PRIOR, number + a)
                step, p = patients_interval(
                    float(arms.values_TK[a, k] - arms.values_TK[b, k]),
                    arms.sampled_BTK[:, a, k] - arms.sampled_BTK[:, b, k],
                    int(arms.patients_K[k]),
                )
                reason = None
                if not image_ids:
                    reason = NOTHING_HELD_OUT
                elif not step.n:
                    reason = NO_EXPERT[scope]
                elif against == PRIOR and not has_prior_K[k]:
                    step, p, reason = Interval(np.nan, np.nan, np.nan, step.n), np.nan, NO_PRIOR
                elif np.isnan(step.low):
                    reason = f"only {step.n} {'patient' if step.n == 1 else 'patients'}"
                table.append(
                    {
                        "scope": scope,
                        "pathology": task,
                        "labels": METHODS[one.kind],
                        "images": int(images_K[k]),
                        "patients": step.n,
                        "IoU": arms.values_TK[a, k],
                        "box IoU": arms.values_TK[number + a, k],
                        "against": against,
                        "difference": step.mean,
                        "low": step.low,
                        "high": step.high,
                        "P": p,
                        "reason": reason,
                    }
                )
            table += [
                {
                    "scope": scope,
                    "pathology": task,
                    "labels": name,
                    "images": int(images_K[k]),
                    "patients": int(arms.patients_K[k]),
                    "IoU": arms.values_TK[t, k],
                    "reason": None if arms.patients_K[k] else NO_EXPERT[scope],
                }
                for name, t in at.items()
            ]
    rows = pd.DataFrame(table)
    families = rows.groupby(["scope", "labels", rows["pathology"] == MEAN])
    adjusted = families["P"].transform(holm)
    judged = verdicts(rows["difference"], adjusted, BETTER, WORSE, UNDECIDED)
    reasons = rows.pop("reason")
    return rows.assign(**{"adjusted P": adjusted}, verdict=judged, reason=reasons)


def sentences(labels: LabelSet, rows: pd.DataFrame) -> list[str]:
    """Return the verdicts of `rows` as sentences: IRNet against CAMs, then CAMs against chance."""
    chosen_on_I = labels.counts[0].chosen_on_I
    total, chosen_on = len(chosen_on_I), int(chosen_on_I.sum())
    held_out = total - chosen_on
    where = {}
    if held_out:
        where["held-out"] = f"On the {held_out} held-out {'image' if held_out == 1 else 'images'}"
    if chosen_on:
        where["all"] = f"On all {total} masked images"
        if labels.tuned:
            where["all"] += f", on {chosen_on} of which CAM thresholds were chosen"
    texts = []
    groups = list(rows[rows["pathology"] != MEAN].groupby(["labels", "against"], sort=False))
    chance = {
        BOX: ("beats a random box for", "does worse than one for"),
        PRIOR: ("beats the location prior for", "does worse than it for"),
    }
    for (kind, against), group in sorted(groups, key=lambda entry: entry[0][1] in chance):
        improves = (f"improves {against}’s labels for", "worsens them for")
        verbs = chance.get(against, improves)
        for scope, start in where.items():
            tested = group[group["scope"] == scope]
            verdicts = tested["verdict"].fillna("not judged")
            names = tested["pathology"].groupby(verdicts).agg(_join)
            better, worse = (names.get(verdict, "no pathology") for verdict in (BETTER, WORSE))
            parts = [f"{start}, {kind} {verbs[0]} {better} and {verbs[1]} {worse}"]
            others = [verdict for verdict in (UNDECIDED, "not judged") if verdict in names]
            parts += [f"{verdict} for {names[verdict]}" for verdict in others]
            texts.append(f"{'; '.join(parts)}.")
    return texts


def _join(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
