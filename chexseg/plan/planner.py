"""From a study to the stages it needs, each once. No Ray here, and nothing is run.

A node is one run of one stage. Its key is the sha256 of everything that decides its result: stage, version, config, the
keys of its inputs and, for what reads raw data, the data's fingerprint.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

from chexseg.config.settings import Encoder, ExpertSplit, Score, Section, Settings, canonical
from chexseg.config.study import Study
from chexseg.data.raw_split import fingerprint
from chexseg.data.remote_path import Location
from chexseg.plan.cells import CellNamer, distinguishing_settings
from chexseg.plan.graph import NoEncoderError, Plan, node_of
from chexseg.stages import configs

#: Settings of `labels` that a fit on a mixture is told.
_MIXED = ("p", "mixing", "weak", "weak_images", "prefer_positives", "negatives_empty")


def fingerprints(root: Location) -> dict[str, str]:
    """The fingerprint of each split's raw data. Raises `UserError` for a missing root, column or mask file."""
    return {split: fingerprint(root, split) for split in ("train", "valid", "test")}


def plan(
    study: Study, data: Mapping[str, str], imported: Mapping[tuple[str, str], str] | None = None
) -> Plan:
    """Every distinct cell of a study, or of the studies that it includes, and the stages it needs.

    data: split -> fingerprint. imported: (kind, architecture) -> sha256 of the encoders in the store (Store.imported).
    Raises `NoEncoderError` for a study that needs another.
    """
    out = Plan(study, imported or {}, data=data)
    builder, cells = _PlanBuilder(out, data), {}
    members = {
        member.name: [canonical(given) for given in member.cells()]
        for member in study.members or (study,)
    }
    names = CellNamer(
        distinguishing_settings(study.varied, chain(*members.values()))
        if study.members
        else study.varied
    )
    fractions: dict[str, float] = {}
    for name, combinations in members.items():
        with _told_by(name if study.members else None):
            for key, fraction in builder.distillation_requests(combinations):
                fractions[key] = max(fraction, fractions.get(key, 0))
    for name, combinations in members.items():
        own: dict[str, None] = {}
        with _told_by(name if study.members else None):
            for settings in combinations:
                fit_key, score_key = builder.cell(settings, fractions)
                own[score_key] = (
                    None  # where it's there already, what differs between the two doesn't reach this cell
                )
                if score_key not in cells:
                    cells[score_key] = names.cell(settings, fit_key, score_key)
        out.members[name] = tuple(own)
        out.merged_combinations += len(combinations) - len(own)
    out.cells = list(cells.values())
    return out


@contextmanager
def _told_by(member: str | None) -> Iterator[None]:
    """A missing encoder's message names the included study that asks for it."""
    try:
        yield
    except NoEncoderError as error:
        raise NoEncoderError(f"{member}: {error}" if member else str(error)) from None


def _memoize(make: Callable[..., Any]) -> Callable[..., Any]:
    """`make`, called once for equal arguments. The very same objects are known without being hashed, which takes longer."""
    equal, same = functools.cache(make), {}

    def made(*arguments: Any) -> Any:
        key = tuple(map(id, arguments))
        if key not in same:
            same[key] = equal(*arguments), arguments  # kept, so that no other object gets their ids
        return same[key][0]

    return made


class _PlanBuilder:
    """Adds the stages of cells to a plan.

    What a stage is made of is all that its function is given, so that it's made once for equal arguments: a study of many
    cells has few classifiers.
    """

    def __init__(self, out: Plan, data: Mapping[str, str]):
        self.plan, self.data = out, data
        self.ingested, self.inputs, self.fit, self.scored = map(
            _memoize, (self._ingested, self._inputs, self._fit, self._scored)
        )

    def distillation_requests(
        self, combinations: Iterable[Settings]
    ) -> Iterator[tuple[str, float]]:
        """(key of a teacher's fit, fraction) of each student: the largest holds all smaller ones."""
        for s in combinations:
            if s.distil.fraction > 0:
                yield self._supervised(s)[0], s.distil.fraction

    def cell(self, s: Settings, fractions: Mapping[str, float]) -> tuple[str, str]:
        """(key of its fit, key of its scores). fractions: key of each teacher's fit -> the largest that is asked of it."""
        ingested = self.ingested(s.size)
        fit_key, inputs = self._supervised(s)
        if s.distil.fraction > 0:  # at p = 1, so that the teacher reads what a student does too
            sources = {"train": ingested["train"], "teacher": fit_key}
            teacher = self.plan.add(
                "distil", configs.DistilConfig(fraction=fractions[fit_key], seed=s.seed), sources
            )
            # Whatever else the study asks of this teacher, the student is the same.
            own = node_of(
                "distil", configs.DistilConfig(fraction=s.distil.fraction, seed=s.seed), sources
            ).key
            student = {
                "supervision": "teacher",
                "fraction": s.distil.fraction,
                "temperature": s.distil.temperature,
            }
            taught = {**inputs, "train": ingested["train"], "teacher": teacher}
            fit_key = self.plan.add(
                "fit", self._fit_config(s, **student), taught, same_as={"teacher": own}
            )
        # Own sizes are counted against the raw masks, so that these are part of the key.
        raw = self.data["test"] if s.score.resolution == "own" else None
        scored = {"test": ingested["test"], "segmenter": fit_key}
        return fit_key, self.plan.add("score", self.scored(s.score), scored, raw)

    def _supervised(self, s: Settings) -> tuple[str, dict[str, str]]:
        """The fit on masks of a cell, for a student its teacher's: (its key, role -> key of its inputs)."""
        labels, encoder, learned, labelling = s.labels, s.encoder, {}, ()
        own = (
            None if encoder.imported else {"chexpert": s.pretrain, "moco": s.moco}.get(encoder.init)
        )
        if labels.p < 1:
            learned = {name: getattr(labels, name) for name in _MIXED}
            labelling = (
                labels.weak,
                s.classify,
                s.saliency,
                s.irnet,
                labels.expert_split,
                labels.negatives_empty,
            )
        inputs = self.inputs(s.size, s.seed, encoder, own, *labelling)
        return self.plan.add("fit", self._fit_config(s, **learned), inputs), inputs

    def _inputs(
        self, size: int, seed: int, encoder: Encoder, own: Section | None, *labelling: Any
    ) -> dict[str, str]:
        """Role -> key of all that a fit on masks reads. labelling: what `_weak_labels` is told, nothing at p = 1."""
        inputs = {"valid": self.ingested(size)["valid"]}
        if encoder.init != "random":
            inputs["encoder"] = self._encoder(encoder, own, size, seed)
        if labelling:
            inputs |= {
                "train": self.ingested(size)["train"],
                "weak": self._weak_labels(*labelling, size, seed),
            }
        return inputs

    def _ingested(self, size: int) -> dict[str, str]:
        """Split -> key of its ingest."""
        return {
            name: self.plan.add(
                "ingest", configs.IngestConfig(split=name, size=size), {}, self.data[name]
            )
            for name in self.data
        }

    def _labelled(self, size: int) -> dict[str, str]:
        return {name: self.ingested(size)[name] for name in ("train", "valid")}

    def _encoder(self, encoder: Encoder, own: Section | None, size: int, seed: int) -> str:
        """own: the section of the training that the study does itself; without one the encoder is imported."""
        if own is None:
            setting = (
                "encoder.imported: found true"
                if encoder.imported
                else f"encoder.init: found {encoder.init}"
            )
            return self.plan.add_encoder(encoder.init, encoder.architecture, setting)
        settings = {**own.model_dump(), "architecture": encoder.architecture, "seed": seed}
        if encoder.init == "moco":
            return self.plan.add(
                "moco", configs.MoCoConfig(**settings), {"train": self.ingested(size)["train"]}
            )
        return self.plan.add("pretrain", configs.PretrainConfig(**settings), self._labelled(size))

    def _weak_labels(
        self,
        kind: str,
        classifier: Section,
        maps: Section,
        refined: Section,
        split: ExpertSplit,
        negatives_empty: bool,
        size: int,
        seed: int,
    ) -> str:
        """The stages that make weak labels of a kind, by the sections classify, saliency and irnet; the key of the last."""
        labelled = self._labelled(size)
        classified = self.plan.add(
            "classify", configs.ClassifyConfig(**classifier.model_dump(), seed=seed), labelled
        )
        config = configs.SaliencyConfig(
            **maps.model_dump(),
            kind="cam++" if kind == "cam++" else "cam",
            architecture=classifier.architecture,
            expert_train=split.train,
            expert_select=split.select,
            negatives_empty=negatives_empty,
            seed=seed,
        )
        mapped = self.plan.add("saliency", config, {**labelled, "classifier": classified})
        if kind != "irnet":
            return mapped
        config = configs.IRNetConfig(
            **refined.model_dump(), negatives_empty=negatives_empty, seed=seed
        )
        backbone = {}
        if refined.init != "random":
            setting = f"irnet.init: found {refined.init}"
            backbone["encoder"] = self.plan.add_encoder(refined.init, refined.architecture, setting)
        return self.plan.add("irnet", config, {**labelled, "saliency": mapped, **backbone})

    def _fit(
        self,
        pathologies: tuple[str, ...],
        encoder: Encoder,
        split: ExpertSplit,
        seed: int,
        fitted: Section,
    ) -> dict[str, Any]:
        """What a fit is told, whatever it learns from."""
        config = configs.FitConfig(
            pathologies=pathologies,
            architecture=encoder.architecture,
            init=encoder.init,
            expert_train=split.train,
            expert_select=split.select,
            split_seed=seed,
            **fitted.model_dump(),
        )
        return dict(
            sorted(config.model_dump(mode="json").items())
        )  # an identity is written in this order

    def _fit_config(self, s: Settings, **learned: Any) -> dict[str, Any]:
        """learned: what it learns from, of configs.FitConfig. These numbers and words are as valid there as in `Settings`."""
        told = self.fit(s.pathologies, s.encoder, s.labels.expert_split, s.seed, s.fit)
        return {**told, "seed": s.seed + s.trial, **learned}

    def _scored(self, section: Score) -> dict[str, Any]:
        return configs.ScoreConfig(**section.model_dump()).model_dump(mode="json")
