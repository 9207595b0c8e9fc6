"""Turn a study into the stage runs it needs, each once. Runs nothing and needs no Ray.

A node is one run of one stage. Its key is the SHA-256 of all that determines its result: stage,
version, config, the keys of its inputs and, if it reads raw data, the data's fingerprint.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any, Literal

from pydantic import BaseModel

from chexseg.config import conflicts
from chexseg.config.canonical import canonical
from chexseg.config.settings import (
    Classify,
    Encoder,
    ExpertSplit,
    Fit,
    Irnet,
    Saliency,
    Score,
    Settings,
)
from chexseg.config.study import Study
from chexseg.data.raw_split import RawSplit, shared_patient_warnings
from chexseg.data.remote_path import Location
from chexseg.plan.cells import CellNamer, named_settings
from chexseg.plan.graph import NoEncoderError, Plan, node_of
from chexseg.stages import configs
from chexseg.stages.configuration.irnet import check_pairs

#: Settings of `labels` in the config of a fit on expert and weak labels.
_MIXED = ("p", "mixing", "weak", "weak_images", "prefer_positives", "negatives_empty")

#: Settings of `distil` that replace those of `fit` for a student, unless they are null.
_OF_STUDENTS = ("epochs", "learning_rate", "checkpoint", "thresholds")


def fingerprints(root: Location, warn: Callable[[str], None] | None = None) -> dict[str, str]:
    """Return split -> fingerprint of its raw data.

    warn: called with a line for each two splits that share patients, whose results mean little.
    Raises `UserError` for a missing root, column or mask file.
    """
    splits = {split: RawSplit(root, split) for split in ("train", "valid", "test")}
    prints = {split: raw.fingerprint() for split, raw in splits.items()}
    if warn is not None:
        for line in shared_patient_warnings(splits):
            warn(line)
    return prints


def plan(
    study: Study, data: Mapping[str, str], imported: Mapping[tuple[str, str], str] | None = None
) -> Plan:
    """Return the distinct cells of a study and its included studies, and the stages they need.

    data: split -> fingerprint. imported: (kind, architecture) -> SHA-256 of the encoders in the
    store (`Store.imported`). Raises `NoEncoderError` if the study needs another encoder.
    """
    out = Plan(study, imported or {}, data=data)
    builder, cells = _PlanBuilder(out, data), {}
    members = {
        member.name: [canonical(settings) for settings in member.cells()]
        for member in study.members or (study,)
    }
    names = CellNamer(named_settings(study, list(chain(*members.values()))))
    fractions: dict[str, float] = {}
    for name, combinations in members.items():
        with _naming(name if study.members else None):
            for key, fraction in builder.distillation_requests(combinations):
                fractions[key] = max(fraction, fractions.get(key, 0))
    for name, combinations in members.items():
        scores: dict[str, None] = {}
        with _naming(name if study.members else None):
            for settings in combinations:
                fit_key, score_key = builder.cell(settings, fractions)
                # A repeated key: the combinations differ only in settings irrelevant to this cell.
                scores[score_key] = None
                if score_key not in cells:
                    cells[score_key] = names.cell(settings, fit_key, score_key)
        out.members[name] = tuple(scores)
        out.merged_combinations += len(combinations) - len(scores)
    out.cells = list(cells.values())
    return out


@contextmanager
def _naming(member: str | None) -> Iterator[None]:
    """Put the name of an included study before the message of a `NoEncoderError`."""
    try:
        yield
    except NoEncoderError as error:
        raise NoEncoderError(f"{member}: {error}" if member else str(error)) from None


def _memoize(make: Callable[..., Any]) -> Callable[..., Any]:
    """Cache a function by the identity of its arguments, and then by equality.

    Hashing settings is slow, and most calls pass the same objects.
    """
    equal, same = functools.cache(make), {}

    def memoized(*arguments: Any) -> Any:
        key = tuple(map(id, arguments))
        if key not in same:
            # Keep the arguments alive, because the id of a deleted object is reused.
            same[key] = equal(*arguments), arguments
        return same[key][0]

    return memoized


class _PlanBuilder:
    """Adds the stages of cells to a plan.

    Methods that make a stage get only the settings it depends on, and are memoized: a study of
    many cells has few classifiers.
    """

    def __init__(self, out: Plan, data: Mapping[str, str]):
        self.plan, self.data = out, data
        self.ingested, self.inputs, self.fit, self.scored = (
            _memoize(make) for make in (self._ingested, self._inputs, self._fit, self._scored)
        )

    def distillation_requests(
        self, combinations: Iterable[Settings]
    ) -> Iterator[tuple[str, float]]:
        """Yield (key of the teacher's fit, fraction) of each student.

        One distillation at the largest fraction serves all students of a teacher.
        """
        for s in combinations:
            if s.distil.fraction > 0:
                yield self._supervised(s)[0], s.distil.fraction

    def cell(self, s: Settings, fractions: Mapping[str, float]) -> tuple[str, str]:
        """Add a cell; return the keys of its fit and of its scores.

        fractions: key of each teacher's fit -> largest fraction of its students.
        """
        ingested = self.ingested(s.size)
        fit_key, inputs = self._supervised(s)
        if s.distil.fraction > 0:  # p = 1, so the student's inputs include the teacher's
            sources = {"train": ingested["train"], "teacher": fit_key}
            distil = partial(configs.DistilConfig, seed=s.shared_seed)
            teacher = self.plan.add("distil", distil(fraction=fractions[fit_key]), sources)
            # Hash the distillation for this student alone: other students don't change its key.
            alone = node_of("distil", distil(fraction=s.distil.fraction), sources).key
            config = self._fit_config(
                s,
                supervision="teacher",
                fraction=s.distil.fraction,
                temperature=s.distil.temperature,
                **{
                    name: value
                    for name in _OF_STUDENTS
                    if (value := getattr(s.distil, name)) is not None
                },
            )
            student_inputs = {**inputs, "train": ingested["train"], "teacher": teacher}
            fit_key = self.plan.add("fit", config, student_inputs, same_as={"teacher": alone})
        # At native resolution pixels are counted against the raw masks, so the key includes them.
        raw = self.data["test"] if s.score.resolution == "own" else None
        scored = {"test": ingested["test"], "segmenter": fit_key}
        return fit_key, self.plan.add("score", self.scored(s.score), scored, raw)

    def _supervised(self, s: Settings) -> tuple[str, dict[str, str]]:
        """Add a cell's fit on masks, or its teacher's; return its key and role -> input key."""
        conflicts.check_untrained(s.fit.epochs, s.labels.p, s.distil.fraction)
        labels, encoder, learned = s.labels, s.encoder, {}
        labelling: tuple[Any, ...] = ()
        sections: dict[str, BaseModel] = {"chexpert": s.pretrain, "moco": s.moco}
        training = None if encoder.imported else sections.get(encoder.init)
        if labels.p < 1:
            learned = {name: getattr(labels, name) for name in _MIXED}
            labelling = (
                labels.weak,
                s.classify,
                s.saliency,
                s.irnet,
                labels.expert_split,
                labels.negatives_empty,
                sections.get(s.irnet.init) if labels.weak == "irnet" else None,
            )
        inputs = self.inputs(s.size, s.shared_seed, encoder, training, *labelling)
        return self.plan.add("fit", self._fit_config(s, **learned), inputs), inputs

    def _inputs(
        self, size: int, seed: int, encoder: Encoder, training: BaseModel | None, *labelling: Any
    ) -> dict[str, str]:
        """Return role -> key of the inputs of a fit on masks.

        labelling: further arguments of `_weak_labels`; none at p = 1.
        """
        inputs = {"valid": self.ingested(size)["valid"]}
        if encoder.init != "random":
            inputs["encoder"] = self._encoder(encoder, training, size, seed)
        if labelling:
            inputs |= {
                "train": self.ingested(size)["train"],
                "weak": self._weak_labels(size, seed, *labelling),
            }
        return inputs

    def _ingested(self, size: int, geometry: str = "pad") -> dict[str, str]:
        """Return split -> key of its ingest; only a classifier needs the geometry short-side."""
        # Cells can't differ in how images and masks are resized (`settings.SHARED`).
        resize = self.plan.study.settings.ingest.model_dump()
        # Images of `train` have no expert masks, and a classifier sees none.
        without_masks = resize | {"mask_resize": configs.IngestConfig.ADDED["mask_resize"]}
        keys = {}
        for split, data in self.data.items():
            if geometry == "pad" or split != "test":
                resized = resize if geometry == "pad" and split != "train" else without_masks
                values = {**resized, "split": split, "size": size, "geometry": geometry}
                config = configs.IngestConfig.model_validate(values)
                keys[split] = self.plan.add("ingest", config, {}, data)
        return keys

    def _labelled(self, size: int, geometry: str = "pad") -> dict[str, str]:
        """Return split -> key of the images that a classifier of this geometry learns from."""
        ingested = self.ingested(size) if geometry == "pad" else self.ingested(size, "short-side")
        return {name: ingested[name] for name in ("train", "valid")}

    def _imagenet(self, section: Any, architecture: str, name: str) -> dict[str, str]:
        """Return role -> key of the weights that a section starts from; empty if it has none."""
        if section.init == "random":
            return {}
        setting = f"{name}.init: found {section.init}"
        return {"encoder": self.plan.add_encoder(section.init, architecture, setting)}

    def _encoder(self, encoder: Encoder, training: BaseModel | None, size: int, seed: int) -> str:
        """Add an encoder; return its key. training: the section that trains it; None: imported."""
        if training is None:
            setting = (
                "encoder.imported: found true"
                if encoder.imported
                else f"encoder.init: found {encoder.init}"
            )
            return self.plan.add_encoder(encoder.init, encoder.architecture, setting)
        settings = {**training.model_dump(), "architecture": encoder.architecture, "seed": seed}
        stage = "moco" if encoder.init == "moco" else "pretrain"
        start = self._imagenet(training, encoder.architecture, stage)
        if stage == "moco":
            train = {"train": self.ingested(size)["train"]}
            return self.plan.add(stage, configs.MoCoConfig(**settings), train | start)
        config = configs.PretrainConfig(**settings)
        return self.plan.add(stage, config, self._labelled(size, config.geometry) | start)

    def _weak_labels(
        self,
        size: int,
        seed: int,
        kind: Literal["cam", "cam++", "irnet"],
        classify: Classify,
        saliency: Saliency,
        irnet: Irnet,
        split: ExpertSplit,
        negatives_empty: bool,
        pretraining: BaseModel | None,
    ) -> str:
        """Add the stages that make weak labels of a kind; return the key of the last one.

        pretraining: the section that trains IRNet's backbone; None: imported or random weights.
        """
        labelled = self._labelled(size)
        classified = self.plan.add(
            "classify",
            configs.ClassifyConfig(**classify.model_dump(), seed=seed),
            self._labelled(size, classify.geometry)
            | self._imagenet(classify, classify.architecture, "classify"),
        )
        config = configs.SaliencyConfig(
            **saliency.model_dump(),
            kind="cam++" if kind == "cam++" else "cam",
            architecture=classify.architecture,
            expert_train=split.train,
            expert_select=split.select,
            expert_split_by=split.by,
            negatives_empty=negatives_empty,
            seed=seed,
        )
        conflicts.check_layer(config.layer, classify.architecture)
        sources = {**labelled, "classifier": classified}
        if classify.geometry == "crop":
            images = self._labelled(size, classify.geometry)
            sources |= {f"{name}_strips": key for name, key in images.items()}
        mapped = self.plan.add("saliency", config, sources)
        if kind != "irnet":
            return mapped
        irnet_config = configs.IRNetConfig(
            **irnet.model_dump(), negatives_empty=negatives_empty, seed=seed
        )
        check_pairs(irnet_config, size)
        backbone = {}
        if irnet.init == "imagenet":
            setting = f"irnet.init: found {irnet.init}"
            backbone["encoder"] = self.plan.add_encoder(irnet.init, irnet.architecture, setting)
        elif irnet.init != "random":
            encoder = Encoder(architecture=irnet.architecture, init=irnet.init)
            backbone["encoder"] = self._encoder(encoder, pretraining, size, seed)
        # IRNet reads scores, and no masks of CAMs: other rules for these don't change its key.
        scores = config.model_copy(update={name: config.ADDED[name] for name in config.OF_MASKS})
        inputs = {**labelled, "saliency": mapped, **backbone}
        same_as = {"saliency": node_of("saliency", scores, sources).key}
        return self.plan.add("irnet", irnet_config, inputs, same_as=same_as)

    def _fit(
        self,
        pathologies: tuple[str, ...],
        encoder: Encoder,
        split: ExpertSplit,
        seed: int,
        fit: Fit,
    ) -> dict[str, Any]:
        """Return the config of a fit without its labels and seed, with values as in JSON."""
        config = configs.FitConfig(
            pathologies=pathologies,
            architecture=encoder.architecture,
            init=encoder.init,
            expert_train=split.train,
            expert_select=split.select,
            expert_split_by=split.by,
            split_seed=seed,
            **fit.model_dump(),
        )
        conflicts.check_selection(config.thresholds, split.select)
        # Sorted here once, because an identity is serialized with sorted keys.
        return dict(sorted(config.model_dump(mode="json").items()))

    def _fit_config(self, s: Settings, **learned: Any) -> dict[str, Any]:
        """Return the config of a fit, with values as in JSON.

        learned: fields of FitConfig about the labels. `Settings` has validated them already.
        """
        config = self.fit(s.pathologies, s.encoder, s.labels.expert_split, s.shared_seed, s.fit)
        return {**config, "seed": s.shared_seed + s.trial, **learned}

    def _scored(self, section: Score) -> dict[str, Any]:
        return configs.ScoreConfig(**section.model_dump()).model_dump(mode="json")
